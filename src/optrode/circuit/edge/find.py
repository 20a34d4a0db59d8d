"""From edge scores to an edge circuit: the fewest strongest edges that reach a target faithfulness, or what a search
keeps.
"""

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from optrode.circuit.circuit import TARGET
from optrode.circuit.edge.acdc import acdc, refuse_tau
from optrode.circuit.edge.curve import FINE, sizes_of
from optrode.circuit.edge.prune import prune
from optrode.circuit.edge.records import EdgeCircuit, EdgeScores
from optrode.circuit.edge.routes import route_scores
from optrode.circuit.edge.runs import EdgeRuns, Mask, refuse_degenerate, share_of
from optrode.circuit.edge.score import NAMES as SCORED
from optrode.circuit.edge.score import Settings, refuse_settings, score_edges
from optrode.circuit.edge.select import ORDERS, select
from optrode.circuit.edge.wiring import wiring_of
from optrode.circuit.nodes import find_ablation
from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress

TAU: Final = 0.01
"""ACDC's threshold, in the metric's unit."""

Searched = tuple[Mask, Float[np.ndarray, "prompt edge"]]


@dataclass(frozen=True)
class Search:
    """What a search for a circuit may use.

    Attributes:
        tau: ACDC's threshold, in the metric's unit.
        size: how many edges pruning keeps; None for a tenth.
        candidates: how many edges are tested by ACDC, those strongest by "eap-ig"; None for all.
    """

    tau: float
    size: int | None
    candidates: int | None


SEARCHES: Final[dict[str, Callable[[EdgeRuns, Search, Progress], Searched]]] = {
    "acdc": lambda runs, s, progress: acdc(runs, s.tau, _candidates(runs, s, progress), progress),
    "pruning": lambda runs, s, progress: prune(runs, s.size, progress=progress),
}
"""Methods that find a circuit rather than scores."""

METHODS: Final = (*SCORED, "ifr", *SEARCHES)


def find_edges(
    model: Model, task: Task, *, method: str = "eap-ig", ablation: str = "resample", size: int | None = None,
    target: float = TARGET, selection: str = "", progress: Progress = no_progress, bench: Bench | None = None,
    scores: EdgeScores | None = None, **options: Any,
) -> EdgeCircuit:  # fmt: skip
    """Score every edge and take the strongest, or search.

    Args:
        method: one of `score.NAMES`, "ifr" (information-flow routes), "acdc" or "pruning" (hard-concrete masks).
        ablation: see `score_edges`.
        size: number of edges; by default the smallest of a fixed ladder from which faithfulness on these prompts stays at
            `target` or above. ACDC chooses its own.
        selection: "absolute", "signed", "greedy" or "rms", see `select`; by default "greedy" for "ifr", else "absolute".
        scores: found before, to choose from again; method, ablation and options are then theirs.
        options: of `score_edges`; or tau, candidates of ACDC: its threshold (.01 by default), and how many edges (strongest
            by "eap-ig") it tests.

    Raises:
        BadOption: a size, target or option out of range, no such method, ablation or selection.
    """
    tau, candidates = options.pop("tau", None), options.pop("candidates", None)
    if scores is not None:
        method, ablation, options = scores.method, scores.ablation, _of(scores, task, options)
    _refuse(method, size, target, selection)
    _refuse_of_searches(method, selection, {"tau": tau, "candidates": candidates})
    started, bench = time.monotonic(), bench or Bench(model, task)
    passes = bench.worlds.n_passes
    wiring = wiring_of(model, per_query_head=options.get("per_query_head", False))
    if size is not None and size > wiring.graph.n_edges:
        n_edges = wiring.graph.n_edges
        raise BadOption(f"size={size}", f"{model.name} has {n_edges} edges", nearest=(f"size={n_edges}",))
    runs = EdgeRuns(bench, wiring, ablation)
    find_ablation(ablation)
    if method in SCORED and scores is None:
        given = {name: options[name] for name in ("n_steps", "points", "by_pos") if name in options}
        refuse_settings(Settings(method, ablation, **given), task)
    if size is None or method in SEARCHES:
        refuse_degenerate(runs)
    if method in SEARCHES:
        refuse_options(f"method {method!r}", wiring_of, options)
        is_in, scores = _searched(runs, method, Search(TAU if tau is None else tau, size, candidates), progress)
        chosen, reached = method, 0.0
    else:
        scores = scores or _scored(runs, method, progress, options)
        chosen, reached = selection or ("greedy" if method == "ifr" else "absolute"), 0.0 if size else target
        is_in = select(scores, size or _smallest(runs, scores, chosen, target, progress), chosen)
    return EdgeCircuit(
        task=task.name, is_in=is_in, selection=chosen, target=reached, scores=scores, tokens=task.pairs[0].clean_tokens,
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes - passes,
        ),
    )  # fmt: skip


