"""Fits of curves: planted laws are told from what a simpler law makes, and a peak found by looking is where it is."""

import numpy as np
import pytest

from optrode.study.kit.curve_fits import fitted, made_by, numerical_peak
from optrode.train.growth import MassiveLaw

STEPS = np.arange(0, 1601, 80).astype(float)
LAW = MassiveLaw(amplitude=5.0, decay=0.3, rate=0.01, offset=1.0, level=4.0)


def noisy(values, size=0.02, seed=0):
    return values + size * np.random.default_rng(seed).normal(size=len(values))


@pytest.fixture(scope="module")
def planted():
    return fitted("planted", STEPS, noisy(LAW.at(STEPS)))


def test_a_planted_law_is_found_and_beats_the_simpler_ones(planted):
    assert planted.law.r2 > 0.99 and planted.over_plain > 10 and planted.over_responses > 2
    assert planted.peak == planted.turn == pytest.approx(LAW.peak_step(), rel=0.1)
    assert abs(planted.turn_seen() - LAW.peak_step()) <= 2 * 80


def test_upside_down_a_law_has_a_trough_and_no_peak():
    turned = fitted("upside down", STEPS, noisy(20 - LAW.at(STEPS)))
    assert turned.peak is None and turned.turn == pytest.approx(LAW.peak_step(), rel=0.1)
    assert abs(turned.turn_seen() - LAW.peak_step()) <= 2 * 80


def test_a_line_and_a_plain_logarithm_need_no_decay():
    for values in (3 + 0.01 * STEPS, 2 + 3 * np.log(STEPS + 90)):
        seen = fitted("plain", STEPS, noisy(values, 0.1))
        assert seen.over_plain < 0
        assert seen.plain_at == pytest.approx(values, abs=0.3)


def test_criteria_are_those_of_akaike(planted):
    terms = np.stack([STEPS, np.ones_like(STEPS)], 1)
    line = fitted("line", STEPS, noisy(3 + 0.01 * STEPS, 0.1))
    rss = np.square(terms @ np.linalg.lstsq(terms, line.ratios, rcond=None)[0] - line.ratios).sum()
    assert line.plain == pytest.approx(len(STEPS) * np.log(rss / len(STEPS)) + 4)
    assert planted.over_responses == planted.response.aic - planted.law.aic


def test_a_curve_that_a_fit_would_have_made_has_its_values_and_the_same_residuals():
    values, ratios = np.arange(8.0), np.arange(8.0) + np.array([1.0, -1, 2, -2, 3, -3, 4, -4])
    made = made_by(values, ratios, np.random.default_rng(1))
    assert sorted(made - values) == pytest.approx(sorted(ratios - values)) and not np.allclose(made, ratios)


@pytest.mark.parametrize("amplitude", [5.0, -5.0])
@pytest.mark.parametrize("decay", [3.0, 0.3, 0.02])
def test_the_peak_is_where_the_formula_says(amplitude, decay):
    law = MassiveLaw(amplitude, decay, rate=0.01, offset=0.7, level=1.0)
    assert numerical_peak(law, 1600.0) == pytest.approx(law.peak_step(), rel=1e-5)


def test_a_law_that_only_falls_has_no_peak():
    assert numerical_peak(MassiveLaw(1.0, 1.0, 0.01, 5.0, 0.0), 1600.0) is None
