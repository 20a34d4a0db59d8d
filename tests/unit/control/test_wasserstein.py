"""The distance of samples, against its definition and against known numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.control.wasserstein import coupling, wasserstein
from optrode.errors import BadOption

SIZES = st.integers(1, 7)


def drawn(n, seed, width=3):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_repeating(x, y):
    """Each sample as often as the other side has samples: equal numbers, which sort into pairs."""
    left = np.sort(np.repeat(x.numpy(), len(y), axis=0), axis=0)
    right = np.sort(np.repeat(y.numpy(), len(x), axis=0), axis=0)
    return torch.from_numpy(((left - right) ** 2).mean(0))


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.integers(0, 99))
def test_samples_of_any_two_sizes_are_compared_exactly(n, m, seed):
    x, y = drawn(n, seed), drawn(m, seed + 100)
    torch.testing.assert_close(wasserstein(x, y), by_repeating(x, y))
    torch.testing.assert_close(wasserstein(y, x), wasserstein(x, y))


@settings(max_examples=20, deadline=None)
@given(SIZES, SIZES)
def test_a_coupling_gives_each_sample_its_share(n, m):
    how = coupling(n, m, torch.zeros(()).double())
    assert len(how.weight) <= n + m - 1
    torch.testing.assert_close(torch.bincount(how.left, how.weight), torch.full((n,), 1 / n).double())
    torch.testing.assert_close(torch.bincount(how.right, how.weight), torch.full((m,), 1 / m).double())


def test_known_distances():
    x = drawn(50, 0)
    torch.testing.assert_close(wasserstein(x, x[torch.randperm(50)]), torch.zeros(3).double())
    torch.testing.assert_close(wasserstein(x, x + 2), torch.full((3,), 4.0).double())
    a, b = drawn(20000, 1), 3 * drawn(20000, 2) + 1
    torch.testing.assert_close(wasserstein(a, b), torch.full((3,), 5.0).double(), rtol=0.05, atol=0)


def test_gradients_are_those_of_finite_differences():
    x, y = drawn(5, 3).requires_grad_(), drawn(7, 4).requires_grad_()
    assert torch.autograd.gradcheck(wasserstein, (x, y))


def test_features_may_have_any_number_of_axes():
    x, y = drawn(4, 5, 6), drawn(6, 6, 6)
    torch.testing.assert_close(wasserstein(x.reshape(4, 2, 3), y.reshape(6, 2, 3)).flatten(), wasserstein(x, y))


def test_no_sample_on_a_side_is_refused():
    with pytest.raises(BadOption, match="0 and 2 samples"):
        wasserstein(torch.zeros(0, 3), torch.zeros(2, 3))
