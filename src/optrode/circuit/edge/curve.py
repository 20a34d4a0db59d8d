"""Faithfulness over circuit size: the sizes at which it is measured, and its areas CPR and CMD. No model, no torch.

As the MIB benchmark defines them (Mueller et al., arXiv 2504.13151): trapezoids over the share of edges on a linear axis,
from the smallest share measured and not from 0. At MIB's shares a circuit that is perfect at every size so has a CPR of
.999 and a CMD of 0; one that is worthless below the whole model, as random circuits are, has .25 and .749.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

from optrode.circuit.edge.records import EdgeCurve, SharePoint
from optrode.errors import BadOption

SHARES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The sizes of the MIB benchmark, as shares of the edges of the whole model."""

FINE: Final = (
    0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7,
    0.8, 0.9, 1.0,
)  # fmt: skip
"""Finer sizes. They hold those of MIB, so that one measurement gives both (see `at_shares`)."""


class Areas(NamedTuple):
    """Areas of a curve.

    Attributes:
        cpr: integral of faithfulness over the share of edges; higher is better, above 1 where circuits beat the model.
        cmd: integral of |1 - faithfulness|; lower is better.
    """

    cpr: float
    cmd: float


def areas(shares: Sequence[float], faithfulness: Sequence[float]) -> Areas:
    """CPR and CMD, in the unit of faithfulness.

    Args:
        shares: [point] of the edges, ascending, above 0 and at most 1.
        faithfulness: [point].

    Raises:
        BadOption: fewer than two points, shares out of order or range, or faithfulness that is not finite.
    """
    _check(shares, faithfulness)
    share, faithful = np.asarray(shares, dtype=float), np.asarray(faithfulness, dtype=float)
    return Areas(trapezoid(faithful, share), trapezoid(np.abs(1 - faithful), share))


def trapezoid(values: Float[np.ndarray, " point"], at: Float[np.ndarray, " point"]) -> float:
    """The integral of a line drawn through points. NumPy's own has another name in versions that we support."""
    return float((np.diff(at) * (values[1:] + values[:-1]) / 2).sum())


def _check(shares: Sequence[float], faithfulness: Sequence[float]) -> None:
    step = f"give one faithfulness for each share, e.g. of {SHARES[0]}, {SHARES[1]} ... {SHARES[-1]}"
    if len(shares) != len(faithfulness) or len(shares) < 2:
        found = f"{len(shares)} shares and {len(faithfulness)} values; an area needs two points or more"
        raise BadOption("areas of a curve", found, next_step=step)
    wrong = [(a, b) for a, b in pairwise((0.0, *shares)) if not a < b <= 1]
    if wrong:
        found = f"a share of {wrong[0][1]} follows {wrong[0][0]}; shares ascend, above 0 and at most 1"
        raise BadOption("areas of a curve", found, next_step=step)
    if not np.isfinite(faithfulness).all():
        at = next(share for share, value in zip(shares, faithfulness, strict=True) if not np.isfinite(value))
        found = f"faithfulness at a share of {at} is not finite"
        raise BadOption("areas of a curve", found, next_step="use prompts whose metric the ablation changes")


def sizes_of(n_edges: int, shares: Sequence[float] = SHARES) -> tuple[int, ...]:
    """[share] numbers of edges: shares of `n_edges`, rounded down as MIB does, and at least 1.

    Raises:
        BadOption: a share that is not above 0 and at most 1.
    """
    for share in shares:
        if not 0 < share <= 1:
            raise BadOption(f"share {share}", "a share of the edges is above 0 and at most 1", nearest=("0.001", "1.0"))
    # a share like 0.29 of 100 edges is 28.999999999999996 in floating point
    return tuple(max(1, int(share * n_edges * (1 + 1e-12))) for share in shares)


def curve(selection: str, points: Sequence[SharePoint]) -> EdgeCurve:
    """Measured points, ascending by share, with their areas.

    Args:
        selection: how the circuits were selected. CPR is meant for "signed", CMD for "absolute".

    Raises:
        BadOption: as `areas`.
    """
    found = areas([point.share for point in points], [point.faithfulness for point in points])
    return EdgeCurve(selection, tuple(points), found.cpr, found.cmd)


def at_shares(whole: EdgeCurve, shares: Sequence[float] = SHARES) -> EdgeCurve:
    """A curve's points at some of its shares, with the areas of these alone: a fine curve as MIB would measure it.

    Raises:
        BadOption: a share at which the curve was not measured.
    """
    by_share = {point.share: point for point in whole.points}
    for share in shares:
        if share not in by_share:
            near = sorted(by_share, key=lambda other: abs(other - share))[:3]
            raise BadOption(f"share {share}", "the curve was not measured there", nearest=tuple(map(str, near)))
    return curve(whole.selection, [by_share[share] for share in shares])
