"""What the study makes of curves: when a network is a mixture, when it switches, and what it forgets."""

import math

import numpy as np
import pytest

from optrode.study.kit.posterior import Cell, Pair
from optrode.study.papers.rational_icl import correlation, mirrored, rises_above, settled, worsened
from optrode.train.records import Series

PAIR = Pair(1000.0, 400.0, 0.1, 0.2)


def test_a_network_is_settled_from_the_first_checkpoint_that_is_near_a_mixture():
    assert settled([1.0, 0.5, 0.149, 0.3]) == 2
    assert settled([1.0, 0.9, 0.8]) == 2


def test_a_switch_is_the_last_rise_between_two_measurements():
    series = Series((0, 10, 20, 40, 80), (0.0, 0.6, 0.4, 0.6, 0.9))
    assert rises_above(series, 0.5) == pytest.approx(math.sqrt(20 * 40))


@pytest.mark.parametrize("values", [(0.6, 0.7, 0.8), (0.1, 0.6, 0.4)])
def test_no_switch_where_a_curve_starts_above_or_ends_below(values):
    assert math.isnan(rises_above(Series((0, 10, 20), values), 0.5))


def test_what_is_forgotten_is_the_end_above_the_least():
    assert worsened(Series((0, 1, 2, 3, 4), (0.5, 0.1, 0.2, 0.4, 0.3))) == pytest.approx(0.2)
    assert worsened(Series((0, 1, 2), (0.5, 0.3, 0.2)), 1) == 0


def test_mirrored_predictions_are_those_of_the_set_at_the_other_end_at_the_nearest_step():
    cells = [Cell(n, PAIR, step, ()) for n in (4, 16, 64) for step in (10.0, 100.0)]
    found = mirrored(cells, np.arange(6.0))
    assert found.tolist() == [4, 5, 2, 3, 0, 1]


def test_nothing_correlates_with_a_constant():
    line = np.arange(4.0)
    assert correlation(line, 2 * line + 1) == pytest.approx(1)
    assert math.isnan(correlation(line, np.ones(4)))
