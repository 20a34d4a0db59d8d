"""The effect of every node: exactly, one run each, or to first order with exact spot checks."""

import random
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from optrode.circuit.circuit import NodeScore, Scores, SpotCheck
from optrode.circuit.gradient import attribute
from optrode.circuit.interval import draws, mean_interval
from optrode.circuit.nodes import ablate, all_nodes, find_ablation
from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress
from optrode.trial.trial import Trial

METHODS: Final = {"attribution": 1, "ig": 5}
"""First-order methods: name -> number of points at which gradients are taken. "exact" runs every node."""

N_SPOT_CHECKS: Final = 10


def score(
    model: Model, task: Task, *, method: str = "ig", ablation: str = "resample",
    n_spot_checks: int = N_SPOT_CHECKS, progress: Progress = no_progress, bench: Bench | None = None,
) -> Scores:  # fmt: skip
    """The effect on the metric of ablating each node in the clean run; negative where the node helps.

    Args:
        method: "exact" runs the model once per node. "attribution" (gradients at the clean run) and "ig" (averaged over
            five points between corrupt and clean embeddings) are first-order; they re-measure the `n_spot_checks`
            strongest and as many random nodes exactly, and report the agreement.
        ablation: "resample" (the corrupt run's value), "zero" or "mean".

    Raises:
        BadOption: no such method or ablation.
        SiteUnavailable: the model has no heads to score.
    """
    known = ("exact", *METHODS)
    if method not in known:
        raise BadOption(f"method {method!r}", "no such method", nearest=nearest(method, known) or known)
    find_ablation(ablation)
    started = time.monotonic()
    bench = bench or Bench(model, task)
    passes = bench.worlds.n_passes
    nodes = all_nodes(model)
    if method == "exact":
        scores, check = _exact(bench, nodes, ablation, progress), None
    else:
        progress("first-order effects", 0, 1)
        scores = _first_order(bench, nodes, ablation, METHODS[method])
        check = _spot_check(bench, scores, ablation, n_spot_checks, progress)
    return Scores(
        task=task.name, metric=bench.metric.name, unit=bench.metric.unit, method=method, ablation=ablation,
        nodes=scores, spot_check=check,
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes - passes,
        ),
    )  # fmt: skip


def exact_effects(
    bench: Bench, nodes: Sequence[str], ablation: str, progress: Progress = no_progress, stage: str = "exact effects"
) -> list[tuple[float, ...]]:
    """[node][prompt] metric with that one node ablated in the clean run, minus the metric without."""
    trials = [Trial(ablate([node], ablation), "clean", bench.metric.name) for node in nodes]
    gated = bench.run_many(trials, progress, stage)
    return [tuple(g - b for g, b in zip(values, bench.base("clean"), strict=True)) for values in gated]


def _exact(bench: Bench, nodes: Sequence[str], ablation: str, progress: Progress) -> tuple[NodeScore, ...]:
    drawn = draws(len(bench.task), bench.task.random_seed)
    effects = exact_effects(bench, nodes, ablation, progress)
    return tuple(
        NodeScore(node, float(np.mean(effect)), mean_interval(effect, drawn), effect)
        for node, effect in zip(nodes, effects, strict=True)
    )


def _first_order(bench: Bench, nodes: Sequence[str], ablation: str, n_steps: int) -> tuple[NodeScore, ...]:
    drawn = draws(len(bench.task), bench.task.random_seed)
    scores = []
    for node, effects in attribute(bench, nodes, ablation, n_steps).items():
        per_prompt = tuple(effects.sum(1).tolist())
        per_pos = tuple(effects.mean(0).tolist())
        scores.append(
            NodeScore(node, float(np.mean(per_prompt)), mean_interval(per_prompt, drawn), per_prompt, per_pos)
        )
    return tuple(scores)


def _spot_check(
    bench: Bench, scores: tuple[NodeScore, ...], ablation: str, n: int, progress: Progress
) -> SpotCheck | None:
    """Exact effects of the strongest nodes and of random others."""
    if n == 0:
        return None
    ranked = sorted(scores, key=lambda s: -abs(s.effect))
    rest = ranked[n:]
    chosen = ranked[:n] + random.Random(bench.task.random_seed).sample(rest, min(n, len(rest)))
    effects = exact_effects(bench, [one.node for one in chosen], ablation, progress, "spot checks")
    exact = [float(np.mean(effect)) for effect in effects]
    approximate = tuple(one.effect for one in chosen)
    return SpotCheck(
        nodes=tuple(one.node for one in chosen), is_top=tuple(ix < n for ix in range(len(chosen))),
        approximate=approximate, exact=tuple(exact), correlation=_correlation(approximate, exact),
    )  # fmt: skip


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    if len(a) < 2 or np.std(a) == 0 or np.std(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
