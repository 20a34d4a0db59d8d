"""When curves pass bounds, and how long they stay within them."""

import math

import pytest

from optrode.study.kit.curves import falls_below, line, stays_within
from optrode.train.records import Series


def test_a_crossing_lies_between_measurements_as_the_logarithm_goes():
    halving = Series((0, 10, 20), (4.0, 2.0, 1.0))
    assert falls_below(halving, 2**0.5) == pytest.approx(15)
    assert falls_below(halving, 2.0) == pytest.approx(10)
    assert falls_below(halving, 5.0) == 0
    assert math.isnan(falls_below(halving, 1.0))


def test_a_curve_that_falls_to_nothing_passes_where_it_was_measured():
    assert falls_below(Series((0, 10), (1.0, 0.0)), 0.5) == 10


def test_the_longest_stretch_within_bounds_counts():
    series = Series((0, 5, 10, 15, 20, 25), (0.7, 0.7, 2.0, 0.7, 0.7, 0.7))
    assert stays_within(series, 0.6, 0.8) == 10
    assert stays_within(series, 1.9, 2.1) == 0


def test_a_line_counts_in_units_of_a_step():
    found = line("free", Series((0, 3), (2.0, 1.0)), 32, dashed=True)
    assert (found.x, found.y, found.dashed) == ((0.0, 96.0), (2.0, 1.0), True)
