"""The law of massive activations: its peak, its derivatives, and whether fits find what made the data."""

import math
import sys

import numpy as np
import pytest

from optrode.errors import BadOption
from optrode.train.growth import (
    MassiveLaw,
    StepResponse,
    compare_growth,
    curve,
    curve_jacobian,
    fit_massive,
    fit_step_response,
    massive_law,
    peak_step,
    step_response,
)

STEPS = np.unique(np.concatenate([[0.0], 2.0 ** np.arange(10), np.arange(1000.0, 143_001.0, 8000.0)]))
LAWS = [
    MassiveLaw(400.0, 0.145, 8.34e-4, 0.076, 5.0),
    MassiveLaw(900.0, 0.369, 2.53e-4, 0.214, 40.0),
    MassiveLaw(-250.0, 0.327, 1.04e-3, 0.291, 300.0),
]


def noisy(law, size, seed=0):
    values = law.at(STEPS)
    return values + size * np.ptp(values) * np.random.default_rng(seed).normal(size=len(values))


def test_the_law_by_hand():
    found = massive_law(np.array([0.0, 1.0]), 2.0, 0.5, 3.0, 1.0, 7.0)
    assert found.tolist() == pytest.approx([7.0, 7.0 + 2 * math.exp(-2) * math.log(4)])
    assert MassiveLaw(2.0, 0.5, 3.0, 1.0, 7.0).at([0, 1]).tolist() == found.tolist()


@pytest.mark.parametrize("decay", [1e-3, 0.05, 0.7, 3.0])
@pytest.mark.parametrize("offset", [0.01, 0.9])
def test_the_peak_is_the_maximum_and_the_trough_of_a_negative_law(decay, offset):
    peak = peak_step(decay, 2e-3, offset)
    around = peak * np.linspace(0.5, 1.5, 10_001)
    values = massive_law(around, 10.0, decay, 2e-3, offset, 1.0)
    assert around[values.argmax()] == pytest.approx(peak, rel=2e-4)
    assert around[massive_law(around, -10.0, decay, 2e-3, offset, 1.0).argmin()] == pytest.approx(peak, rel=2e-4)
    x = 2e-3 * peak + offset
    assert x * math.log(x) == pytest.approx(1 / decay)


def test_a_peak_before_the_first_step_is_not_observable():
    decay = 0.5
    x = math.exp(0.8526055020137254)  # W(2)
    assert peak_step(decay, 1e-3, x - 1e-6) == pytest.approx(1e-3, rel=1e-3)
    assert peak_step(decay, 1e-3, x + 1e-6) is None
    assert 1 / (decay * 0.8526055020137254) == pytest.approx(x)
    falls = massive_law(np.linspace(0, 1e4, 101), 1.0, decay, 1e-3, x + 1e-6, 0.0)
    assert (np.diff(falls) < 0).all()
    assert peak_step(0.0, 1e-3, 1.0) is None and peak_step(5e-324, 1e-3, 1.0) is None


def test_the_jacobian_is_that_of_differences():
    at = np.array([1.3, -0.4, 2.0, 0.05, 0.3])
    t = np.linspace(0, 1, 7)
    found = curve_jacobian(t, *at.tolist())
    for ix in range(5):
        step = np.zeros(5)
        step[ix] = 1e-6
        slope = (curve(t, *(at + step).tolist()) - curve(t, *(at - step).tolist())) / 2e-6
        assert found[:, ix] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_the_form_that_is_fitted_is_the_law():
    law, t = LAWS[0], np.array([0.0, 10.0, 5000.0])
    a1 = law.amplitude * math.exp(-law.decay * law.offset)
    found = curve(t, a1, math.log(law.rate), law.decay * law.rate, law.offset / law.rate, law.level)
    assert found == pytest.approx(law.at(t))


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_recovered_from_its_values(law):
    fit = fit_massive(STEPS, law.at(STEPS))
    for name in ("amplitude", "decay", "rate", "offset", "level"):
        assert getattr(fit.law, name) == pytest.approx(getattr(law, name), rel=1e-5), name
    assert fit.law.peak_step() == pytest.approx(law.peak_step(), rel=1e-6)
    assert fit.r2 == pytest.approx(1.0) and fit.has_converged and (fit.n_points, fit.n_parameters) == (len(STEPS), 5)


