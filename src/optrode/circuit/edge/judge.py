"""Judge an edge circuit by intervention: run the model with every edge outside it ablated, and hold that against
controls.
"""

import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Final, final

import numpy as np

from optrode.circuit.circuit import Interval
from optrode.circuit.edge.curve import SHARES, curve, sizes_of
from optrode.circuit.edge.records import EdgeCircuit, EdgeCurve, EdgeLoss, EdgeProof, SharePoint
from optrode.circuit.edge.redundancy import redundancies
from optrode.circuit.edge.runs import EdgeRuns, Mask, refuse_degenerate, share_of
from optrode.circuit.edge.select import ORDERS, select
from optrode.circuit.edge.stability import bootstrap_jaccard
from optrode.circuit.edge.wiring import wiring_of
from optrode.circuit.interval import N_BOOTSTRAP, draws, ratio_interval
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, Values, no_progress

SELECTIONS: Final = ("absolute", "signed")


def prove_edges(
    model: Model, task: Task, circuit: EdgeCircuit, *, shares: Sequence[float] = SHARES, n_random: int = 20,
    n_minimality: int = 20, n_subsets: int = 10, n_receivers: int = 6, n_bootstrap: int = N_BOOTSTRAP,
    progress: Progress = no_progress, bench: Bench | None = None,
) -> EdgeProof:  # fmt: skip
    """Measure an edge circuit's faithfulness, completeness, minimality and redundancy, with random circuits as the control.

    For an honest proof give other prompts than those the circuit was found on (the same generator with another random seed).

    Args:
        shares: of all edges, at which the curves are measured; MIB's by default, `curve.FINE` for more.
        n_random: random circuits with as many edges into q, k, v, MLP inputs and the logits.
        n_minimality: how many of the circuit's strongest edges are also taken out one by one.
        n_subsets: random subsets of the circuit that are taken out of it and of the whole model (completeness).
        n_receivers: receivers whose edges are ablated together and one by one (redundancy).
        n_bootstrap: resamples of the prompts behind every interval.

    Raises:
        BadOption: the circuit is of another graph, or ablating every edge changes nothing, so that faithfulness has no
            meaning.
    """
    started, bench = time.monotonic(), bench or Bench(model, task)
    passes = bench.worlds.n_passes
    wiring = wiring_of(model, per_query_head=circuit.scores.per_query_head)
    if wiring.graph != circuit.graph:
        raise BadOption(
            f"proof of a circuit for {circuit.task} in {model.name}",
            f"its graph has {circuit.n_all} edges, this model's {wiring.graph.n_edges}",
            next_step=f"prove it with the model that it was found in ({circuit.provenance.model})",
        )  # fmt: skip
    runs = EdgeRuns(bench, wiring, circuit.scores.ablation)
    court = Court(runs, circuit, n_bootstrap, progress)
    inside, outside = court.measure([circuit.is_in, ~circuit.is_in])
    return EdgeProof(
        task=task.name, metric=bench.metric.name, unit=bench.metric.unit, ablation=runs.ablation, size=circuit.size,
        n_all=circuit.n_all, full=_mean(runs.full), empty=_mean(runs.empty),
        faithfulness=court.share(inside), interval=court.interval(inside),
        curves=tuple(court.curve(how, shares) for how in court.selections()), random=court.random_circuits(n_random),
        without=court.share(outside), without_interval=court.interval(outside),
        completeness=court.completeness(n_subsets), minimality=court.minimality(inside, n_minimality),
        redundancy=redundancies(runs, circuit.scores.values, n_receivers, progress),
        jaccard=court.jaccard(),
        n_prompts=len(task), n_bootstrap=n_bootstrap,
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes - passes,
        ),
    )  # fmt: skip


