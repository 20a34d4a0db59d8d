"""Cheap honesty: approximate edge scores measured again, exactly, for the strongest edges and for random ones."""

import random
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float

from optrode.circuit.edge.exact import exact_effects
from optrode.circuit.edge.records import EdgeCheck
from optrode.circuit.edge.runs import EdgeRuns
from optrode.trial.run import Progress

N_CHECKS: Final = 20
"""How many of the strongest edges, and how many random ones, are measured again."""

LEAST_CORRELATION: Final = 0.7
"""Below this correlation with exact effects, scores are said to disagree."""

MISSED: Final = (0.2, 0.05)
"""A random edge was missed if its exact effect is at least .2 of the strongest one checked, its score below .05 of it."""


def check(
    runs: EdgeRuns, values: Float[np.ndarray, " edge"], n: int, random_seed: int, progress: Progress
) -> EdgeCheck | None:
    """Exact effects of the strongest edges and of random others; None where nothing is to be checked."""
    if n == 0:
        return None
    ranked = np.argsort(-np.abs(values), kind="stable")
    rest = [int(ix) for ix in ranked[n:]]
    chosen = [int(ix) for ix in ranked[:n]] + random.Random(random_seed).sample(rest, min(n, len(rest)))
    exact = exact_effects(runs, chosen, progress, "spot checks").mean(0)
    return compared(runs, chosen, values[chosen], exact, n)


def compared(
    runs: EdgeRuns, edges: Sequence[int], scores: Float[np.ndarray, " checked"], exact: Float[np.ndarray, " checked"], n: int
) -> EdgeCheck:
    """The record of a check; the first `n` edges are the strongest."""
    most = float(np.abs(exact).max())
    small = np.abs(scores) < MISSED[1] * max(float(np.abs(scores).max()), most)
    missed = small & (np.abs(exact) >= MISSED[0] * most) if most else np.zeros(len(edges), dtype=bool)
    r = correlation(scores, exact)
    return EdgeCheck(
        edges=tuple(runs.wiring.graph.name(edge) for edge in edges), is_top=tuple(ix < n for ix in range(len(edges))),
        approximate=tuple(map(float, scores)), exact=tuple(map(float, exact)), correlation=r,
        agrees=r >= LEAST_CORRELATION and not missed.any(),
        missed=tuple(runs.wiring.graph.name(edges[int(ix)]) for ix in np.flatnonzero(missed)),
    )  # fmt: skip


def correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Pearson's r; 0 where one side does not vary."""
    if len(a) < 2 or np.std(a) == 0 or np.std(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
