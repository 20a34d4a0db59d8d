"""Edges that do each other's work: ablated together they cost more than one by one (self-repair, OR gates).

Single effects cannot show it, and a circuit found by them misses it: where either of two heads is enough, each alone is
worth nothing. So the strongest edges into a receiver are ablated together, and held against the sum of their single
effects.
"""

from typing import Final

import numpy as np
from jaxtyping import Float, Int

from optrode.circuit.edge.exact import exact_effects
from optrode.circuit.edge.records import Redundancy
from optrode.circuit.edge.runs import EdgeRuns, Mask
from optrode.trial.run import Progress, no_progress

N_INTO: Final = 12
"""Edges into a receiver that are looked at: the strongest."""

LEAST_RATIO: Final = 1.5
LEAST_JOINT: Final = 0.05
"""Redundant is what costs together at least 1.5 times the sum, and at least .05 of the whole effect."""

MOST: Final = 1000.0
"""The ratio is cut off here: single effects may be exactly zero."""

FEW: Final = 64
"""Where a model has no more receivers than this, all are looked at."""


def redundancies(
    runs: EdgeRuns, values: Float[np.ndarray, " edge"], n_receivers: int, progress: Progress = no_progress
) -> tuple[Redundancy, ...]:
    """The receivers whose edges together cost the most, strongest first.

    Args:
        values: effects of the edges, by which the strongest into each receiver are taken.
        n_receivers: how many are reported; in large models only those with the largest scores and the logits are looked at.
    """
    if n_receivers == 0:
        return ()
    graph = runs.wiring.graph
    into = {receiver: _strongest(runs, values, receiver) for receiver in _receivers(runs, values, n_receivers)}
    joint = runs.measure([_without(graph.n_edges, edges) for edges in into.values()], progress, "proof: redundancy")
    full, empty = float(np.mean(runs.full)), float(np.mean(runs.empty))
    losses = {receiver: full - float(np.mean(found)) for receiver, found in zip(into, joint, strict=True)}
    ranked = sorted(losses, key=lambda receiver: -abs(losses[receiver]))[:n_receivers]
    every = [int(edge) for receiver in ranked for edge in into[receiver]]
    single = dict(zip(every, exact_effects(runs, every, progress, "proof: redundancy").mean(0), strict=True))
    summed = {receiver: float(sum(abs(single[int(edge)]) for edge in into[receiver])) for receiver in ranked}
    return tuple(_one(graph.receivers[ix], losses[ix], summed[ix], abs(full - empty)) for ix in ranked)


def _receivers(runs: EdgeRuns, values: Float[np.ndarray, " edge"], n: int) -> list[int]:
    graph = runs.wiring.graph
    with_choice = [ix for ix in range(len(graph.receivers)) if graph.n_seen[ix] > 1]
    if len(with_choice) <= FEW:
        return with_choice
    total = np.abs(graph.matrix(values)).sum(1)
    found = sorted(with_choice, key=lambda ix: -float(total[ix]))[: 2 * n]
    return sorted({*found, len(graph.receivers) - 1})


def _strongest(runs: EdgeRuns, values: Float[np.ndarray, " edge"], receiver: int) -> Int[np.ndarray, " chosen"]:
    own = np.flatnonzero(runs.wiring.graph.ends[:, 0] == receiver)
    return own[np.argsort(-np.abs(values[own]), kind="stable")[:N_INTO]]


def _without(n_edges: int, edges: Int[np.ndarray, " chosen"]) -> Mask:
    mask = np.ones(n_edges, dtype=bool)
    mask[edges] = False
    return mask


def _one(receiver: str, joint: float, summed: float, scale: float) -> Redundancy:
    ratio = min(MOST, abs(joint) / summed) if summed else (MOST if joint else 0.0)
    is_redundant = ratio >= LEAST_RATIO and abs(joint) >= LEAST_JOINT * scale
    return Redundancy(receiver, joint, summed, ratio, is_redundant)