@final
class Court:
    """One proof under way: the runs, the two reference values, and the draws behind intervals."""

    def __init__(self, runs: EdgeRuns, circuit: EdgeCircuit, n_bootstrap: int, progress: Progress) -> None:
        self.runs, self.circuit, self.progress = runs, circuit, progress
        task = runs.bench.task
        self.drawn = draws(len(task), task.random_seed, n_bootstrap)
        self.rng = random.Random(task.random_seed)
        self.full, self.empty = runs.full, runs.empty
        refuse_degenerate(runs)

    def selections(self) -> tuple[str, ...]:
        """The ways to select that curves are measured for: MIB's two, and the circuit's own."""
        own = self.circuit.selection
        return SELECTIONS if own in SELECTIONS or own not in ORDERS else (*SELECTIONS, own)

    def jaccard(self) -> float:
        """Mean overlap of the circuits of resampled prompts; a search is held to its scores' absolute selection."""
        scores, how = self.circuit.scores, self.circuit.selection
        if not self.circuit.size or len(scores.per_prompt) < 2:
            return 1.0
        return bootstrap_jaccard(scores, self.circuit.size, how if how in ORDERS else "absolute").mean

    def measure(self, kept: Sequence[Mask], stage: str = "proof") -> list[Values]:
        """[circuit][prompt] metric."""
        return self.runs.measure(kept, self.progress, stage)

    def share(self, values: Values) -> float:
        """Faithfulness."""
        return share_of(values, self.empty, self.full)

    def interval(self, values: Values) -> Interval:
        """Of faithfulness."""
        return ratio_interval(values, self.empty, self.full, self.drawn)

    def curve(self, how: str, shares: Sequence[float]) -> EdgeCurve:
        """Faithfulness at shares of the edges. The whole model has 1 by definition."""
        sizes = sizes_of(self.circuit.n_all, shares)
        measured = self.measure([select(self.circuit.scores, size, how) for size in sizes], f"proof: {how} curve")
        points = [
            SharePoint(share, size, self.share(values), self.interval(values))
            for share, size, values in zip(shares, sizes, measured, strict=True)
        ]
        return curve(how, points)

    def random_circuits(self, n: int) -> tuple[float, ...]:
        """Faithfulness of random circuits with as many edges into each kind of receiver."""
        graph = self.runs.wiring.graph
        kinds = np.array([graph.receiver_ends[receiver].kind for receiver in graph.ends[:, 0]])
        pools = [np.flatnonzero(kinds == kind).tolist() for kind in sorted(set(kinds))]
        counts = [int(self.circuit.is_in[pool].sum()) for pool in pools]
        drawn = []
        for _ in range(n):
            mask = np.zeros(graph.n_edges, dtype=bool)
            mask[[ix for pool, count in zip(pools, counts, strict=True) for ix in self.rng.sample(pool, count)]] = True
            drawn.append(mask)
        return tuple(map(self.share, self.measure(drawn, "proof: random circuits")))

    def completeness(self, n: int) -> tuple[float, ...]:
        """|m(M without K) - m(C without K)| / |full - empty| for random subsets K of the circuit, of all sizes."""
        edges = np.flatnonzero(self.circuit.is_in).tolist()
        masks = []
        for _ in range(n if len(edges) > 1 else 0):
            taken = self.rng.sample(edges, self.rng.randint(1, len(edges) - 1))
            outside, inside = np.ones_like(self.circuit.is_in), self.circuit.is_in.copy()
            outside[taken] = inside[taken] = False
            masks += [outside, inside]
        means = [_mean(values) for values in self.measure(masks, "proof: completeness")]
        scale = abs(_mean(self.full) - _mean(self.empty))
        return tuple(abs(a - b) / scale for a, b in zip(means[::2], means[1::2], strict=True))

    def minimality(self, inside: Values, n: int) -> tuple[EdgeLoss, ...]:
        """Faithfulness lost without each of the strongest edges."""
        graph, is_in = self.runs.wiring.graph, self.circuit.is_in
        chosen = [int(ix) for ix in self.circuit.scores.ranked() if is_in[ix]][:n]
        without = []
        for edge in chosen:
            mask = is_in.copy()
            mask[edge] = False
            without.append(mask)
        return tuple(map(partial(self._loss, inside), map(graph.name, chosen), self.measure(without, "proof: minimality")))

    def _loss(self, inside: Values, edge: str, without: Values) -> EdgeLoss:
        above_empty = tuple(i - w + e for i, w, e in zip(inside, without, self.empty, strict=True))
        return EdgeLoss(edge, self.share(above_empty), self.interval(above_empty))


def _mean(values: Values) -> float:
    return sum(values) / len(values)
