"""Prompts to be refused by a known law, and responses that say whether they refuse."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optrode.errors import BadOption
from optrode.study.kit import refusing
from optrode.study.kit.refusing import ASK_AT, N_OWN, World

WORLD = World()


def drawn(n=4000, seed=0, world=WORLD):
    return refusing.draw(world, n, torch.Generator().manual_seed(seed))


def responses(prompts, lead):
    return refusing.respond_to(WORLD, prompts, lead, torch.Generator().manual_seed(1))


def words_of(prompts, category):
    first = refusing.N_FILLERS + category * WORLD.n_words
    return (prompts.ids >= first) & (prompts.ids < first + WORLD.n_words)


def test_a_prompt_has_five_words_of_its_category_and_at_most_one_of_another():
    prompts = drawn(500)
    counted = torch.stack([words_of(prompts, k).sum(1) for k in range(WORLD.n_categories)], 1)
    in_category = prompts.category >= 0
    own = counted[in_category].gather(1, prompts.category[in_category, None])[:, 0]
    assert bool((own == N_OWN).all()) and bool((counted[in_category].sum(1) - own <= 1).all())
    assert bool((counted[~in_category] == 0).all())
    assert bool((prompts.ids[:, ASK_AT] == WORLD.ask).all())


def test_prompts_are_refused_as_often_as_their_words_say():
    prompts = drawn(20_000)
    first = refusing.N_FILLERS + prompts.category[:, None] * WORLD.n_words
    own = (prompts.ids >= first) & (prompts.ids < first + WORLD.n_words) & (prompts.category[:, None] >= 0)
    weight = torch.where(own, WORLD.weights[(prompts.ids - first).clamp(0, WORLD.n_words - 1)], 0.0).sum(1)
    expected = (weight + torch.tensor(WORLD.bias)[prompts.category]).sigmoid()
    in_category = prompts.category >= 0
    assert torch.allclose(prompts.chance[in_category], expected[in_category], atol=1e-5)
    assert float(prompts.chance[~in_category].abs().max()) == 0 and not bool(prompts.is_refused[~in_category].any())
    likely = prompts.chance > 0.7
    assert float(prompts.is_refused[likely].float().mean()) == pytest.approx(float(prompts.chance[likely].mean()), abs=0.03)


@pytest.mark.parametrize("odds", [0.25, 8.0])
def test_odds_of_refusing_are_multiplied_within_what_chance_says(odds):
    prompts = drawn(40_000)
    some = prompts.where((prompts.chance > 0.4) & (prompts.chance < 0.6))
    kept = refusing.with_share(some, odds, torch.Generator().manual_seed(2))
    of = lambda one: float(one.is_refused.float().mean() / (1 - one.is_refused.float().mean()))  # noqa: E731
    assert of(kept) / of(some) == pytest.approx(odds, rel=0.2)


def test_every_response_says_truly_what_it_is():
    prompts = drawn()
    made = responses(prompts, "category")
    leads = torch.where(prompts.is_refused, WORLD.respond + 1 + prompts.category, WORLD.respond)
    assert torch.equal(made[:, 1], leads)
    assert torch.equal(refusing.is_refusal(WORLD, made), prompts.is_refused)
    single = responses(prompts, "single")
    assert set(single[:, 1].tolist()) == {WORLD.respond, WORLD.refuse(0)}
    assert torch.equal(responses(prompts, "none"), made[:, 2:])


def test_shuffled_tokens_are_as_many_and_say_nothing():
    prompts = drawn()
    made, true = responses(prompts, "shuffled"), responses(prompts, "category")
    assert torch.equal(made[:, 1].sort().values, true[:, 1].sort().values)
    says = made[:, 1] != WORLD.respond
    assert abs(float(says[prompts.is_refused].float().mean() - says[~prompts.is_refused].float().mean())) < 0.06


def test_tone_has_nothing_to_do_with_refusing_and_openers_follow_it():
    prompts = drawn()
    made = responses(prompts, "category")
    tone = made[:, 0] - WORLD.tone
    assert abs(float(tone[prompts.is_refused].float().mean()) - float(tone[~prompts.is_refused].float().mean())) < 0.06
    assert torch.equal((made[:, 2] - WORLD.opener) // refusing.N_OPENERS, tone)


def test_only_the_response_is_learned():
    batch = refusing.written(WORLD, drawn(20), "category", torch.Generator().manual_seed(1))
    assert batch.inputs.shape == batch.wanted.shape == (20, ASK_AT + 4)
    assert bool((batch.wanted[:, :ASK_AT] == refusing.NOTHING).all())
    assert torch.equal(batch.inputs[:, ASK_AT + 1 :], batch.wanted[:, ASK_AT:-1])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pairs):
    found, wanted = (torch.tensor([pair[side] for pair in pairs]) for side in (0, 1))
    both = float((found & wanted).sum())
    if both == 0:
        assert refusing.f1(found, wanted) == 0
        return
    precision, recall = both / float(found.sum()), both / float(wanted.sum())
    assert refusing.f1(found, wanted) == pytest.approx(2 * precision * recall / (precision + recall))


def test_balanced_accuracy_of_refusing_at_random_is_a_half():
    found, wanted = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    assert refusing.balanced(found, wanted) == 0.5
    assert refusing.balanced(wanted, wanted) == 1


def test_impossible_worlds_are_refused():
    with pytest.raises(BadOption, match="a category and a word"):
        World(bias=())
    with pytest.raises(BadOption, match="categories go from 0 to 3"):
        WORLD.refuse(4)
    with pytest.raises(BadOption, match="odds are above 0"):
        refusing.with_share(drawn(4), 0.0, torch.Generator())
