"""How massive activations grow in training: a law of five parameters, its peak, and fits of it and of two baselines.

Hidden Dynamics of Massive Activations in Transformer Training, arXiv 2508.03616, for r(t), the massive ratio of one layer's
residual stream at step t (`streams.massive_ratios`):

    f(t) = A e^(-lambda x) ln x + K,   x = gamma t + t0

Symbols: A `amplitude`, lambda `decay`, gamma `rate` (1/steps), t0 `offset`, K `level` (f where x = 1). It is fitted as

    f(t) = A1 e^(-b t) (ln(t + tau) + g) + K,   b = lambda gamma, tau = t0 / gamma, A1 = A e^(-lambda t0), g = ln gamma

(the paper's form, where A2 = A1 g) on steps and values scaled to 1.

Where the values do not bend enough, other parameters give the same curve: as lambda goes to 0 with x far from 0, or as the
curve becomes an exponential. Then the curve and its peak are what was measured, and the single parameters are not.
"""

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float

from optrode.errors import BadOption
from optrode.train.fitting import (
    Data,
    Found,
    Numbers,
    Points,
    aic,
    data_of,
    fits_from,
    linear_starts,
    r_squared,
    scipy_module,
)

_G_MAX: Final = 20.0
_LOG_MAX: Final = 700.0
_N_STARTS: Final = 4
_MASSIVE_LOW: Final = (-np.inf, -_G_MAX, 0.0, 1e-6, -np.inf)
_MASSIVE_HIGH: Final = (np.inf, _G_MAX, 1e3, 10.0, np.inf)
_MASSIVE_GRID: Final = ([0.0, *np.geomspace(0.03, 300, 12).tolist()], np.geomspace(1e-5, 5, 12).tolist())
"""Of b and tau, in scaled steps."""
_RATES: Final = np.geomspace(0.1, 1e3, 25).tolist()
_DAMPINGS: Final = [0.1, 0.3, 0.6, 1.0, 2.0, 5.0]


@final
@dataclass(frozen=True)
class MassiveLaw:
    """The law with its parameters; see the module for the symbols."""

    amplitude: float
    decay: float
    rate: float
    offset: float
    level: float

    def at(self, steps: Numbers) -> Points:
        """The law's values at steps.

        Raises:
            BadOption: a step before the law begins, where x is not positive.
        """
        t = np.asarray(steps, dtype=np.float64)
        return massive_law(t, self.amplitude, self.decay, self.rate, self.offset, self.level)

    def peak_step(self) -> float | None:
        """The step of the peak, or None where it is not observable."""
        return peak_step(self.decay, self.rate, self.offset)


@final
@dataclass(frozen=True)
class StepResponse:
    """Response of a linear system of first or second order to a step.

    Attributes:
        level, gain: where it starts, and how far it goes.
        rate: 1/time constant, or the natural angular frequency, per step.
        damping: damping ratio; None for first order.
    """

    level: float
    gain: float
    rate: float
    damping: float | None

    def at(self, steps: Numbers) -> Points:
        """The response's values at steps."""
        return self.level + self.gain * step_response(np.asarray(steps, dtype=np.float64), self.rate, self.damping)


@final
@dataclass(frozen=True)
class Fit:
    """A curve fitted to values over steps.

    Attributes:
        law: what was fitted, with its parameters.
        n_points, n_parameters: as they count in `aic`.
        rss: sum of squared differences, in the values' units.
        r2: 1 - rss / sum of squares about the mean.
        aic: n ln(rss / n) + 2 p; lower is better among fits of the same values.
        has_converged: the search ended by itself, and not after the most tries that it has.
    """

    law: MassiveLaw | StepResponse
    n_points: int
    n_parameters: int
    rss: float
    r2: float
    aic: float
    has_converged: bool


def massive_law(steps: Points, amplitude: float, decay: float, rate: float, offset: float, level: float) -> Points:
    """A e^(-lambda x) ln x + K at x = gamma t + t0.

    Raises:
        BadOption: x is not positive at a step.
    """
    x = rate * steps + offset
    if not (x > 0).all():
        found = f"x = gamma t + t0 is {x.min():g} at a step, and ln x needs more than 0"
        raise BadOption("the law of massive activations", found, next_step="take later steps, or a larger t0")
    values: Points = amplitude * np.exp(-decay * x) * np.log(x) + level
    return values


def peak_step(decay: float, rate: float, offset: float) -> float | None:
    """(e^W(1/lambda) - t0) / gamma, where f is largest (smallest, for A < 0); W is Lambert's function.

    From f' = 0: x ln x = 1/lambda. None where the peak is not observable: unless 1/(lambda W(1/lambda)) > t0 it lies before
    step 0, and without decay there is none. Whether it lies within the run is for the caller to see.

    Raises:
        BadOption: the rate is not positive, or scipy is not installed.
    """
    if not rate > 0:
        raise BadOption(f"peak at rate={rate:g}", "x = gamma t + t0 grows with the steps", next_step="give a positive rate")
    if decay <= 0 or math.isinf(1 / decay):
        return None
    x = math.exp(float(scipy_module("special").lambertw(1 / decay).real))
    return (x - offset) / rate if x > offset else None


def curve(steps: Points, a1: float, g: float, b: float, tau: float, level: float) -> Points:
    """The law in the form in which it is fitted: A1 e^(-b t) (ln(t + tau) + g) + K."""
    values: Points = a1 * np.exp(-b * steps) * (np.log(steps + tau) + g) + level
    return values


def curve_jacobian(
    steps: Points, a1: float, g: float, b: float, tau: float, level: float
) -> Float[np.ndarray, "point parameter"]:  # fmt: skip
    """Derivatives of `curve` by a1, g, b, tau and level."""
    fall, bend = np.exp(-b * steps), np.log(steps + tau) + g
    columns = (fall * bend, a1 * fall, -a1 * steps * fall * bend, a1 * fall / (steps + tau), np.ones_like(steps))
    return np.stack(columns, 1)


