"""Controls have norm, site, scope and condition of what they are compared with, and nothing of its meaning."""

import pytest
import torch

import optrode as op
from optrode.control.contrast import Contrast
from optrode.control.controls import controls_of, randomised, shuffled
from optrode.control.direction import directions
from optrode.errors import BadOption, BadPairs
from tests.words import worded

SITE = "blocks.1.resid_post"
CONTRAST = Contrast(
    tuple(f"{start} Mary" for start in ("When", "So", "The city of", "The capital of", "The year of", "The")),
    tuple(f"{start} John" for start in ("When", "So", "The city of", "The capital of", "The year of", "The")),
)


@pytest.fixture(name="model", scope="module")
def _model():
    return worded("gpt2")


@pytest.fixture(name="vector", scope="module")
def _vector(model):
    return 3.0 * torch.randn(model.table.d_model, generator=torch.Generator().manual_seed(5))


def test_random_vectors_keep_everything_but_the_direction(vector):
    gate = op.add(f"{SITE}[pos=1:]", vector, strength=0.3, scope="generated")
    (one,), (same,), (other,) = (randomised([gate], seed) for seed in (1, 1, 2))
    assert (one.site, one.strength, one.scope) == (gate.site, 0.3, "generated")
    drawn = one.actuator.vector
    assert torch.equal(drawn, same.actuator.vector) and not torch.equal(drawn, other.actuator.vector)
    torch.testing.assert_close(drawn.norm(), vector.norm())
    assert abs(float(torch.cosine_similarity(drawn, vector, dim=0))) < 0.6


def test_gates_of_several_sites_get_vectors_of_their_own(vector):
    one, two = randomised([op.add(SITE, vector), op.add("blocks.0.resid_post", vector)], 0)
    assert not torch.equal(one.actuator.vector, two.actuator.vector)


def test_projections_are_randomised_too(vector):
    (gate,) = randomised([op.project_out(SITE, torch.stack([vector, vector.flip(0)]))], 0)
    assert gate.actuator.directions.shape == (2, len(vector))


def test_shuffled_labels_give_a_vector_of_equal_norm_from_the_same_texts(model, vector):
    gate = op.add(SITE, vector)
    (one,) = shuffled(model, [gate], CONTRAST, 3)
    (true,) = directions(model, CONTRAST, SITE, "difference", held_out=0.0)
    (mixed,) = directions(model, CONTRAST.shuffled(3), SITE, "difference", held_out=0.0)
    torch.testing.assert_close(one.actuator.vector, mixed.vector * vector.norm())
    assert abs(float(torch.cosine_similarity(one.actuator.vector, true.vector, dim=0))) < 0.7


def test_shuffled_labels_serve_gates_at_several_layers(model, vector):
    (one,) = shuffled(model, [op.add("blocks.*.resid_post", vector)], CONTRAST, 0)
    torch.testing.assert_close(one.actuator.vector.norm(), vector.norm())


def test_five_random_and_one_shuffled_control_for_any_dose(model, vector):
    made = controls_of(model, lambda dose: [op.add(SITE, vector, strength=dose)], CONTRAST)
    assert [one.kind for one in made] == ["random"] * 5 + ["shuffled"]
    vectors = [one.steer(0.5)[0].actuator.vector for one in made]
    assert len({tuple(one.tolist()) for one in vectors}) == 6
    assert all(one.steer(dose)[0].strength == dose for one in made for dose in (0.5, -1.0))


def test_what_has_no_random_equal_is_refused_with_a_way_out(model, vector):
    for gate in (op.scale(SITE, 2.0), op.zero(SITE)):
        with pytest.raises(BadOption, match="pass controls of your own"):
            randomised([gate], 0)
    with pytest.raises(BadOption, match=r"its vector is \(1, .*not one of the site"):
        shuffled(model, [op.add(SITE, vector[None])], CONTRAST, 0)
    with pytest.raises(BadPairs, match="a side has one text"):
        shuffled(model, [op.add(SITE, vector)], Contrast(("When",), ("So",)), 0)
