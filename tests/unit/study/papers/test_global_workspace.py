"""What is particular to the study of the global workspace."""

import pytest
import torch

from optrode.study.kit import addition, workspace
from optrode.study.papers import global_workspace as study


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module", name="model")
def _model():
    """A workspace that adds: its gates come from the chain made by hand."""
    module = workspace.build(workspace.WorkspaceSpec(10, 4))
    return workspace.as_model(module)


@pytest.fixture(scope="module", name="data")
def _data():
    return addition.split(torch.Generator().manual_seed(0))


def test_the_hand_chain_is_right_and_that_of_the_next_addend_wrong(model, data):
    found = study.by_hand(model, data.unseen)
    assert found.value == 1 and found.control == 0


def test_gates_held_at_their_own_values_change_nothing(model, data):
    plain = study.ask(model, data.unseen)
    held = study.ask(model, data.unseen, plain.gates)
    torch.testing.assert_close(held.logits, plain.logits)
    torch.testing.assert_close(held.gates, plain.gates)


def test_shuffled_gates_are_the_same_gates_in_another_order():
    gates = torch.rand(5, 11, 3, generator=generator())
    shuffled = study.in_random_order(gates, generator())
    assert not torch.equal(shuffled, gates)
    torch.testing.assert_close(shuffled.sort(1).values, gates.sort(1).values)
    rows = {tuple(row) for row in gates[2].tolist()}
    assert {tuple(row) for row in shuffled[2].tolist()} == rows


def test_a_network_that_follows_its_gates_is_told_from_one_that_does_not(model, data, monkeypatch):
    own = study.ask

    def chained(asked, pairs, gates=None):
        return own(asked, pairs, workspace.hand_chain(pairs[:, 1], 10) if gates is None else gates)

    monkeypatch.setattr(study, "ask", chained)
    swapped, chains, frozen = (
        study.swapped(model, data.between, generator()), study.chains(model, data.between, generator()),
        study.frozen(model, data),
    )  # fmt: skip
    assert swapped.value == chains.value == frozen.control == 1
    assert max(swapped.control, chains.control, frozen.value) < 0.4
