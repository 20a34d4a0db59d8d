"""ACDC: take edges out one by one, from the logits back, and keep those that are missed (Conmy et al., arXiv 2304.14997).

An edge e stays out if D(H without e) - D(H) < tau, where D is the mean over prompts of |m(whole model) - m(H)|: with the
metric "kl" that is their KL(whole || H), with a task's metric their task loss. What is taken out stays out. Edges are
tested receiver by receiver from the logits back, later senders first.

Several tests are made at once: a chain of circuits, each with one more edge taken out, up to the first edge that is
missed. The decisions are those of one test after another.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

from optrode.circuit.edge.runs import EdgeRuns, Mask
from optrode.errors import BadOption
from optrode.trial.run import Progress, Values, no_progress

LONGEST: Final = 32
"""Tests made at once, at most: what stands in a chain after a missed edge was measured for nothing."""


def acdc(
    runs: EdgeRuns, tau: float, candidates: Bool[np.ndarray, " edge"] | None = None, progress: Progress = no_progress
) -> tuple[Mask, Float[np.ndarray, "prompt edge"]]:
    """The edges that are missed, and what each test changed: |m - m(H)| gained, [prompt, edge].

    Args:
        tau: how much D may grow for an edge to stay out; in the metric's unit.
        candidates: edges to test; all others are out from the start. All by default.

    Raises:
        BadOption: tau is negative or not finite.
    """
    refuse_tau(tau)
    graph = runs.wiring.graph
    kept = np.ones(graph.n_edges, dtype=bool) if candidates is None else candidates.copy()
    order = [int(ix) for ix in reversed(_order(runs)) if kept[ix]]
    gains = np.zeros((len(runs.bench.task), graph.n_edges))
    current = _distance(runs, runs.measure([kept])[0])
    at, length = 0, 1
    while at < len(order):
        tested = order[at : at + length]
        chain = [_without(kept, tested[: n + 1]) for n in range(len(tested))]
        missed, current = _walk(runs, runs.measure(chain), tested, current, tau, gains)
        out = tested if missed is None else tested[:missed]
        kept = _without(kept, out)
        at += len(out) + (missed is not None)
        length = min(LONGEST, 2 * length) if missed is None else max(1, length // 2)
        progress("acdc", at, len(order))
    return kept, gains


def refuse_tau(tau: float) -> None:
    """Refuse what is no threshold.

    Raises:
        BadOption: it is negative or not finite.
    """
    if not (np.isfinite(tau) and tau >= 0):
        raise BadOption(f"tau={tau}", "a threshold is a finite number, 0 or more", nearest=("tau=0.01",))


def _order(runs: EdgeRuns) -> Int[np.ndarray, " edge"]:
    """Edges by the time at which their receivers read, then by sender. q, k and v of a layer read at once."""
    ends = runs.wiring.graph.ends
    return np.lexsort((ends[:, 1], ends[:, 0], runs.wiring.graph.n_seen[ends[:, 0]]))


def _without(kept: Mask, edges: list[int]) -> Mask:
    left = kept.copy()
    left[edges] = False
    return left


def _walk(
    runs: EdgeRuns, measured: list[Values], tested: list[int], current: Float[np.ndarray, " prompt"], tau: float,
    gains: Float[np.ndarray, "prompt edge"],
) -> tuple[int | None, Float[np.ndarray, " prompt"]]:  # fmt: skip
    """Where the chain meets the first edge that is missed, and D before it."""
    for place, (edge, values) in enumerate(zip(tested, measured, strict=True)):
        distance = _distance(runs, values)
        gains[:, edge] = distance - current
        if not gains[:, edge].mean() < tau:
            return place, current
        current = distance
    return None, current


def _distance(runs: EdgeRuns, values: Values) -> Float[np.ndarray, " prompt"]:
    return np.asarray(np.abs(np.array(runs.full) - np.array(values)))
