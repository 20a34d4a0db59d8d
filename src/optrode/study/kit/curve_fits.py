"""Curves of massive ratios, with everything that is fitted to them, and curves that a simpler law would have made.

    seen = fitted("layer 1", steps, ratios)
    seen.over_responses        # by how much the law's criterion is better than that of the best step response
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from optrode.train.fitting import Points, aic, data_of
from optrode.train.growth import Fit, MassiveLaw, compare_growth

_TAUS: Final = np.geomspace(1e-4, 10.0, 60)
"""Of the plain logarithm, in lengths of the run."""
_N_GRID: Final = 20_001
_N_ZOOMS: Final = 6


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """A curve, and what was fitted to it.

    Attributes:
        name: of the curve.
        steps, ratios: [point] measured.
        law: the law of massive activations.
        response: the better of the two step responses, by Akaike's criterion.
        plain: Akaike's criterion of the better of a straight line and a logarithm without decay.
        plain_at: [point] what that one gives.
    """

    name: str
    steps: Points
    ratios: Points
    law: Fit
    response: Fit
    plain: float
    plain_at: Points

    @property
    def over_responses(self) -> float:
        """How far the law's criterion is below that of the step responses."""
        return self.response.aic - self.law.aic

    @property
    def over_plain(self) -> float:
        """How far the law's criterion is below that of a line and a plain logarithm."""
        return self.plain - self.law.aic

    @property
    def shape(self) -> MassiveLaw:
        """The law with its parameters."""
        assert isinstance(self.law.law, MassiveLaw)
        return self.law.law

    @property
    def turn(self) -> float | None:
        """Step within the run at which the law turns, None where it does not: a peak, or, upside down, a trough."""
        step = self.shape.peak_step()
        return step if step is not None and step <= self.steps[-1] else None

    @property
    def peak(self) -> float | None:
        """Step within the run at which the law peaks, None where it does not."""
        return self.turn if self.shape.amplitude > 0 else None

    def turn_seen(self, width: int = 5) -> float:
        """The step at which the measured ratio is largest, or smallest where the law is upside down.

        After a running median over `width` looks, fewer at the ends.
        """
        half = width // 2
        medians = [np.median(self.ratios[max(0, ix - half) : ix + half + 1]) for ix in range(len(self.ratios))]
        at = np.argmax(medians) if self.shape.amplitude > 0 else np.argmin(medians)
        return float(self.steps[int(at)])


def fitted(name: str, steps: Sequence[int | float] | Points, ratios: Sequence[float] | Points) -> Fitted:
    """All fits of one curve.

    Raises:
        BadOption: as `compare_growth`.
    """
    t, y = np.asarray(steps, dtype=np.float64), np.asarray(ratios, dtype=np.float64)
    fits = compare_growth(t, y)
    law = next(fit for fit in fits if isinstance(fit.law, MassiveLaw))
    response = next(fit for fit in fits if not isinstance(fit.law, MassiveLaw))
    return Fitted(name, t, y, law, response, *_plain(t, y))


def _plain(t: Points, y: Points) -> tuple[float, Points]:
    """The better of a straight line (2 parameters) and A ln(t + tau) + K (3): its criterion, and its values."""
    data = data_of(t, y, 3)
    logs = [np.log(data.t + tau) for tau in _TAUS]
    line, log = _least_squares(data.t, y), min((_least_squares(one, y) for one in logs), key=lambda found: found[0])
    found = [(aic(rss, n, data), values) for n, (rss, values) in ((2, line), (3, log))]
    return min(found, key=lambda one: one[0])


def _least_squares(x: Points, y: Points) -> tuple[float, Points]:
    """Sum of squares and values of y = a x + b."""
    terms = np.stack([x, np.ones_like(x)], 1)
    values: Points = terms @ np.linalg.lstsq(terms, y, rcond=None)[0]
    return float(np.square(values - y).sum()), values


def made_by(values: Points, ratios: Points, generator: np.random.Generator) -> Points:
    """A curve that a fit would have made: its values, and its own residuals in random order."""
    made: Points = values + generator.permutation(ratios - values)
    return made


def numerical_peak(law: MassiveLaw, last: float) -> float | None:
    """The step at which a law is largest, found by looking: on a grid from 0 to far beyond the run, then ever closer.

    A law upside down has its least value there. None where the largest value lies at an end of the grid.
    """
    grid = np.unique(np.concatenate([np.linspace(0, last, _N_GRID), np.geomspace(last * 1e-6, last * 1e6, _N_GRID)]))
    for _ in range(_N_ZOOMS):
        at = int(np.argmax(law.at(grid) * math.copysign(1.0, law.amplitude)))
        if at in (0, len(grid) - 1):
            return None
        found = float(grid[at])
        grid = np.linspace(grid[at - 1], grid[at + 1], 101)
    return found