@pytest.mark.parametrize("law", LAWS)
def test_under_noise_the_curve_and_its_peak_are_recovered_and_the_law_is_preferred(law):
    fits = compare_growth(STEPS, noisy(law, 0.02))
    best = fits[0]
    assert isinstance(best.law, MassiveLaw) and [fit.aic for fit in fits] == sorted(fit.aic for fit in fits)
    assert np.abs(best.law.at(STEPS) - law.at(STEPS)).max() < 0.06 * np.ptp(law.at(STEPS))
    assert best.law.peak_step() == pytest.approx(law.peak_step(), rel=0.25)
    assert best.r2 > 0.98


def test_fit_quality_is_by_its_definitions():
    values = noisy(LAWS[0], 0.05)
    fit = fit_massive(STEPS, values)
    rss = float(np.square(fit.law.at(STEPS) - values).sum())
    assert fit.rss == pytest.approx(rss, rel=1e-6)
    assert fit.r2 == pytest.approx(1 - rss / float(np.square(values - values.mean()).sum()))
    assert fit.aic == pytest.approx(len(STEPS) * math.log(rss / len(STEPS)) + 10)


def test_a_fit_does_not_see_order_or_the_type_of_numbers():
    steps = [int(step) for step in STEPS]
    values = noisy(LAWS[1], 0.02).tolist()
    assert fit_massive(steps, values) == fit_massive(STEPS, np.array(values))
    back = fit_massive(steps[::-1], values[::-1])
    assert back.law.peak_step() == pytest.approx(fit_massive(steps, values).law.peak_step(), rel=1e-3)


@pytest.mark.parametrize("damping", [None, 0.0, 0.2, 0.999999, 1.0, 1.000001, 3.0])
def test_a_step_response_solves_its_equation(damping):
    rate, h = 0.7, 1e-3
    t = np.linspace(0.1, 12, 60)
    before, at, after = (step_response(t + d, rate, damping) for d in (-h, 0.0, h))
    slope, bend = (after - before) / (2 * h), (after - 2 * at + before) / h**2
    if damping is None:
        assert slope == pytest.approx(rate * (1 - at), abs=1e-5)
    else:
        assert bend == pytest.approx(rate**2 * (1 - at) - 2 * damping * rate * slope, abs=1e-4)
    assert step_response(np.zeros(1), rate, damping)[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("truth", [StepResponse(3.0, 20.0, 1e-4, None), StepResponse(3.0, -20.0, 2e-4, 0.4)])
def test_a_step_response_is_recovered_and_preferred_where_it_made_the_data(truth):
    values = truth.at(STEPS)
    order = 1 if truth.damping is None else 2
    fit = fit_step_response(STEPS, values, order)
    assert fit.law.rate == pytest.approx(truth.rate, rel=1e-4) and fit.law.gain == pytest.approx(truth.gain, rel=1e-4)
    assert fit.law.damping == (None if order == 1 else pytest.approx(0.4, rel=1e-4))
    assert fit.n_parameters == order + 2
    rough = values + np.random.default_rng(1).normal(size=len(values))
    assert compare_growth(STEPS, rough)[0].law.__class__ is StepResponse


def refused(call):
    with pytest.raises(BadOption) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: fit_massive([0, 1, 2, 3, 4], [1, 2, 3, 4, 6]), "a fit of 5 parameters: there are 5 different steps"),
        (lambda: fit_massive([0, 1, 2], [1, 2]), "a fit of 2 values: there are 3 steps"),
        (lambda: fit_massive(range(8), [1.0] * 8), "the values never change"),
        (lambda: fit_massive(range(8), [1.0] * 7 + [math.nan]), "a step or value is not finite"),
        (lambda: fit_massive(range(-1, 7), list(range(8))), "there is a step -1"),
        (lambda: fit_step_response(range(8), list(range(8)), order=3), "a step response of order 3"),
        (lambda: fit_step_response([0, 1, 2], [1, 2, 4]), "a fit of 3 parameters: there are 3 different steps"),
        (lambda: peak_step(0.1, 0.0, 1.0), "peak at rate=0"),
        (lambda: massive_law(np.array([0.0]), 1.0, 1.0, 1.0, 0.0, 0.0), "x = gamma t + t0 is 0 at a step"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused(call, text):
    assert text in refused(call)


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    text = refused(lambda: fit_massive(STEPS, LAWS[0].at(STEPS)))
    assert "the package scipy is not installed" in text and "optrode[studies]" in text
