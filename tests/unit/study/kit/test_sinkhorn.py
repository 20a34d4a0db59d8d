"""Sinkhorn divergence is zero for equal clouds, the best pairing's cost at small blur, and has the right gradient."""

import itertools

import pytest
import torch

from optrode.errors import BadOption
from optrode.study.kit.sinkhorn import sinkhorn_divergence


def cloud(n, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_cloud_does_not_diverge_from_itself():
    x = cloud(7)
    assert abs(float(sinkhorn_divergence(x, x[torch.randperm(7)]))) < 1e-12


def test_at_a_small_blur_it_is_the_cost_of_the_best_pairing():
    x, y = cloud(5), cloud(5, seed=1) + 1
    best = min(
        sum(float((x[i] - y[j]).square().sum()) / 2 for i, j in enumerate(order)) / 5
        for order in itertools.permutations(range(5))
    )
    assert float(sinkhorn_divergence(x, y, blur=0.02, scaling=0.95)) == pytest.approx(best, rel=0.02)


def test_two_points_diverge_by_half_their_squared_distance_at_any_blur():
    x, y = torch.zeros(1, 3, dtype=torch.float64), torch.full((1, 3), 2.0, dtype=torch.float64)
    assert float(sinkhorn_divergence(x, y, blur=1.5)) == pytest.approx(6.0)


def test_it_is_symmetric_and_takes_clouds_of_different_sizes():
    x, y = cloud(4), cloud(9, seed=1)
    there, back = (float(sinkhorn_divergence(*pair, blur=0.5, scaling=0.9)) for pair in ((x, y), (y, x)))
    assert there == pytest.approx(back, rel=1e-9) and there > 0


def test_its_gradient_is_that_of_finite_differences():
    x, y = cloud(6).requires_grad_(), cloud(8, seed=1)
    options = {"blur": 1.0, "scaling": 0.98}
    (slope,) = torch.autograd.grad(sinkhorn_divergence(x, y, **options), x)
    for row, column in ((0, 0), (4, 1)):
        step = torch.zeros_like(x).index_put((torch.tensor(row), torch.tensor(column)), torch.tensor(1e-4).double())
        high, low = (float(sinkhorn_divergence((x + sign * step).detach(), y, **options)) for sign in (1, -1))
        assert float(slope[row, column]) == pytest.approx((high - low) / 2e-4, rel=0.03, abs=1e-4)


@pytest.mark.parametrize("options", [{"blur": 0.0}, {"scaling": 1.0}, {"blur": float("nan")}])
def test_a_blur_or_scaling_that_means_nothing_is_refused(options):
    with pytest.raises(BadOption, match="Sinkhorn divergence"):
        sinkhorn_divergence(cloud(2), cloud(2), **options)
