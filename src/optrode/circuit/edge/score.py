"""Score every edge of a model on a task: one interface for all methods, one table for what they find."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float

from optrode.circuit.edge.atp import along_drops, with_attention_again
from optrode.circuit.edge.check import N_CHECKS, check
from optrode.circuit.edge.eap import Batch, Shared, along_activations, along_inputs, along_masks, batches, path
from optrode.circuit.edge.exact import exact_effects
from optrode.circuit.edge.records import EdgeScores
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.wiring import wiring_of
from optrode.circuit.nodes import find_ablation
from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress

SUM_TOLERANCE: Final = 0.01
"""Integrated gradients over masks converged if their sum is this close to what it should be, relative."""


@dataclass(frozen=True)
class Settings:
    """Options of the methods.

    Attributes:
        method: see `METHODS`.
        ablation: "resample", "zero" or "mean".
        n_steps: points of a path; None for the method's own number.
        points: where they stand, see `eap.RULES`; None for the method's own.
        by_pos: also give every edge's share at each position.
    """

    method: str = "eap-ig"
    ablation: str = "resample"
    n_steps: int | None = None
    points: str | None = None
    by_pos: bool = False

    def path(self, n_steps: int, rule: str) -> list[float]:
        """The method's points."""
        return path(self.n_steps or n_steps, self.points or rule)


Along = Callable[[Batch, Settings], Iterator[Shared]]

METHODS: Final[dict[str, Along]] = {
    "eap": lambda batch, s: along_inputs(batch, [1.0], s.by_pos),
    "eap-ig": lambda batch, s: along_inputs(batch, s.path(5, "right"), s.by_pos),
    "clean-corrupted": lambda batch, s: along_inputs(batch, [1.0, 0.0], s.by_pos),
    "eap-ig-activations": lambda batch, s: along_activations(batch, s.n_steps or 5, s.by_pos),
    "mask-ig": lambda batch, s: along_masks(batch, s.path(20, "midpoint"), s.by_pos),
    "atp-qk": lambda batch, s: with_attention_again(batch, s.by_pos),
    "atp-drop": lambda batch, s: along_drops(batch, s.by_pos),
}
"""First-order methods. "exact" measures every edge by itself; circuit-finding methods are in `find.py`."""

NAMES: Final = ("exact", *METHODS)

STEPPED: Final = {"n_steps": ("eap-ig", "eap-ig-activations", "mask-ig"), "points": ("eap-ig", "mask-ig")}
"""Which methods take these options."""


def score_edges(
    model: Model, task: Task, *, method: str = "eap-ig", ablation: str = "resample", n_steps: int | None = None,
    points: str | None = None, by_pos: bool = False, per_query_head: bool = False, n_checks: int = N_CHECKS,
    progress: Progress = no_progress, bench: Bench | None = None,
) -> EdgeScores:  # fmt: skip
    """The effect on the metric of ablating each edge in the clean run; negative where the edge helps.

    Args:
        method: "exact" runs the model once per edge (packed). "eap", "eap-ig", "clean-corrupted", "eap-ig-activations" and
            "mask-ig" are gradients at points (`eap.py`); "atp-qk" and "atp-drop" are the corrections of AtP* (`atp.py`).
            All but "exact" re-measure the `n_checks` strongest and as many random edges exactly.
        ablation: what a sender gives where its edge is ablated: "resample" (its output in the corrupt run), "zero", "mean".
        n_steps, points: how many points, and where, for methods that integrate.
        by_pos: also give each edge's share at every position (prompts of one length).
        per_query_head: with grouped K/V, every query head has a k and a v input of its own; else a group has.

    Raises:
        BadOption: no such method, ablation or rule; positions asked for over prompts of different lengths.
        SiteUnavailable: the model has no heads to score.
    """
    if n_checks < 0:
        raise BadOption(f"n_checks={n_checks}", "it is a number of edges", next_step="give 0 for none")
    settings = Settings(method, ablation, n_steps, points, by_pos)
    refuse_settings(settings, task)
    started, bench = time.monotonic(), bench or Bench(model, task)
    passes = bench.worlds.n_passes
    runs = EdgeRuns(bench, wiring_of(model, per_query_head=per_query_head), ablation)
    per_prompt, per_pos = _exact(runs, progress) if method == "exact" else first_order(runs, settings, progress)
    spot = check(runs, per_prompt.mean(0), n_checks, task.random_seed, progress) if method != "exact" else None
    return EdgeScores(
        task=task.name, metric=bench.metric.name, unit=bench.metric.unit, method=method, ablation=ablation,
        graph=runs.wiring.graph, per_prompt=per_prompt, per_pos=per_pos, check=spot,
        notes=tuple(_notes(runs, settings, per_prompt)), settings=_told(settings, per_query_head),
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes - passes,
        ),
    )  # fmt: skip