def step_response(steps: Points, rate: float, damping: float | None = None) -> Points:
    """Unit response to a unit step at 0: 1 - e^(-rate t), or of second order with a damping ratio.

    Second order: 1 - e^(-z w t) (cosh(s t) + z w sinh(s t) / s), s = w sqrt(z^2 - 1), imaginary where z < 1.
    """
    if damping is None:
        return -np.expm1(-rate * steps)
    s = rate * np.sqrt(complex(damping**2 - 1))
    if abs(s) < 1e-6 * rate:
        critical: Points = 1 - np.exp(-rate * steps) * (1 + rate * steps)
        return critical
    slow, fast = np.exp((s - damping * rate) * steps), np.exp((-s - damping * rate) * steps)
    values: Points = 1 - ((slow + fast) / 2 + damping * rate * (slow - fast) / (2 * s)).real
    return values


def fit_massive(steps: Numbers, ratios: Numbers) -> Fit:
    """The law fitted to one layer's massive ratios by least squares.

    Trust-region reflective, with the analytic Jacobian, from five starts: the paper's (on scaled steps and values: A =
    range, K = min + A/2, lambda = 1 / standard deviation of the steps, gamma = 1 / their range, t0 = 1), which alone
    often ends in a worse minimum, and the best four points of a grid of b and tau. gamma, t0 > 0 and lambda >= 0.

    Args:
        steps: training steps, from 0, in any order.
        ratios: massive ratio of the layer at each.

    Raises:
        BadOption: fewer than 6 different steps, not as many ratios as steps, numbers that are not finite, ratios that never
            change, or scipy is not installed.
    """
    data = data_of(steps, ratios, 5)
    starts = [_paper_start(data), *_grid_starts(data)]
    found = fits_from(starts, curve, curve_jacobian, _MASSIVE_LOW, _MASSIVE_HIGH, data)
    best = next((one for one in found if one.parameters[2] * one.parameters[3] < _LOG_MAX), None)
    if best is None:
        what = "they fall like an exponential, and A = A1 e^(lambda t0) has no finite value"
        raise BadOption("the law of massive activations", what, next_step="take fit_step_response(order=1)")
    return _fit(_law(best.parameters, data), best, data)


def fit_step_response(steps: Numbers, ratios: Numbers, order: int = 1) -> Fit:
    """A step response fitted to ratios by least squares, what the law is to be compared with by `aic`.

    Raises:
        BadOption: the order is neither 1 nor 2, too few steps for its 3 or 4 parameters, or as `fit_massive`.
    """
    if order not in (1, 2):
        raise BadOption(f"a step response of order {order}", "there are those of order 1 and 2", nearest=("1", "2"))
    data = data_of(steps, ratios, order + 2)
    grid = [_RATES] if order == 1 else [_RATES, _DAMPINGS]
    starts = linear_starts(lambda t, *at: np.stack([np.ones_like(t), step_response(t, *at)], 1), grid, data)
    best, *_ = fits_from(
        [(*terms, *at) for at, terms in starts], lambda t, level, gain, *at: level + gain * step_response(t, *at), None,
        (-np.inf, -np.inf, 1e-3, 0.0)[: order + 2], (np.inf, np.inf, 1e4, 100.0)[: order + 2], data,
    )  # fmt: skip
    level, gain, rate, *damping = best.parameters
    law = StepResponse(data.lowest + data.span * level, data.span * gain, rate / data.last, damping[0] if damping else None)
    return _fit(law, best, data)


def compare_growth(steps: Numbers, ratios: Numbers) -> tuple[Fit, ...]:
    """The law and both step responses fitted to the same ratios, best by Akaike's criterion first.

    Raises:
        BadOption: as `fit_massive`.
    """
    fits = (fit_massive(steps, ratios), *(fit_step_response(steps, ratios, order) for order in (1, 2)))
    return tuple(sorted(fits, key=lambda fit: fit.aic))


def _paper_start(data: Data) -> tuple[float, ...]:
    decay, rate = 1 / float(data.t.std()), 1 / float(np.ptp(data.t))
    return math.exp(-decay), math.log(rate), decay * rate, 1 / rate, 0.5


def _grid_starts(data: Data) -> list[tuple[float, ...]]:
    starts: list[tuple[float, ...]] = []
    for (b, tau), (a1, a2, level) in linear_starts(_massive_basis, _MASSIVE_GRID, data, n=_N_STARTS):
        if abs(a2) < _G_MAX * abs(a1):
            starts.append((a1, a2 / a1, b, tau, level))
        else:
            g = math.copysign(_G_MAX, a1 * a2)
            starts.append((a2 / g, g, b, tau, level))
    return starts


def _massive_basis(t: Points, b: float, tau: float) -> Float[np.ndarray, "point term"]:
    fall = np.exp(-b * t)
    return np.stack([fall * np.log(t + tau), fall, np.ones_like(t)], 1)


def _law(parameters: tuple[float, ...], data: Data) -> MassiveLaw:
    """The law in its own parameters and the values' units."""
    a1, g, b, tau, level = parameters
    rate = math.exp(g)
    return MassiveLaw(
        amplitude=a1 * math.exp(b * tau) * data.span, decay=b / rate, rate=rate / data.last, offset=tau * rate,
        level=data.lowest + data.span * level,
    )  # fmt: skip


def _fit(law: MassiveLaw | StepResponse, found: Found, data: Data) -> Fit:
    n = len(found.parameters)
    return Fit(law, len(data.y), n, found.rss, r_squared(found.rss, data), aic(found.rss, n, data), found.has_converged)
