"""Least squares of a curve over training steps: checks of the data, starts, and how well the best of them fits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Real

from optrode.errors import BadOption

Points = Float[np.ndarray, " point"]
Numbers = Sequence[int | float] | Real[np.ndarray, " point"]
Curve = Callable[..., Points]
"""(steps [point], *parameters) -> values [point], or, of a Jacobian, [point, parameter]."""
N_TRIES: Final = 500
"""Evaluations of a curve from one start."""


@dataclass(frozen=True, eq=False)
class Data:
    """Values over training steps, scaled so that both end at 1.

    Attributes:
        t: steps / last.
        y: (values - lowest) / span.
    """

    t: Points
    y: Points
    last: float
    lowest: float
    span: float


@dataclass(frozen=True)
class Found:
    """Parameters of least squares, in the units of the scaled data, and their sum of squares in those of the values."""

    parameters: tuple[float, ...]
    rss: float
    has_converged: bool


def data_of(steps: Numbers, values: Numbers, n_parameters: int) -> Data:
    """Steps and values, checked and scaled.

    Raises:
        BadOption: not as many values as steps, not finite, a negative step, no more different steps than the curve has
            parameters, or values that never change.
    """
    t, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if t.shape != y.shape:
        raise BadOption(f"a fit of {len(y)} values", f"there are {len(t)} steps", next_step="give one value of each step")
    if not (np.isfinite(t).all() and np.isfinite(y).all()):
        raise BadOption("a fit over training steps", "a step or value is not finite", next_step="fit the steps before it")
    if (t < 0).any():
        raise BadOption("a fit over training steps", f"there is a step {t.min():g}", next_step="count steps from 0")
    if len(np.unique(t)) <= n_parameters:
        found = f"there are {len(np.unique(t))} different steps"
        step = f"measure at {n_parameters + 1} or more"
        raise BadOption(f"a fit of {n_parameters} parameters", found, next_step=step)
    if not np.ptp(y):
        raise BadOption("a fit over training steps", "the values never change", next_step="measure where something grows")
    last, lowest, span = float(t.max()), float(y.min()), float(np.ptp(y))
    return Data(t / last, (y - lowest) / span, last, lowest, span)


def linear_starts(
    basis: Callable[..., Float[np.ndarray, "point term"]], grid: Sequence[Sequence[float]], data: Data, n: int = 1
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:  # fmt: skip
    """The n points of the grid whose bases fit best, each with the coefficients of its terms."""
    tried = []
    for point in product(*grid):
        terms = basis(data.t, *point)
        found = np.linalg.lstsq(terms, data.y, rcond=None)[0]
        tried.append((float(np.square(terms @ found - data.y).sum()), point, tuple(map(float, found))))
    return [(point, found) for _, point, found in sorted(tried)[:n]]


def fits_from(
    starts: Sequence[Sequence[float]], curve: Curve, jacobian: Curve | None, low: Sequence[float], high: Sequence[float],
    data: Data,
) -> list[Found]:  # fmt: skip
    """Least squares from every start by the trust-region reflective method (what scipy's `curve_fit` calls), best first.

    Args:
        jacobian: derivatives by the parameters [point, parameter]; differences of two points where it is None.
        low, high: bounds of the parameters. Starts outside are moved in.

    Raises:
        BadOption: scipy is not installed.
    """
    optimize = scipy_module("optimize")
    inside = np.clip(starts, np.asarray(low) + 1e-9, np.asarray(high) - 1e-9)
    by = "2-point" if jacobian is None else lambda p: jacobian(data.t, *map(float, p))
    found = [
        optimize.least_squares(
            lambda p: curve(data.t, *map(float, p)) - data.y, start, by, bounds=(low, high), method="trf", max_nfev=N_TRIES
        )
        for start in inside
    ]  # fmt: skip
    found.sort(key=lambda one: float(one.cost))
    return [Found(tuple(map(float, one.x)), 2 * float(one.cost) * data.span**2, bool(one.status > 0)) for one in found]


def r_squared(rss: float, data: Data) -> float:
    """1 - RSS / sum of squares about the mean."""
    return 1.0 - rss / (float(np.square(data.y - data.y.mean()).sum()) * data.span**2)


def aic(rss: float, n_parameters: int, data: Data) -> float:
    """Akaike's criterion for normal errors, n ln(RSS / n) + 2 p: lower is better, comparable over the same values only.

    A sum of squares below what rounding leaves counts as that.
    """
    n = len(data.y)
    rounding = float(np.finfo(np.float64).eps) * data.span
    return n * math.log(max(rss / n, rounding**2)) + 2 * n_parameters


def scipy_module(name: str) -> Any:
    """A module of scipy, loaded on use.

    Raises:
        BadOption: scipy is not installed.
    """
    try:
        return import_module(f"scipy.{name}")
    except ImportError:
        step = "pip install 'optrode[studies]'"
        raise BadOption("a fit or peak of growth", "the package scipy is not installed", next_step=step) from None
