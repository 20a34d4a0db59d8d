"""How directions are found between two sets of states: laws, and values known by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.control.probing import METHODS, along, chance_level, fit, logistic, oas_shrinkage, separation
from optrode.errors import BadOption, BadPairs


def sets(n=40, n_dims=6, gap=1.0, random_seed=0):
    """Normal states of two sides, `gap` apart along the first axis, with unequal variances."""
    generator = torch.Generator().manual_seed(random_seed)
    scale = torch.linspace(0.5, 2, n_dims).double()
    made = [torch.randn(n, n_dims, generator=generator, dtype=torch.float64) * scale for _ in range(2)]
    made[0][:, 0] += gap
    return made


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 50), shift=st.floats(-3, 3), size=st.floats(0.1, 30))
@settings(max_examples=8, deadline=None)
def test_directions_do_not_depend_on_where_the_origin_is_nor_on_the_unit(method, seed, shift, size):
    positive, negative = sets(random_seed=seed, gap=2.0)
    plain = fit(method, positive, negative)
    moved = fit(method, size * (positive + shift), size * (negative + shift))
    torch.testing.assert_close(moved.vector, plain.vector, rtol=1e-4, atol=1e-5)
    assert math.isclose(moved.slope * size, plain.slope, rel_tol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_exchanged_sides_give_the_opposite_direction(method):
    positive, negative = sets(gap=2.0)
    one, other = fit(method, positive, negative), fit(method, negative, positive)
    torch.testing.assert_close(one.vector, -other.vector, rtol=1e-5, atol=1e-6)
    assert math.isclose(one.midpoint, -other.midpoint, rel_tol=1e-4, abs_tol=1e-6)
    assert math.isclose(float(one.vector.norm()), 1.0, rel_tol=1e-9) and one.slope > 0


def test_mass_mean_is_the_inverse_covariance_times_the_difference():
    positive, negative = (side.numpy() for side in sets(n=2000))
    within = np.concatenate([positive - positive.mean(0), negative - negative.mean(0)])
    covariance = within.T @ within / len(within)
    share = oas_shrinkage(torch.from_numpy(covariance), len(within))
    shrunk = (1 - share) * covariance + share * np.trace(covariance) / 6 * np.eye(6)
    raw = np.linalg.solve(shrunk, positive.mean(0) - negative.mean(0))
    found = fit("mass-mean", torch.from_numpy(positive), torch.from_numpy(negative)).vector.numpy()
    np.testing.assert_allclose(found, raw / np.linalg.norm(raw), rtol=1e-9)
    assert share < 0.01


def test_mass_mean_sees_through_a_nuisance_that_the_difference_follows():
    positive, negative = sets(n=400, gap=0.8)
    nuisance = torch.linspace(-4, 4, 400).double()
    for side in (positive, negative):
        side[:, 1] = nuisance + 0.1 * side[:, 1]
        side[:, 0] += nuisance  # the second axis tells how to correct the first
    found = {name: fit(name, positive, negative).vector for name in ("difference", "mass-mean")}
    scores = {name: separation(positive @ v, negative @ v) for name, v in found.items()}
    assert scores["mass-mean"] > scores["difference"] + 0.2


def test_shrinkage_is_whole_for_few_states_and_none_for_many():
    def share(n, n_dims=20):
        states = torch.randn(n, n_dims, dtype=torch.float64) * torch.linspace(0.2, 3, n_dims).double()
        return oas_shrinkage(states.T @ states / n, n)

    assert share(3) > 0.3 > 0.02 > share(5000)
    assert oas_shrinkage(torch.eye(4, dtype=torch.float64), 10) == 1.0


def test_the_logistic_probe_is_where_its_gradient_vanishes():
    positive, negative = sets(n=30, gap=1.5)
    axis = logistic(positive, negative, l2=0.1)
    states = torch.cat([positive, negative]).numpy()
    labels = np.repeat([1.0, 0.0], 30)
    centre = states.mean(0)
    scale = np.sqrt(np.mean((states - centre) ** 2))
    inputs, weight = (states - centre) / scale, axis.slope * scale * axis.vector.numpy()
    odds = axis.slope * (states @ axis.vector.numpy() - axis.midpoint)
    missed = labels - 1 / (1 + np.exp(-odds))
    np.testing.assert_allclose(inputs.T @ missed / 60, 0.1 * weight, atol=1e-6)
    assert abs(missed.mean()) < 1e-6


def test_the_law_along_a_direction_is_that_of_normal_projections():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 40_000, 1, generator=generator, dtype=torch.float64) * 2
    axis = along(torch.ones(1).double(), states[0] + 5, states[1] + 1)
    assert math.isclose(axis.slope, 4 / 4, rel_tol=0.03) and math.isclose(axis.midpoint, 3, rel_tol=0.02)


def test_separation_counts_pairs():
    assert separation(torch.tensor([3.0, 2.0]).double(), torch.tensor([1.0, 2.0]).double()) == 3.5 / 4
    assert separation(torch.tensor([1.0]).double(), torch.tensor([2.0]).double()) == 0


def test_chance_is_exceeded_in_one_of_twenty_cases():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2000, 22, generator=generator, dtype=torch.float64)
    share = sum(separation(row[:10], row[10:]) > chance_level(10, 12) for row in scores) / len(scores)
    assert 0.035 < share < 0.065
    assert chance_level(1, 1) == 1.0 and chance_level(3, 3) < 1.0


def test_what_cannot_be_fitted_is_refused():
    positive, negative = sets()
    for method in METHODS:
        with pytest.raises(BadPairs, match="the same mean"):
            fit(method, positive, positive)
    with pytest.raises(BadOption, match="paired-pca"):
        fit("pairedpca", positive, negative)
    with pytest.raises(BadPairs, match="pairs"):
        fit("paired-pca", positive, negative[:-1])
    with pytest.raises(BadOption, match="l2"):
        logistic(positive, negative, l2=math.inf)
