"""Areas against the quadrature that MIB's protocol implies; sizes; what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optrode.circuit.circuit import Interval
from optrode.circuit.edge.curve import FINE, SHARES, areas, at_shares, curve, sizes_of, trapezoid
from optrode.circuit.edge.records import SharePoint
from optrode.errors import BadOption

N = len(SHARES)


def make_points(shares, faithfulness):
    sizes = sizes_of(1000, shares)
    return [SharePoint(*of, Interval(0.0, 1.0)) for of in zip(shares, sizes, faithfulness, strict=True)]


@pytest.mark.parametrize(
    ("faithfulness", "cpr", "cmd"),
    [
        ([0.0] * (N - 1) + [1.0], 0.25, 0.749),
        ([1.0] * N, 0.999, 0.0),
        ([2.0] * (N - 1) + [1.0], 1.748, 0.749),
        ([0.0] * N, 0.0, 0.999),
        ([-1.0] * N, -0.999, 1.998),
    ],
)
def test_areas_at_the_shares_of_mib(faithfulness, cpr, cmd):
    assert areas(SHARES, faithfulness) == pytest.approx((cpr, cmd), abs=1e-12)


def test_areas_on_three_points_by_hand():
    found = areas((0.1, 0.3, 1.0), (0.5, 1.5, 1.0))
    assert found.cpr == pytest.approx(0.2 * 1.0 + 0.7 * 1.25)
    assert found.cmd == pytest.approx(0.2 * 0.5 + 0.7 * 0.25)


@given(st.lists(st.floats(-3, 3), min_size=N, max_size=N))
def test_areas_are_numpy_quadrature_and_bound_each_other(faithfulness):
    found = areas(SHARES, faithfulness)
    assert found.cpr == pytest.approx(np.trapezoid(faithfulness, SHARES), abs=1e-12)
    assert found.cmd == pytest.approx(np.trapezoid(abs(1 - np.array(faithfulness)), SHARES), abs=1e-12)
    assert found.cpr + found.cmd >= 0.999 - 1e-12


def test_a_trapezoid_is_exact_on_a_line():
    at = np.array([0.0, 0.3, 0.4, 2.0])
    assert trapezoid(3 * at + 1, at) == pytest.approx(8.0)


def test_finer_shares_hold_those_of_mib():
    assert set(SHARES) < set(FINE) and list(FINE) == sorted(FINE) and (FINE[0], FINE[-1]) == (0.001, 1.0)


def test_a_fine_curve_gives_the_one_of_mib():
    faithfulness = [1 - (1 - share) ** 8 for share in FINE]
    fine = curve("signed", make_points(FINE, faithfulness))
    coarse = at_shares(fine)
    assert [point.share for point in coarse.points] == list(SHARES) and coarse.selection == "signed"
    assert (coarse.cpr, coarse.cmd) == areas(SHARES, [1 - (1 - share) ** 8 for share in SHARES])
    assert fine.cmd < coarse.cmd  # a concave curve lies above its chords
    with pytest.raises(BadOption, match=r"share 0.004: the curve was not measured there. Nearest: 0.00[35], 0.00[35]"):
        at_shares(fine, (0.001, 0.004))


def test_sizes_are_rounded_down_and_at_least_one_edge():
    assert sizes_of(32491) == (32, 64, 162, 324, 649, 1624, 3249, 6498, 16245, 32491)
    assert sizes_of(23) == (1, 1, 1, 1, 1, 1, 2, 4, 11, 23)
    assert sizes_of(100, (0.29, 0.57)) == (29, 57)  # in floating point 100 * .29 and 100 * .57 fall short


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_shares_out_of_range(share):
    with pytest.raises(BadOption, match="a share of the edges is above 0 and at most 1"):
        sizes_of(100, (share,))


@pytest.mark.parametrize(
    ("shares", "faithfulness", "message"),
    [
        ((0.1, 1.0), (1.0,), "2 shares and 1 values"),
        ((1.0,), (1.0,), "1 shares and 1 values"),
        ((0.5, 0.1), (1.0, 1.0), "a share of 0.1 follows 0.5"),
        ((0.0, 0.1), (1.0, 1.0), "a share of 0.0 follows 0.0"),
        ((0.5, 1.1), (1.0, 1.0), "a share of 1.1 follows 0.5"),
        ((0.5, 1.0), (1.0, float("nan")), "faithfulness at a share of 1.0 is not finite"),
    ],
)
def test_points_that_are_no_curve(shares, faithfulness, message):
    with pytest.raises(BadOption, match=message):
        areas(shares, faithfulness)
