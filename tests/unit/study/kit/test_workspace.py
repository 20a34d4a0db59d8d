"""A workspace under the chain made by hand adds, whatever its controller does, and every gate can be held."""

import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.study.kit.workspace import (
    SITES,
    LearnedIncrement,
    Shift,
    WorkspaceSpec,
    as_model,
    build,
    by_site,
    chain_lengths,
    hand_chain,
)

PAIRS = torch.cartesian_prod(torch.arange(4), torch.arange(4))


def addends(n_digits=4):
    return [torch.nn.functional.one_hot(PAIRS[:, ix], n_digits).float() for ix in (0, 1)]


def hold(model, gates):
    recording = op.Recording(dict(by_site(gates)))
    return op.gates(model, *(op.patch(site, recording) for site in SITES))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_chain_made_by_hand_adds_in_an_untrained_network(seed):
    model = as_model(build(WorkspaceSpec(4, 5), seed))
    chain = hand_chain(PAIRS[:, 1], 4)
    with hold(model, chain), torch.no_grad():
        found = model(*addends())
    assert torch.equal(found.logits.argmax(1), PAIRS.sum(1))
    assert torch.equal(found.gates, chain)
    torch.testing.assert_close(found.logits.exp().sum(1), torch.ones(16), atol=1e-4, rtol=0)


def test_gates_sum_to_one_and_what_is_in_the_workspace_stays_a_distribution():
    model = as_model(build(WorkspaceSpec(4, 5, has_learned_increment=True)))
    held = op.record(model, dict(zip(("first", "second"), addends(), strict=True)), [*SITES, "module:board.out"])
    with torch.no_grad():
        found = model(*addends())
    torch.testing.assert_close(sum(held[site] for site in SITES), torch.ones(16, 5, 1))
    torch.testing.assert_close(torch.cat([held[site] for site in SITES], 2), found.gates)
    torch.testing.assert_close(held["module:board.out"].sum(2), torch.ones(16, 5))


def test_one_step_is_the_gated_sum_of_the_modules():
    model = as_model(build(WorkspaceSpec(3, 5)))
    first, second = torch.eye(3)[[2]], torch.eye(3)[[1]]
    gates = torch.tensor([[[1.0, 0, 0], [0.2, 0.5, 0.3], [0, 0, 1.0], [0, 0, 1.0]]])
    with hold(model, gates), torch.no_grad():
        found = model(first, second)
    wanted = torch.tensor([0, 0, 0.2 + 0.3, 0.5, 0])
    torch.testing.assert_close(found.boards[0, 1], wanted)
    torch.testing.assert_close(found.logits[0].exp(), wanted.clamp(min=1e-6))


def test_incrementing_by_hand_shifts_by_one():
    assert Shift()(torch.eye(3)).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_a_learned_increment_keeps_distributions():
    board = torch.rand(4, 5).softmax(1)
    torch.testing.assert_close(LearnedIncrement(5)(board).sum(1), torch.ones(4))


def test_chains_are_read_off_the_widest_gates():
    gates = torch.eye(3)[torch.tensor([[0, 0, 1, 1, 2], [0, 2, 2, 2, 2], [0, 1, 0, 1, 2], [1, 1, 1, 1, 2], [0, 1, 1, 1, 1]])]
    assert chain_lengths(gates).tolist() == [2, 0, 1, -1, -1]
    assert torch.equal(chain_lengths(hand_chain(PAIRS[:, 1], 4)), PAIRS[:, 1])


def test_images_pass_through_the_encoder():
    model = as_model(build(WorkspaceSpec(4, 5, d_pixels=9)))
    with torch.no_grad():
        found = model(torch.rand(2, 9), torch.rand(2, 9))
    assert found.logits.shape == (2, 7) and found.boards.shape == (2, 5, 7)


@pytest.mark.parametrize("options", [{"n_digits": 1}, {"d_hidden": 0}, {"d_pixels": -1}])
def test_a_workspace_of_no_size_is_refused(options):
    with pytest.raises(BadOption, match="two digits or more"):
        WorkspaceSpec(**options)


def test_building_leaves_the_random_state_alone():
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    build(WorkspaceSpec(3, 4), 9)
    assert torch.equal(before, torch.rand(1))