def _of(scores: EdgeScores, task: Task, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that scores were found with.

    Raises:
        BadOption: they are of another task or of a search, or further options are given.
    """
    asked = f"find from scores of {scores.task} by {scores.method}"
    if scores.task != task.name:
        raise BadOption(asked, f"the task is {task.name}", next_step="give the task that they were measured on")
    if scores.method in SEARCHES:
        raise BadOption(asked, "a search has no scores to choose from again", next_step="search again")
    if options:
        raise BadOption(asked, f"{next(iter(options))} belongs to scoring", next_step="score again with it")
    return {"per_query_head": True} if scores.per_query_head else {}


def _refuse(method: str, size: int | None, target: float, selection: str) -> None:
    if method not in METHODS:
        raise BadOption(f"method {method!r} for edges", "no such method", nearest=nearest(method, METHODS) or METHODS)
    if selection and selection not in ORDERS:
        near = nearest(selection, ORDERS) or tuple(ORDERS)
        raise BadOption(f"selection {selection!r}", "no such selection", nearest=near)
    if selection == "rms" and method == "ifr":
        raise BadOption("selection='rms' of method 'ifr'", "importances have one sign", nearest=("greedy",))
    if size is not None and size < 1 or not 0 < target <= 1:
        found = "a size is at least 1, a target between 0 and 1"
        raise BadOption(f"size={size}, target={target}", found, next_step="leave them out for defaults")


def _refuse_of_searches(method: str, selection: str, own: Mapping[str, Any]) -> None:
    """Refuse options of one kind of method that were given to the other."""
    given = [f"{name}={value}" for name, value in own.items() if value is not None]
    if method == "acdc" and own["tau"] is not None:
        refuse_tau(own["tau"])
    if own["candidates"] is not None and own["candidates"] < 1:
        found = "testing takes at least one edge"
        raise BadOption(f"candidates={own['candidates']} of method {method!r}", found, next_step="leave it out for all")
    if given and method != "acdc":
        step = 'use method "acdc", or leave it out'
        raise BadOption(f"{given[0]} of method {method!r}", "only ACDC has it", next_step=step)
    if selection and method in SEARCHES:
        found = "it chooses its edges itself"
        raise BadOption(f"selection={selection!r} of method {method!r}", found, next_step="leave it out")


def refuse_options(asked: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse what a function does not take.

    Raises:
        BadOption: naming the first such option, and the nearest that it takes.
    """
    known = [name for name in inspect.signature(function).parameters if name not in ("model", "task", "method", "bench")]
    for name in options:
        if name not in known:
            raise BadOption(f"option {name} of {asked}", "no such option", nearest=nearest(name, known) or tuple(known))


def _scored(runs: EdgeRuns, method: str, progress: Progress, options: dict[str, Any]) -> EdgeScores:
    model, task = runs.bench.model, runs.bench.task
    refuse_options(f"method {method!r}", route_scores if method == "ifr" else score_edges, options)
    if method == "ifr":
        return route_scores(model, task, ablation=runs.ablation, progress=progress, bench=runs.bench, **options)
    return score_edges(
        model, task, method=method, ablation=runs.ablation, progress=progress, bench=runs.bench, **options
    )  # fmt: skip


def _candidates(runs: EdgeRuns, search: Search, progress: Progress) -> Mask | None:
    if search.candidates is None:
        return None
    scores = score_edges(
        runs.bench.model, runs.bench.task, ablation=runs.ablation, n_checks=0, progress=progress, bench=runs.bench,
        per_query_head=runs.wiring.per_query_head,
    )  # fmt: skip
    return select(scores, min(search.candidates, scores.graph.n_edges))


def _searched(runs: EdgeRuns, method: str, search: Search, progress: Progress) -> tuple[Mask, EdgeScores]:
    started, passes, bench = time.monotonic(), runs.bench.worlds.n_passes, runs.bench
    kept, gains = SEARCHES[method](runs, search, progress)
    scores = EdgeScores(
        task=bench.task.name, metric=bench.metric.name, unit=bench.metric.unit, method=method, ablation=runs.ablation,
        graph=runs.wiring.graph, per_prompt=-gains,
        settings=({"tau": str(search.tau)} if method == "acdc" else {})
        | ({"per_query_head": "True"} if runs.wiring.per_query_head else {}),
        provenance=provenance(
            bench.model.name, bench.model.weights_hash, bench.task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes - passes,
        ),
    )  # fmt: skip
    return kept, scores


def _smallest(runs: EdgeRuns, scores: EdgeScores, how: str, target: float, progress: Progress) -> int:
    """The smallest size of the ladder from which on two sizes in a row reach the target."""
    ladder = sorted(set(sizes_of(scores.graph.n_edges, FINE[:-1])))
    reached: int | None = None
    for ix, size in enumerate(ladder):
        progress("circuit size", ix, len(ladder))
        share = share_of(runs.measure([select(scores, size, how)])[0], runs.empty, runs.full)
        if share < target:
            reached = None
        elif reached is not None:
            return reached
        else:
            reached = size
    return reached or scores.graph.n_edges

