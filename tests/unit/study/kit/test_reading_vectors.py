"""Control vectors: planted directions are read off states."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.study.kit import careless, reading_vectors

SITE = "blocks.0.resid_post"
MODE, TASK = torch.eye(12)[0], torch.eye(12)[1]


@pytest.fixture
def planted():
    """States of items, whether they are solved, and states of strings: items have TASK, solved ones MODE as well."""
    draw = torch.Generator().manual_seed(0)
    solved = torch.rand(600, generator=draw) < 0.6
    noise = 0.1 * torch.randn(1200, 12, generator=draw)
    states = noise[:600] + 3 * TASK + torch.where(solved[:, None], MODE, -MODE)
    return states, solved, noise[600:]


def towards(vector, direction):
    return float(vector @ direction / vector.norm())


def test_a_contrast_by_outcome_finds_what_solved_items_have(planted):
    states, solved, _ = planted
    assert towards(reading_vectors.of_outcome(states, solved), MODE) > 0.99
    shuffled = solved[torch.randperm(600, generator=torch.Generator().manual_seed(1))]
    assert reading_vectors.of_outcome(states, shuffled).norm() < 0.3


def test_a_contrast_with_strings_finds_what_items_have_too(planted):
    vector = reading_vectors.contrasted(*planted)
    assert torch.allclose(vector, 3 * TASK + MODE, atol=0.05)
    assert torch.allclose(reading_vectors.solved(*planted[:2]), vector + planted[2].mean(0))


def test_the_principal_axis_points_from_strings_to_solved_items(planted):
    axis = reading_vectors.principal(*planted)
    assert float(axis.norm()) == pytest.approx(1, abs=1e-4)
    assert towards(axis, (3 * TASK + MODE) / 10**0.5) > 0.99


def test_vectors_are_scaled_to_a_norm_and_need_a_direction(planted):
    assert float(reading_vectors.scaled(torch.ones(4), 6.0).norm()) == pytest.approx(6)
    with pytest.raises(BadOption, match="it is zero"):
        reading_vectors.scaled(torch.zeros(4), 1.0)


def test_vectors_need_items_of_both_outcomes(planted):
    states, _, strings = planted
    none = torch.zeros(600, dtype=torch.bool)
    for read in (reading_vectors.solved, reading_vectors.of_outcome):
        with pytest.raises(BadOption, match="none is solved"):
            read(states, none)
    with pytest.raises(BadOption, match="none is failed"):
        reading_vectors.of_outcome(states, ~none)
    with pytest.raises(BadOption, match="none is solved"):
        reading_vectors.principal(states, none, strings)


def test_states_are_those_of_the_last_token():
    model = careless.network(0, d_model=8)
    ids = careless.random_strings(5, torch.Generator().manual_seed(0))
    states = reading_vectors.last_states(model, ids, SITE)
    assert states.shape == (5, 8)
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % careless.VOCAB
    assert not torch.allclose(reading_vectors.last_states(model, changed, SITE), states)
    assert reading_vectors.typical_norm(model, ids, SITE) > 0
