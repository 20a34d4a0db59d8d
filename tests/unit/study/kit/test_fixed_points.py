"""Fixed points that were planted are found, and Jacobians have the eigenvalues that they must have."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.study.kit.fixed_points import find_fixed_points, jacobians, n_unstable, rates


def starts(n=12, d=3, seed=0):
    return 2 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_one_fixed_point_of_a_contraction_is_found():
    weight = torch.diag(torch.tensor([0.5, -0.3, 0.9], dtype=torch.float64))
    bias = torch.tensor([1.0, 2.0, 0.1], dtype=torch.float64)
    found = find_fixed_points(lambda h: h @ weight + bias, starts(), n_steps=50)
    torch.testing.assert_close(found.points, (bias / (1 - weight.diagonal()))[None], atol=1e-6, rtol=0)
    assert found.n_starts == (12,) and found.n_lost == 0


def test_two_attractors_and_the_saddle_between_are_found():
    found = find_fixed_points(lambda h: torch.tanh(2 * h), starts(20, 1), n_steps=200)
    assert sorted(round(float(point), 3) for point in found.points) == [-0.958, 0.0, 0.958]
    assert sum(found.n_starts) == 20


def test_starts_that_lead_to_no_fixed_point_are_counted():
    found = find_fixed_points(lambda h: h + 1, starts(), n_steps=20)
    assert len(found.points) == 0 and found.n_lost == 12


def test_a_rotation_that_grows_is_an_unstable_pair():
    turn = torch.tensor([[0.0, -1.2], [1.2, 0.0]], dtype=torch.float64)
    found = torch.linalg.eigvals(jacobians(lambda h: h @ turn.T, starts(4, 2)))
    assert n_unstable(found).tolist() == [2.0] * 4
    assert sorted(found[0].imag.tolist()) == pytest.approx([-1.2, 1.2])


def test_the_jacobian_of_a_relu_network_is_its_active_rows():
    weight, points = starts(3, 3, seed=1), starts(5)
    found = jacobians(lambda h: torch.relu(h @ weight.T), points)
    torch.testing.assert_close(found, (points @ weight.T > 0)[:, :, None] * weight)


def test_rates_are_above_0_where_eigenvalues_are_above_1_in_size():
    values = torch.complex(starts(6, 4), starts(6, 4, seed=1))
    assert torch.equal(rates(values).real > 0, values.abs() > 1)


def test_no_start_is_refused():
    with pytest.raises(BadOption, match="no start"):
        find_fixed_points(lambda h: h, torch.zeros(0, 3))
