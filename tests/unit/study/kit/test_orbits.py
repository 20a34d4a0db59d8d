"""Turns, residency, crossings and pushes of networks in which they are known."""

import math

import pytest
import torch

import optrode as op
from optrode.nn.recurrent import RecurrentSpec, as_model, build
from optrode.study.kit import orbits

SPEC = RecurrentSpec("relu", d_in=2, d_hidden=4, d_out=3, has_bias=False)


def generator():
    return torch.Generator().manual_seed(0)


def model(weight=None, gain=0.0, readout=None):
    """Units 0 and 1 are the two sides; the input reaches them with some gain."""
    module = build(SPEC, 0)
    with torch.no_grad():
        if weight is not None:
            module.cells[0].recur.weight.copy_(weight)
            module.cells[0].read.weight.zero_()[:2] = gain * torch.eye(2)
            module.readout.weight.zero_()[0, 0] = module.readout.weight[2, 1] = 1
    return as_model(module)


def test_a_circle_is_one_turn_and_a_path_that_goes_back_is_none():
    angle = torch.linspace(0, 2 * math.pi, 30)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    back = torch.cat([circle[:15], circle[:15].flip(0)])
    found = orbits.turns(torch.stack([circle, circle.flip(0), back]))
    assert found.tolist() == pytest.approx([1, -1, 0], abs=1e-5)


def test_the_plane_is_that_of_greatest_variance():
    states = torch.randn(3, 200, 4, generator=generator()) * torch.tensor([0.1, 5.0, 0.1, 2.0]) + 7
    mean, directions = orbits.plane(states)
    assert mean.tolist() == pytest.approx(states.mean((0, 1)).tolist(), abs=1e-4)
    assert directions.abs().argmax(1).tolist() == [1, 3]


def test_a_state_that_nothing_moves_stays_to_the_cap():
    held = model(torch.eye(4))
    states = torch.tensor([[1.0, 0, 0, 0], [0, 3.0, 0, 0]])
    assert orbits.residency(held, states, generator(), n_draws=3, cap=9).tolist() == [9, 9]
    assert orbits.leaves_alone(held, states, 5).tolist() == [False, False]


def test_a_state_that_is_passed_on_leaves_at_the_step_it_must():
    passing = torch.eye(4)
    passing[1, 0], passing[0, 0] = 1.0, 0.5
    moved = model(passing)
    states = torch.tensor([[1.0, 0.4, 0, 0], [0, 1.0, 0, 0]])
    assert orbits.residency(moved, states, generator(), n_draws=2, cap=6).tolist() == [1, 6]
    assert orbits.leaves_alone(moved, states, 6).tolist() == [True, False]


def test_zones_are_by_residency_and_surety():
    stay = torch.tensor([1.0, 2.0, 8.0, 9.0, 30.0])
    found = orbits.zones(stay, torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6]))
    assert {name: part.int().tolist() for name, part in found.items()} == {
        "transition": [1, 0, 0, 0, 0], "kick": [0, 1, 1, 0, 0], "cluster": [0, 0, 0, 1, 0],
    }  # fmt: skip


def test_crossings_do_not_count_what_is_unsure():
    choice = torch.tensor([[0, 0, 2, 0, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1]])
    surety = torch.tensor([[0.9, 0.9, 0.5, 0.5, 0.9, 0.9, 0.9], [0.9] * 7])
    run = orbits.Run(torch.zeros(2, 7, 4), choice, surety)
    assert run.crossing_rate() == 2 / 14 and run.switch_rate == pytest.approx(4 / 12)


def test_pushes_of_all_units_add_up_to_the_noise_free_readout():
    free = model()
    module = orbits.network(free)
    states = torch.rand(6, 4, generator=generator())
    own, other = torch.tensor([0, 2, 1, 0, 2, 1]), torch.tensor([2, 0, 0, 1, 1, 2])
    later = orbits.drive(free, torch.zeros(6, 3, 2), states).states[:, -1]
    logits = module.readout(later).detach()
    wanted = logits.gather(1, other[:, None]) - logits.gather(1, own[:, None])
    found = orbits.pushes(free, states, own, other, 3)
    torch.testing.assert_close(found.sum(1, keepdim=True), wanted, atol=1e-6, rtol=1e-5)


def test_the_planted_unit_pushes_most_and_without_it_nothing_leaves():
    passing = torch.diag(torch.tensor([1.0, 1.0, 0.0, 1.0]))
    passing[1, 3] = 0.5
    pushed = model(passing)
    states = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    push = orbits.pushes(pushed, states, torch.tensor([0]), torch.tensor([2]), 6)
    assert int(push.argmax()) == 3
    assert orbits.leaves_alone(pushed, states, 10).tolist() == [True]
    with op.gates(pushed, op.zero("module:cells.0.hidden.out[feature=3]")):
        run = orbits.drive(pushed, torch.zeros(1, 10, 2), states)
    assert run.choice.tolist() == [[0] * 10]


def test_noise_scales_a_network_without_biases():
    free, noise = model(), torch.randn(2, 8, 2, generator=generator())
    one, three = (orbits.drive(free, size * noise, skip=3).states for size in (1, 3))
    torch.testing.assert_close(three, 3 * one)
    assert one.shape == (2, 5, 4)
