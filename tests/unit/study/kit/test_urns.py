"""Urns follow their law, both predictors are Bayes' rule written out, and complexity grows with the table alone."""

import math

import pytest
import torch

from optrode.study.kit import urns as task


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_urns_are_from_dirichlet_one():
    urns = task.draw_urns(20_000, 4, generator())
    assert torch.allclose(urns.sum(1), torch.ones(20_000))
    assert torch.allclose(urns.mean(0), torch.full((4,), 0.25), atol=0.005)
    assert float(urns[:, 0].var()) == pytest.approx(3 / 80, rel=0.05)  # a (a0 - a) / (a0^2 (a0 + 1)), a = 1, a0 = 4


def test_rows_are_draws_from_their_urn():
    urns = torch.tensor([[0.9, 0.1, 1e-9], [1e-9, 0.2, 0.8]])
    rows = task.draw_rows(urns, 400, 30, generator())
    shares = torch.nn.functional.one_hot(rows.draws, 3).float().mean(1)
    for urn in urns:
        here = (rows.truth == urn).all(1)
        assert 100 < int(here.sum()) < 300
        assert torch.allclose(shares[here].mean(0), urn, atol=0.02)


def test_a_start_token_is_read_before_the_draws():
    rows = task.draw_rows(task.draw_urns(2, 3, generator()), 2, 4, generator())
    assert rows.read[:, 0].tolist() == [3, 3]
    assert torch.equal(rows.read[:, 1:], rows.draws)


def test_memorising_is_bayes_rule_over_the_set():
    urns = task.draw_urns(3, 4, generator())
    draws = torch.tensor([[2, 0, 0]])
    found = task.memorising(draws, urns)
    for pos in range(4):
        seen = draws[0, :pos].tolist()
        likelihood = torch.tensor([math.prod(float(urn[symbol]) for symbol in seen) for urn in urns])
        expected = (likelihood / likelihood.sum()) @ urns
        assert torch.allclose(found[0, pos], expected, atol=1e-6)


def test_generalising_is_laplace_rule():
    found = task.generalising(torch.tensor([[2, 0, 2]]), 4)
    expected = torch.tensor([[1, 1, 1, 1], [1, 1, 2, 1], [2, 1, 2, 1], [2, 1, 3, 1]]) / torch.tensor([[4], [5], [6], [7]])
    assert torch.allclose(found[0], expected)


def test_each_predictor_is_best_where_its_knowledge_is_right():
    urns = task.draw_urns(4, 5, generator())
    memory, law = task.mean_divergences(urns, 500, 20, generator(1))
    assert memory < law
    fresh = task.draw_rows(task.draw_urns(500, 5, generator(2)), 500, 20, generator(3))
    truth = fresh.truth[:, None].expand(-1, 21, -1)
    memory, law = task.memorising(fresh.draws, urns), task.generalising(fresh.draws, 5)
    assert task.divergence(truth, memory) > task.divergence(truth, law)


def test_looking_at_every_few_positions_leaves_the_mean_nearly_alone():
    urns = task.draw_urns(16, 5, generator())
    whole = task.mean_divergences(urns, 500, 32, generator(1))
    part = task.mean_divergences(urns, 500, 32, generator(1), every=2)
    assert part == pytest.approx(whole, rel=0.1)


def test_relative_distance_is_one_at_memory_zero_at_the_law_and_half_at_neither():
    urns = task.draw_urns(4, 5, generator())
    draws = task.draw_rows(urns, 50, 10, generator(1)).draws
    memory, law = task.memorising(draws, urns), task.generalising(draws, 5)
    assert task.relative_distance(memory, memory, law) == pytest.approx(1)
    assert task.relative_distance(law, memory, law) == pytest.approx(0)
    assert 0.2 < task.relative_distance((memory + law) / 2, memory, law) < 0.8
    assert task.distance(memory, law) == pytest.approx(task.distance(law, memory))


def test_complexity_grows_with_the_table_and_the_law_costs_the_same_for_any_set():
    few, many = (task.complexity(task.draw_urns(n, 8, generator())) for n in (4, 64))
    assert few[1] == many[1]
    assert few[0] < few[1] + 4 * 8 * 32 + 2000
    assert 10_000 < many[0] - few[0] < 60 * 8 * 32 + 1


def test_bits_are_of_the_shortest_form():
    assert task.bits(b"\0" * 10_000) < 1000
    noise = bytes(torch.randint(256, (1000,), generator=generator()).tolist())
    assert task.bits(noise) == 8000


def test_a_programs_bits_leave_out_what_is_not_code():
    def bare(x):
        return x + 1

    def said(x):
        """Adds one, and explains at some length that it does so, in words that nobody would compress away."""
        return x + 1  # the sum

    assert task.program_bits(bare) == task.program_bits(said)


def test_the_loss_of_a_network_is_its_divergence_from_the_urns():
    model = task.network(4, 6, 0, d_model=8, d_mlp=16)
    rows = task.draw_rows(task.draw_urns(3, 4, generator()), 5, 6, generator(1))
    truth = rows.truth[:, None].expand(-1, 7, -1)
    expected = task.divergence(truth, task.predictions(model, rows))
    assert float(task.loss(model, rows).detach()) == pytest.approx(expected, rel=1e-4)
