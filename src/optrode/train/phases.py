"""Phase changes of a curve over training: where it moves abruptly between two stretches on which it hardly moves.

Steps are taken on a logarithmic axis, u = log2(step), with step 0 one doubling before the first positive step, so that ten
steps early in training and a thousand late can be equally abrupt. The definition is ours:

    s(u), b(u)    value and slope of the local linear fit at u, with Gaussian weights of standard deviation `width` doublings
                  (Fan and Gijbels, Local Polynomial Modelling, 1996)
    peak          where |b| is largest
    start, end    where |b| first falls to a quarter of its peak, on either side
    height        s(end) - s(start)

A logistic curve of log steps goes from 7 % to 93 % of its way between start and end. An exponential approach to a level,
e^(-t/T), takes a factor of 36 in steps by this definition, a power law never ends: neither is a phase change.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float, Int

from optrode.errors import BadOption
from optrode.train.records import Series

LEAST_POINTS: Final = 8
EDGE: Final = 0.25
PER_DOUBLING: Final = 48
_FLAT: Final = 1e-9
_NEIGHBOURS: Final = 15
_TO_SD: Final = 1.4826
"""Standard deviation of a normal variable over the median of its size."""

Points = Float[np.ndarray, " point"]
Places = Float[np.ndarray, " place"]


@final
@dataclass(frozen=True)
class PhaseChange:
    """One abrupt change.

    Attributes:
        step: of the steepest change.
        start, end: steps between which it lies.
        before, after: smoothed values at both, in the curve's unit.
    """

    step: int
    start: int
    end: int
    before: float
    after: float

    @property
    def height(self) -> float:
        """How far the curve goes, with its sign."""
        return self.after - self.before


@final
@dataclass(frozen=True)
class _Curve:
    """A series over u = log2(step), close points as one: place, value, variance of the noise in it, number of points."""

    u: Points
    value: Points
    variance: Points
    n: Points


@final
@dataclass(frozen=True)
class _Smooth:
    """The local linear fit at a grid of places, with the variance that noise gives its value."""

    u: Places
    value: Places
    slope: Places
    variance: Places


def phase_changes(
    series: Series, *, width: float = 0.2, least: float = 0.2, factor: float = 10.0, noise: float = 5.0
) -> tuple[PhaseChange, ...]:
    """The phase changes of a curve, in the order of their steps; see the module for what one is.

    One that has not ended at the last step, or was under way at the first, is not counted, and fewer than eight finite
    values have none.

    Args:
        width: of the smoothing, in doublings of the step.
        least: height at least, as a share of the smoothed curve's range.
        factor: end / start at most.
        noise: height at least, in standard deviations of what noise alone does to it. Noise is the typical size of a value's
            distance from the line through its two neighbours, taken nearby.

    Raises:
        BadOption: an option is not positive, or steps do not ascend.
    """
    _check(series, width, least, factor, noise)
    values = np.asarray(series.values, dtype=np.float64)
    is_known = np.isfinite(values)
    steps, values = np.asarray(series.steps, dtype=np.float64)[is_known], values[is_known]
    if len(steps) < LEAST_POINTS:
        return ()
    smooth = _smoothed(_curve(steps, values), width)
    extent = float(smooth.value.max() - smooth.value.min())
    if extent <= _FLAT * float(np.abs(values).max()):
        return ()
    found = []
    for peak, start, end in _stretches(smooth.slope):
        height = abs(smooth.value[end] - smooth.value[start])
        chance = noise * np.sqrt(smooth.variance[start] + smooth.variance[end])
        is_abrupt = smooth.u[end] - smooth.u[start] <= np.log2(factor)
        if is_abrupt and height >= least * extent and height > chance:
            found.append(_change(smooth, peak, start, end))
    return tuple(sorted(found, key=lambda change: change.step))


def thinned(series: Series) -> Series:
    """The same curve with at most 48 points in each doubling of the step: means of neighbours, at the middle one's step."""
    if not series.steps:
        return series
    steps, values = np.asarray(series.steps, dtype=np.float64), np.asarray(series.values, dtype=np.float64)
    groups = _groups(_doublings(steps))
    n = np.bincount(groups)
    middle = np.cumsum(n) - n + n // 2
    means = np.bincount(groups, values) / n
    return Series(tuple(int(steps[ix]) for ix in middle), tuple(means.tolist()))


