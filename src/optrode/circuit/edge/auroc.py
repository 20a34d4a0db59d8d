"""How well scores find the edges that are known to be true. No model, no torch."""

from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from optrode.circuit.edge.curve import SHARES, sizes_of, trapezoid
from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.select import ranking
from optrode.errors import BadOption, nearest

Protocol = Literal["mann-whitney", "mib"]
PROTOCOLS: Final = ("mann-whitney", "mib")
FLOOR: Final = 1e-3
"""The floor of the floored AUROC, as a share of the largest score."""


def auroc(
    scores: Float[np.ndarray, " edge"], truth: NDArray[np.bool_], *, floor: float = 0.0,
    protocol: str = "mann-whitney", graph: Graph | None = None,
) -> float:  # fmt: skip
    """Area under the receiver operating characteristic: 1 finds every true edge first, .5 is chance.

    Scores enter by their size. Edges outside a circuit often score exactly 0, and then a true edge with a score that is
    nothing but rounding noise ranks above all of them: the raw area says 1 where the method found nothing. The floored
    area (`floor=FLOOR`) takes scores below that share of the largest for 0, and so for ties.

    Args:
        scores: effects of any sign.
        truth: [edge] true for the edges of the known circuit.
        floor: share of the largest score below which a score counts as 0.
        protocol: "mann-whitney" is the share of pairs (true edge, false edge) in which the true one scores higher, ties
            counting 1/2. "mib" is what the MIB benchmark computes (arXiv 2504.13151): the rates of true and of false
            positives at ten sizes, as trapezoids over the false positive rate divided by its largest value. It has no
            point at (0, 0), and so counts nothing left of the smallest size.
        graph: for "mib", what the edges are: circuits then grow greedily from the logits, as MIB's do. Without it, they
            are the largest scores.

    Raises:
        BadOption: no such protocol, a floor out of range, truth without true or without false edges, or scores that are
            not finite or not those of the same edges.
    """
    if protocol not in PROTOCOLS:
        raise BadOption(f"protocol {protocol!r}", "no such protocol", nearest=nearest(protocol, PROTOCOLS) or PROTOCOLS)
    if not 0 <= floor <= 1:
        raise BadOption(f"floor={floor}", "a floor is a share of the largest score", nearest=("0.0", str(FLOOR)))
    _check(scores, truth)
    size = np.abs(scores)
    size = np.where(size < floor * size.max(), 0.0, size)
    return _rank_sum(size, truth) if protocol == "mann-whitney" else _at_ten_sizes(size, truth, graph)


def _check(scores: Float[np.ndarray, " edge"], truth: NDArray[np.bool_]) -> None:
    if len(scores) != len(truth):
        found = f"{len(scores)} scores and a truth of {len(truth)} edges"
        raise BadOption("AUROC", found, next_step="make both from one graph, e.g. truth = graph.edges([...])")
    if not np.isfinite(scores).all():
        found = f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite"
        raise BadOption("AUROC", found, next_step="score in a wider dtype")
    if truth.all() or not truth.any():
        found = f"{int(truth.sum())} of {len(truth)} edges are true; it compares true edges with false ones"
        raise BadOption("AUROC", found, next_step="give a truth that holds some edges and leaves out some")


def _rank_sum(size: Float[np.ndarray, " edge"], truth: Bool[np.ndarray, " edge"]) -> float:
    """Mann and Whitney's U over the number of pairs, from mid-ranks."""
    n_true = int(truth.sum())
    u = mid_ranks(size)[truth].sum() - n_true * (n_true + 1) / 2
    return float(u / (n_true * (len(truth) - n_true)))


def mid_ranks(values: Float[np.ndarray, " edge"]) -> Float[np.ndarray, " edge"]:
    """Ranks from 1 up; ties share the mean of theirs."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Float[np.ndarray, " edge"] = (np.cumsum(count) - (count - 1) / 2)[group]
    return ranks


def _at_ten_sizes(size: Float[np.ndarray, " edge"], truth: Bool[np.ndarray, " edge"], graph: Graph | None) -> float:
    order = np.argsort(-size, kind="stable") if graph is None else ranking(size, graph, "greedy")
    is_true = truth[order]
    at = np.array(sizes_of(len(truth), SHARES)) - 1
    true_rate = np.cumsum(is_true)[at] / is_true.sum()
    false_rate = np.cumsum(~is_true)[at] / (~is_true).sum()
    return trapezoid(true_rate, false_rate / false_rate.max())
