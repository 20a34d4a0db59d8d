import math

import pytest

from optrode.claims import Bounds, Claim, Measured, find

NAN = math.nan


def claim(low=0.5, high=None, control_high=0.1, in_part=None):
    return Claim("S1", "Fig. 1", "it rises", "rise", Bounds(low, high), "x", Bounds(None, control_high), "pilot", in_part)


def verdict(values, controls, **bounds):
    return find(claim(**bounds), [Measured(float(v), float(c)) for v, c in zip(values, controls, strict=True)]).verdict


def test_medians_within_both_bounds_hold():
    assert verdict([0.6, 0.4, 0.7], [0.0, 0.9, 0.05]) == "holds"


def test_a_control_that_shows_the_effect_too_makes_it_hold_in_part():
    assert verdict([0.6, 0.6, 0.7], [0.6, 0.6, 0.0]) == "holds in part"
    assert verdict([0.6, 0.6, 0.7], [NAN, NAN, NAN]) == "holds in part"


def test_the_wider_bounds_hold_in_part_and_only_with_the_control():
    assert verdict([0.3, 0.4, 0.45], [0, 0, 0], in_part=Bounds(0.35)) == "holds in part"
    assert verdict([0.3, 0.4, 0.45], [1, 1, 1], in_part=Bounds(0.35)) == "not at this size"
    assert verdict([0.3, 0.4, 0.45], [0, 0, 0]) == "not at this size"


def test_fewer_than_three_values_are_not_measured():
    assert verdict([0.6, NAN, 0.7], [0, 0, 0]) == "not measured"
    assert verdict([], []) == "not measured"
    assert verdict([0.6, NAN, 0.7, 0.8], [0, 0, 0, 0]) == "holds"


def test_a_finding_gives_median_and_range_and_keeps_what_was_not_measured():
    found = find(claim(), [Measured(0.6, 0.0), Measured(NAN, 0.2), Measured(0.9, math.inf), Measured(0.7, 0.1)])
    assert found.values == (0.6, None, 0.9, 0.7) and (found.median, found.low, found.high) == (0.7, 0.6, 0.9)
    assert found.controls == (0.0, 0.2, None, 0.1) and found.control_median == 0.1


@pytest.mark.parametrize(
    ("bounds", "words"),
    [(Bounds(1.0, 2.0), "1 to 2"), (Bounds(1.0), "at least 1"), (Bounds(None, 2.0), "at most 2"), (Bounds(), "any")],
)
def test_bounds_print_and_include_their_ends(bounds, words):
    assert str(bounds) == words
    assert all(bounds.holds(end) for end in (bounds.low, bounds.high) if end is not None)
    assert not bounds.holds(NAN) and not bounds.holds(math.inf)