def _check(series: Series, width: float, least: float, factor: float, noise: float) -> None:
    asked = "phase changes"
    if min(width, least, noise) <= 0 or factor <= 1:
        found = f"width={width:g}, least={least:g}, factor={factor:g}, noise={noise:g}"
        raise BadOption(asked, found, next_step="give positive numbers, and a factor above 1")
    if any(later <= step for step, later in zip(series.steps, series.steps[1:], strict=False)):
        raise BadOption(asked, "the steps of the series do not ascend", next_step="sort it by step")


def _change(smooth: _Smooth, peak: int, start: int, end: int) -> PhaseChange:
    at_peak, at_start, at_end = (round(2 ** float(smooth.u[ix])) for ix in (peak, start, end))
    return PhaseChange(at_peak, at_start, at_end, float(smooth.value[start]), float(smooth.value[end]))


def _doublings(steps: Points) -> Points:
    """log2 of steps; step 0 stands one doubling before the first positive one."""
    first = steps[steps > 0].min() if (steps > 0).any() else 1.0
    u: Points = np.log2(np.maximum(steps, first / 2))
    return u


def _groups(u: Points) -> Int[np.ndarray, " point"]:
    """Number of each point's group; those of one group are 1/48 doubling apart at most."""
    return np.unique(np.floor((u - u[0]) * PER_DOUBLING).astype(np.int64), return_inverse=True)[1]


def _curve(steps: Points, values: Points) -> _Curve:
    u = _doublings(steps)
    groups = _groups(u)
    n = np.bincount(groups).astype(np.float64)
    u, value, variance = (np.bincount(groups, x) / n for x in (u, values, _noise(u, values) ** 2))
    return _Curve(u, value, variance / n, n)


def _noise(u: Points, values: Points) -> Points:
    """Standard deviation of the noise at each point: the median, among its neighbours, of what a line does not explain."""
    share = (u[1:-1] - u[:-2]) / (u[2:] - u[:-2])
    miss = values[1:-1] - (1 - share) * values[:-2] - share * values[2:]
    size = np.abs(miss) / np.sqrt(1 + share**2 + (1 - share) ** 2)
    size = np.concatenate([size[:1], size, size[-1:]])
    span = min(_NEIGHBOURS, len(size))
    typical = np.median(np.lib.stride_tricks.sliding_window_view(size, span), axis=1)
    first = np.clip(np.arange(len(size)) - span // 2, 0, len(typical) - 1)
    return np.asarray(_TO_SD * typical[first], dtype=np.float64)


def _smoothed(curve: _Curve, width: float) -> _Smooth:
    """The local linear fit; where points are sparse, the weights reach to the nearest ones."""
    n_places = max(int((curve.u[-1] - curve.u[0]) * 24), 48) + 1
    places = np.linspace(curve.u[0], curve.u[-1], n_places)
    away = curve.u[None, :] - places[:, None]
    reach = np.maximum(width, np.sort(np.abs(away), axis=1)[:, 2:3] / 2)
    weight = curve.n * np.exp(-0.5 * (away / reach) ** 2)
    m0, m1, m2 = (np.sum(weight * away**power, axis=1, keepdims=True) for power in (0, 1, 2))
    spread = m0 * m2 - m1**2
    to_value, to_slope = weight * (m2 - m1 * away) / spread, weight * (m0 * away - m1) / spread
    return _Smooth(places, to_value @ curve.value, to_slope @ curve.value, to_value**2 @ curve.variance)


def _stretches(slope: Places) -> list[tuple[int, int, int]]:
    """(peak, start, end) of every stretch around a peak of the slope's size, highest first, that starts and ends within."""
    size = np.abs(slope)
    inner = (size[1:-1] >= size[:-2]) & (size[1:-1] > size[2:])
    peaks = 1 + np.flatnonzero(inner)
    taken: Bool[np.ndarray, " place"] = np.zeros(len(slope), dtype=bool)
    found = []
    for peak in peaks[np.argsort(-size[peaks], kind="stable")]:
        if taken[peak]:
            continue
        is_on = (size >= EDGE * size[peak]) & (np.sign(slope) == np.sign(slope[peak])) & ~taken
        start, end = _run_around(is_on, int(peak))
        taken[start : end + 1] = True
        if start > 0 and end < len(slope) - 1:
            found.append((int(peak), start, end))
    return found


def _run_around(is_on: Bool[np.ndarray, " place"], at: int) -> tuple[int, int]:
    """First and last index of the unbroken run of True around an index."""
    off = np.flatnonzero(~is_on)
    before, after = off[off < at], off[off > at]
    return int(before[-1]) + 1 if len(before) else 0, int(after[0]) - 1 if len(after) else len(is_on) - 1
