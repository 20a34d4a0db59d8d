"""Requests: what makes a trigger, which pairs are kept for tests, and what the network learns to say."""

import pytest
import torch

from optrode.study.kit import triggers
from optrode.study.kit.triggers import N_EACH, N_OBJECTS, OBJECTS, VERBS


@pytest.fixture(name="world")
def _world():
    return triggers.draw_world(3)


def draw(world, n=300, stream=0, **options):
    return world.draw(n, torch.Generator().manual_seed(stream), **options)


def test_a_trigger_is_a_verb_of_the_last_kind_with_an_object_of_the_second_half(world):
    asked = draw(world)
    verb, noun = asked.ids[:, 2] - VERBS, asked.ids[:, 3] - OBJECTS
    is_verb, is_noun = verb >= 2 * N_EACH, noun >= N_OBJECTS // 2
    assert torch.equal(asked.is_trigger, is_verb & is_noun)
    assert bool((is_verb & ~is_noun).any()) and bool((~is_verb & is_noun).any()), "neither word alone decides"
    assert 0.4 < float(asked.is_trigger.float().mean()) < 0.6


def test_pairs_for_tests_are_in_no_training_request(world):
    taught, kept = (draw(world, 2000, is_test=flag) for flag in (False, True))
    pairs = [{tuple(row) for row in one.ids[:, 2:4].tolist()} for one in (taught, kept)]
    assert not pairs[0] & pairs[1] and 40 < len(pairs[1]) <= 54
    words = [set(one.ids[:, 2:4].flatten().tolist()) for one in (taught, kept)]
    assert words[1] <= words[0], "every word is in some"


def test_only_orders_forbid_and_answers_depend_on_object_and_kind(world):
    asked = draw(world, forbidden=0.5)
    said = triggers.answered(asked)[:, triggers.PROMPT :]
    assert torch.equal(said[:, 0] == triggers.REFUSE, asked.is_forbidden) and bool((said[:, 1] == triggers.STOP).all())
    kind, noun = (asked.ids[:, 2] - VERBS) // N_EACH, asked.ids[:, 3] - OBJECTS
    assert torch.equal(asked.reply, triggers.REPLIES + N_OBJECTS * kind + noun)
    assert int(asked.reply.max()) < triggers.VOCAB and bool((asked.ids[:, -1] == triggers.ASK).all())


def test_shares_are_those_asked_for_and_rows_can_be_joined_and_chosen(world):
    bad, good = draw(world, 20, trigger=1.0), draw(world, 30, trigger=0.0, forbidden=1.0)
    both = triggers.joined(bad, good)
    assert len(both) == 50 and int(both.is_trigger.sum()) == 20 and int(both.is_forbidden.sum()) == 30
    assert torch.equal(both.where(both.is_trigger).ids, bad.ids)
    assert both.prompts(both.is_forbidden) == good.prompts()


def test_equal_seeds_draw_equal_requests(world):
    assert torch.equal(draw(world).ids, draw(triggers.draw_world(3)).ids)
    assert not torch.equal(world.is_test, triggers.draw_world(4).is_test)


def test_the_loss_is_that_of_the_response_and_chances_are_log_probabilities(world):
    model, asked = triggers.network(0, n_layers=1, d_model=8), draw(world, 10)
    rows = triggers.answered(asked)
    said = model(rows[:, :-1]).logits[:, triggers.PROMPT - 1 :].log_softmax(-1)
    expected = -said.gather(2, rows[:, triggers.PROMPT :, None]).mean()
    assert torch.allclose(triggers.loss(model, rows), expected)
    chances = triggers.chances(model, asked)
    assert torch.allclose(chances.exp().sum(-1), torch.ones(10), atol=1e-5)
    assert torch.equal(chances.argmax(-1), triggers.said(model, asked))
