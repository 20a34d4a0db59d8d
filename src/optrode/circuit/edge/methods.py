"""All methods on one task: the curves of their circuits, how far these overlap, and what they cost."""

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Bool

from optrode.circuit.edge.auroc import FLOOR, auroc
from optrode.circuit.edge.check import correlation
from optrode.circuit.edge.curve import SHARES, areas, sizes_of
from optrode.circuit.edge.find import SEARCHES, find_edges
from optrode.circuit.edge.records import EdgeScores, MethodRow, MethodTable
from optrode.circuit.edge.runs import EdgeRuns, Mask, share_of
from optrode.circuit.edge.select import select
from optrode.circuit.edge.stability import overlaps
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress

COMPARED: Final = ("eap", "eap-ig", "clean-corrupted", "mask-ig", "atp-drop", "ifr")
"""Methods that are quick enough for a language model."""


def compare_methods(
    model: Model, task: Task, methods: Sequence[str] = COMPARED, *, ablation: str = "resample",
    shares: Sequence[float] = SHARES, truth: Bool[np.ndarray, " edge"] | None = None, judged_on: Task | None = None,
    progress: Progress = no_progress, bench: Bench | None = None, **options: Any,
) -> MethodTable:  # fmt: skip
    """Score a task's edges by several methods, and measure the circuits that each would choose.

    Args:
        methods: names of `find.METHODS`. Exact effects, if among them, are what the others are correlated with.
        shares: of the edges, at which circuits are measured.
        truth: the edges known to matter, for AUROC.
        judged_on: prompts that circuits are measured on; those they are found on by default.
        options: of `find_edges`, for all methods.

    Raises:
        BadOption: no method, one named twice or unknown; or as `find_edges`.
    """
    if not methods or len(set(methods)) < len(methods):
        raise BadOption(f"methods {tuple(methods)}", "a comparison takes each method once, and at least one")
    started, bench = time.monotonic(), bench or Bench(model, task)
    every = {m: _scored(bench, m, ablation, progress, options) for m in sorted(methods, key=lambda m: m != "exact")}
    judge = EdgeRuns(
        Bench(model, judged_on, bench.metric) if judged_on else bench,
        wiring_of(model, per_query_head=options.get("per_query_head", False)), ablation,
    )  # fmt: skip
    exact = every["exact"].values if "exact" in every else None
    rows = tuple(_row(judge, every[method], method, shares, truth, exact, progress) for method in methods)
    size = sizes_of(judge.wiring.graph.n_edges, (_size_share(judge, truth),))[0]
    circuits = np.stack([select(every[method], size, _how(method)) for method in methods])
    return MethodTable(
        task=task.name, metric=bench.metric.name, ablation=ablation, rows=rows,
        jaccard=tuple(tuple(map(float, row)) for row in overlaps(circuits)), size=size,
        n_all=judge.wiring.graph.n_edges, n_prompts=len(judge.bench.task),
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes,
        ),
    )  # fmt: skip


def _scored(bench: Bench, method: str, ablation: str, progress: Progress, options: dict[str, Any]) -> EdgeScores:
    """A method's scores, on a bench of its own so that passes and time are its own too."""
    own = Bench(bench.model, bench.task, bench.metric, memory_gib=bench.memory_gib)
    more = options | ({} if method in SEARCHES or method in ("exact", "ifr") else {"n_checks": 0})
    size = None if method in SEARCHES else 1
    return find_edges(
        bench.model, bench.task, method=method, ablation=ablation, size=size, progress=progress, bench=own, **more
    ).scores


def _how(method: str) -> str:
    return "greedy" if method == "ifr" else "absolute"


def _size_share(judge: EdgeRuns, truth: Mask | None) -> float:
    """The size at which circuits are compared: that of the truth, or one per cent."""
    return 0.01 if truth is None else max(1, int(truth.sum())) / len(truth)


def _row(
    judge: EdgeRuns, scores: EdgeScores, method: str, shares: Sequence[float], truth: Mask | None,
    exact: Any, progress: Progress,
) -> MethodRow:  # fmt: skip
    sizes = sizes_of(scores.graph.n_edges, shares)
    points = [_points(judge, scores, how, shares, sizes, progress) for how in (_how(method), "signed")]
    found = [areas(shares, [faithfulness for _, faithfulness in part]) for part in points]
    values = scores.values
    return MethodRow(
        method=method, cpr=found[1].cpr, cmd=found[0].cmd, n_passes=scores.provenance.n_passes,
        time_s=scores.provenance.time_s, points=points[0], points_signed=points[1],
        auroc=None if truth is None else auroc(values, truth),
        auroc_floored=None if truth is None else auroc(values, truth, floor=FLOOR),
        correlation=None if exact is None or method == "exact" else correlation(values, exact), notes=scores.notes,
    )  # fmt: skip


def _points(
    judge: EdgeRuns, scores: EdgeScores, how: str, shares: Sequence[float], sizes: Sequence[int], progress: Progress
) -> tuple[tuple[float, float], ...]:
    circuits = [select(scores, size, how) for size in sizes]
    measured = judge.measure(circuits, progress, f"circuits of {scores.method}")
    return tuple((s, share_of(v, judge.empty, judge.full)) for s, v in zip(shares, measured, strict=True))
