"""Sequences of hidden Markov models obey the laws that follow exactly from their tables."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.study.kit.hmm import (
    LINEAR_2,
    Hmm,
    count_transitions,
    emission_transitions,
    sample,
    sample_memoryless,
    stationary,
)

UNEVEN = Hmm(((0.9, 0.1), (0.3, 0.7)), ((0.8, 0.2), (0.1, 0.9)))


def generator():
    return torch.Generator().manual_seed(0)


def test_the_stationary_distribution_is_left_as_it_is():
    assert stationary(UNEVEN).tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("hmm", [LINEAR_2, UNEVEN])
def test_symbols_follow_each_other_as_they_must(hmm):
    symbols = sample(hmm, 400, 300, generator())
    torch.testing.assert_close(count_transitions(symbols, hmm.n_symbols), emission_transitions(hmm), atol=0.03, rtol=0)
    assert symbols.shape == (400, 300)


def test_sequences_start_as_they_go_on():
    symbols = sample(UNEVEN, 4000, 30, generator())
    first, last = ((symbols[:, at] == 0).double().mean() for at in (0, -1))
    assert [float(first), float(last)] == pytest.approx([0.75 * 0.8 + 0.25 * 0.1] * 2, abs=0.03)


def test_a_memoryless_source_has_the_frequencies_and_nothing_else():
    symbols = sample_memoryless(UNEVEN, 400, 300, generator())
    expected = torch.tensor([[0.625, 0.375]] * 2, dtype=torch.float64)
    torch.testing.assert_close(count_transitions(symbols, 2), expected, atol=0.01, rtol=0)


def test_transitions_are_counted():
    counted = count_transitions(torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]), 3)
    assert counted[:2].flatten().tolist() == pytest.approx([2 / 3, 1 / 3, 0, 2 / 3, 1 / 3, 0])
    assert bool(counted[2].isnan().all())


def test_the_same_seed_gives_the_same_symbols():
    assert torch.equal(sample(LINEAR_2, 5, 20, generator()), sample(LINEAR_2, 5, 20, generator()))


@pytest.mark.parametrize(
    "tables",
    [
        (((0.5, 0.6), (0.5, 0.5)), ((1.0,), (1.0,))),
        (((1.0,),), ((1.0,), (1.0,))),
        (((1.0, 0.0), (0.0, 1.0)), ((1.0,), (0.5, 0.5))),
    ],
)
def test_tables_that_are_no_model_are_refused(tables):
    with pytest.raises(BadOption, match="hidden Markov model"):
        Hmm(*tables)
