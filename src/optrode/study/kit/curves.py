"""Curves of training runs: as lines over sequences seen, when they pass a bound, and how long they stay level."""

import math

from optrode.claims import Line
from optrode.train.records import Series


def line(name: str, series: Series, per_step: int = 1, *, dashed: bool = False) -> Line:
    """A measure as a line of a chart.

    Args:
        per_step: units of x in one step: sequences in a batch, say.
    """
    return Line(name, tuple(float(step * per_step) for step in series.steps), series.values, dashed=dashed)


def falls_below(series: Series, bound: float) -> float:
    """The step at which a curve first falls below a bound, between two measurements as the logarithm goes; NaN for never."""
    before: tuple[int, float] | None = None
    for step, value in zip(series.steps, series.values, strict=True):
        if value < bound:
            return float(step) if before is None else _between(before, (step, value), bound)
        before = step, value
    return math.nan


def stays_within(series: Series, low: float, high: float) -> float:
    """Steps of the longest stretch of measurements that all lie within bounds, from its first to its last."""
    longest, start = 0, None
    for step, value in zip(series.steps, series.values, strict=True):
        if not low <= value <= high:
            start = None
            continue
        start = step if start is None else start
        longest = max(longest, step - start)
    return float(longest)


def _between(before: tuple[int, float], after: tuple[int, float], bound: float) -> float:
    (first, high), (last, low) = before, after
    if low <= 0:
        return float(last)
    return first + (last - first) * math.log(high / bound) / math.log(high / low)