def refuse_settings(settings: Settings, task: Task) -> None:
    """Refuse settings that no method can have, before anything is measured.

    Raises:
        BadOption: naming the first.
    """
    if settings.method not in NAMES:
        near = nearest(settings.method, NAMES) or NAMES
        raise BadOption(f"method {settings.method!r} for edges", "no such method", nearest=near)
    find_ablation(settings.ablation)
    for option, value in (("n_steps", settings.n_steps), ("points", settings.points)):
        if value is not None and settings.method not in STEPPED[option]:
            found = f"it integrates along no path; {', '.join(STEPPED[option])} do"
            raise BadOption(f"{option}={value} of method {settings.method!r}", found, next_step="leave it out")
    if settings.n_steps is not None and settings.n_steps < 1:
        raise BadOption(f"n_steps={settings.n_steps}", "a path has at least one point", next_step="leave it out")
    if settings.by_pos and (settings.method == "exact" or task.length is None):
        found = "exact effects have no shares" if settings.method == "exact" else "the prompts differ in length"
        raise BadOption(f"edge scores by position on {task.name}", found, next_step="leave by_pos out")


def _exact(runs: EdgeRuns, progress: Progress) -> tuple[Float[np.ndarray, "prompt edge"], None]:
    return exact_effects(runs, range(runs.wiring.graph.n_edges), progress), None


def first_order(
    runs: EdgeRuns, settings: Settings, progress: Progress = no_progress
) -> tuple[Float[np.ndarray, "prompt edge"], Float[np.ndarray, "edge pos"] | None]:
    """[prompt, edge] scores of a first-order method, and [edge, pos] shares where they are asked for."""
    n_prompts, n_edges = len(runs.bench.task), runs.wiring.graph.n_edges
    dtype = torch.promote_types(runs.wiring.model.dtype, torch.float32)
    total = torch.zeros(n_prompts, n_edges, dtype=dtype)
    by_pos = torch.zeros(n_edges, runs.bench.worlds.length(0), dtype=total.dtype) if settings.by_pos else None
    parts = list(batches(runs))
    for ix, batch in enumerate(parts):
        progress("edge scores", ix, len(parts))
        members = [runs.bench.worlds.groups[batch.group][row] for row in batch.rows]
        for shares, weight in METHODS[settings.method](batch, settings):
            total[members] += weight * shares.per_row.to(total)
            if by_pos is not None and shares.per_pos is not None:
                by_pos += weight / n_prompts * shares.per_pos.to(total)
    progress("edge scores", len(parts), len(parts))
    return total.numpy(), None if by_pos is None else by_pos.numpy()


def _notes(runs: EdgeRuns, settings: Settings, per_prompt: Float[np.ndarray, "prompt edge"]) -> Iterator[str]:
    if settings.method == "mask-ig":
        found = float(per_prompt.sum(1).mean())
        wanted = float(np.mean(runs.empty) - np.mean(runs.full))
        gap = abs(found - wanted)
        if gap > SUM_TOLERANCE * abs(wanted):
            yield (
                f"mask-ig did not converge: its scores add up to {found:.4g}, while all edges ablated together change the "
                f"metric by {wanted:.4g} (a gap of {gap / max(abs(wanted), 1e-12):.0%}); take more steps, or measure exactly"
            )
    if not np.any(per_prompt):
        yield "all scores are exactly zero: the two worlds may give the same output, so that this metric sees nothing"


def _told(settings: Settings, per_query_head: bool) -> dict[str, str]:
    held = {"n_steps": settings.n_steps, "points": settings.points, "per_query_head": per_query_head or None}
    return {name: str(value) for name, value in held.items() if value is not None}

