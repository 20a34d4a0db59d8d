"""Circuits of edges at positions: the same edge may matter at one token and not at another.

Scores summed over positions can cancel, and an edge kept at all positions brings what it does elsewhere (Haklay et al.,
arXiv 2502.04577). Here an edge is kept position by position. Prompts must line up: one length, and the same roles at the
same places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from optrode.circuit.circuit import TARGET, Interval
from optrode.circuit.edge.curve import FINE, sizes_of
from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.records import EdgeScores
from optrode.circuit.edge.runs import EdgeRuns, PosMask, share_of
from optrode.circuit.edge.score import score_edges
from optrode.circuit.edge.wiring import wiring_of
from optrode.circuit.interval import draws, ratio_interval
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress


@dataclass(frozen=True, eq=False)
class PositionCircuit:
    """Edges at positions.

    Attributes:
        is_in: [edge, pos].
        scores: what they were chosen by, with `per_pos`.
        tokens: token texts of one prompt, for labels.
        faithfulness, interval: on the prompts that `measured_on` says.
        measured_on: "found on" or "other prompts".
    """

    task: str
    is_in: Bool[np.ndarray, "edge pos"]
    scores: EdgeScores
    tokens: tuple[str, ...]
    faithfulness: float
    interval: Interval
    measured_on: str

    @property
    def graph(self) -> Graph:
        """What its edges are."""
        return self.scores.graph

    @property
    def size(self) -> int:
        """Number of edges at positions."""
        return int(self.is_in.sum())

    def edges(self, n: int = 20) -> tuple[str, ...]:
        """The strongest, as "a3.h2 -> a5.h1.k @ 9"."""
        assert self.scores.per_pos is not None
        order = _order(self.scores.per_pos)
        chosen = [(int(e), int(pos)) for e, pos in order if self.is_in[e, pos]]
        return tuple(f"{self.graph.name(edge)} @ {pos}" for edge, pos in chosen[:n])


def find_positions(
    model: Model, task: Task, *, method: str = "eap-ig", ablation: str = "resample", size: int | None = None,
    target: float = TARGET, judged_on: Task | None = None, progress: Progress = no_progress,
) -> PositionCircuit:  # fmt: skip
    """Find a circuit of edges at positions.

    Args:
        method: a first-order one of `score_edges`.
        size: number of (edge, position) pairs; by default the smallest of a ladder that reaches `target`.
        judged_on: other prompts of the same length, on which the result's faithfulness is measured.

    Raises:
        BadOption: prompts of several lengths, other prompts of another length, a method without positions, or a size out
            of range.
    """
    bench = Bench(model, task)
    scores = score_edges(model, task, method=method, ablation=ablation, by_pos=True, progress=progress, bench=bench)
    assert scores.per_pos is not None
    n_all = scores.per_pos.size
    if size is not None and not 1 <= size <= n_all:
        near = (f"size={min(max(size, 1), n_all)}",)
        raise BadOption(f"size={size}", f"there are {n_all} edges at positions", nearest=near)
    if judged_on is not None and judged_on.length != task.length:
        found = f"its prompts have {judged_on.length} tokens, those of {task.name} {task.length}"
        raise BadOption(f"judging positions on {judged_on.name}", found, next_step="give prompts of the same length")
    runs = EdgeRuns(bench, wiring_of(model), ablation)
    order = _order(scores.per_pos)
    chosen = _first(order, size or _smallest(runs, scores, order, target, progress), scores.per_pos.shape)
    judge = runs if judged_on is None else EdgeRuns(Bench(model, judged_on), runs.wiring, ablation)
    values = judge.measure([chosen])[0]
    drawn = draws(len(judge.bench.task), judge.bench.task.random_seed)
    return PositionCircuit(
        task=task.name, is_in=chosen, scores=scores, tokens=task.pairs[0].clean_tokens,
        faithfulness=share_of(values, judge.empty, judge.full),
        interval=ratio_interval(values, judge.empty, judge.full, drawn),
        measured_on="found on" if judged_on is None else "other prompts",
    )  # fmt: skip


def _order(per_pos: np.ndarray) -> np.ndarray:
    """[(edge, pos)] strongest first."""
    ranked = np.argsort(-np.abs(per_pos), axis=None, kind="stable")
    return np.stack(np.unravel_index(ranked, per_pos.shape), 1)


def _first(order: np.ndarray, n: int, shape: Sequence[int]) -> PosMask:
    chosen = np.zeros(shape, dtype=bool)
    chosen[order[:n, 0], order[:n, 1]] = True
    return chosen


def _smallest(runs: EdgeRuns, scores: EdgeScores, order: np.ndarray, target: float, progress: Progress) -> int:
    assert scores.per_pos is not None
    ladder = sorted(set(sizes_of(scores.per_pos.size, FINE[:-1])))
    for ix, size in enumerate(ladder):
        progress("circuit size", ix, len(ladder))
        values = runs.measure([_first(order, size, scores.per_pos.shape)])[0]
        if share_of(values, runs.empty, runs.full) >= target:
            return size
    return int(scores.per_pos.size)
