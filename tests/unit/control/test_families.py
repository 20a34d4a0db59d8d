"""Directions of several concepts at once, and of the lengths of answers."""

import math

import pytest
import torch

from optrode.control.contrast import Answered
from optrode.control.families import family, length_contrast, shortest_minus_longest
from optrode.control.states import read_states
from optrode.errors import BadOption, BadPairs
from optrode.model.source import from_source
from optrode.model.tiny import tiny

SITE = "blocks.1.resid_post"


def rows(n, of, random_seed=0):
    generator = torch.Generator().manual_seed(random_seed)
    return tuple(tuple(torch.randint(*of, (4 + ix % 3,), generator=generator).tolist()) for ix in range(n))


GROUPS = {"joy": rows(8, (1, 6)), "fear": rows(8, (20, 25), 1), "anger": rows(6, (50, 55), 2)}


@pytest.fixture(scope="module")
def model():
    return from_source(tiny("llama", initializer_range=0.05).double())


@pytest.fixture
def talker():
    """A model whose answers end."""
    model = from_source(tiny("llama"))
    model.module.generation_config.eos_token_id = [5, 9, 11, 30, 44]
    return model


def test_members_are_group_means_about_the_mean_of_groups(model):
    found = family(model, GROUPS, SITE, held_out=0.0)
    means = {name: read_states(model, texts, SITE)[0].pooled.mean(0) for name, texts in GROUPS.items()}
    centre = sum(means.values()) / 3
    for name, (member,) in found.items():
        raw = means[name] - centre
        torch.testing.assert_close(member.vector, raw / raw.norm())
        assert member.method == f"family, {name}" and member.n == 22 and math.isnan(member.separation)


def test_every_member_tells_its_group_from_the_others(model):
    found = family(model, GROUPS, "blocks.*.resid_post", read="mean")
    assert list(found) == list(GROUPS) and all(len(members) == 3 for members in found.values())
    separations = [one.separation for members in found.values() for one in members]
    assert sum(separations) / 9 > 0.75 and separations.count(1.0) >= 6, separations
    assert all(one.read == "mean" and one.n_held == 6 for members in found.values() for one in members)


def test_families_of_one_group_or_of_equal_groups_are_refused(model):
    with pytest.raises(BadPairs, match="at least two groups"):
        family(model, {"joy": GROUPS["joy"]}, SITE)
    with pytest.raises(BadPairs, match="the mean|its mean"):
        family(model, {"joy": GROUPS["joy"], "fear": GROUPS["joy"]}, SITE, held_out=0.0)
    with pytest.raises(BadPairs, match="'fear'"):
        family(model, {"joy": GROUPS["joy"], "fear": ()}, SITE)
    with pytest.raises(BadOption, match="share"):
        family(model, GROUPS, SITE, held_out=1.0)


def test_shortest_and_longest_answers_are_paired_and_read_without_their_prompts(talker):
    prompts = [(3, 4, 6), (7, 8), (12, 13, 14, 15)]
    contrast = length_contrast(talker, prompts, n_samples=6, max_new_tokens=24, random_seed=1)
    assert contrast.is_paired
    for short, long in zip(contrast.positive, contrast.negative, strict=True):
        assert isinstance(short, Answered) and len(short.token_ids) < len(long.token_ids)
        assert short.token_ids[: short.start] == long.token_ids[: long.start] in prompts
    again = length_contrast(talker, prompts, n_samples=6, max_new_tokens=24, random_seed=1)
    assert again == contrast != length_contrast(talker, prompts, n_samples=6, max_new_tokens=24, random_seed=2)


def test_answers_that_are_not_right_are_left_out(talker):
    prompts = [(3, 4, 6), (7, 8)]
    contrast = length_contrast(
        talker, prompts, n_samples=8, max_new_tokens=24, is_right=lambda prompt, answer: len(answer) > 2
    )
    assert all(len(text.token_ids) - text.start > 2 for text in contrast.positive)


def test_the_direction_of_brevity_is_read_over_answers(talker):
    prompts = [(ix, ix + 1, ix + 2) for ix in range(12, 28, 2)]
    (found,) = shortest_minus_longest(talker, prompts, SITE, n_samples=4, max_new_tokens=16)
    assert found.read == "mean" and math.isclose(float(found.vector.norm()), 1, rel_tol=1e-5) and found.n_held >= 2


def test_answers_of_one_length_say_nothing_of_length(model):
    with pytest.raises(BadPairs, match="different length"):
        length_contrast(model, [(3, 4, 6)], max_new_tokens=4)
    with pytest.raises(BadOption, match="shortest and longest"):
        length_contrast(model, [(3, 4, 6)], n_samples=1)
    with pytest.raises(BadOption, match="temperature"):
        length_contrast(model, [(3, 4, 6)], temperature=0.0)
