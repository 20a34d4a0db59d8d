"""Worlds of chains: what follows, what is told, what is taught, and the rules that say it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.errors import BadOption
from optrode.gate.conditions import by_row
from optrode.gate.rules import forward_chain, rules
from optrode.study.kit import deduction
from optrode.study.kit.deduction import (
    ASK,
    FORMS,
    KIND,
    LEVELS,
    N_CHAINED,
    N_CONCEPTS,
    N_NAMES,
    N_WORDS,
    NAME,
    NONE,
    PAIR,
    VOCAB,
    WIDTH,
)  # fmt: skip

seeds = st.integers(0, 1000)


def draw(seed):
    return torch.Generator().manual_seed(seed)


def follows(world, name, true):
    """Whether rules say a name, of propositions that are true; by the library's own chaining."""
    texts = deduction.rule_texts(world, name)
    names = [*(deduction.label(ix) for ix in range(N_CONCEPTS)), *(f"ask{ix}" for ix in range(1, LEVELS + 2))]
    chain = rules({known: by_row([1.0]) for known in names}, texts, opens="say").chain
    return bool(forward_chain({known: torch.tensor([known in true]) for known in names}, chain)["say"])


@given(seed=seeds, hops=st.integers(1, LEVELS - 1))
@settings(max_examples=4, deadline=None)
def test_rules_say_the_answer_and_no_other_name(seed, hops):
    world = deduction.world(seed)
    prompts = deduction.chained(world, 1, draw(seed), hops=hops)
    true = {deduction.label(ix) for ix in prompts.concepts[0].tolist() if ix != NONE}
    true.add(f"ask{int(prompts.ids[0, -1]) - ASK + 1}")
    assert [name for name in range(N_NAMES) if follows(world, name, true)] == [int(prompts.answers[0]) - NAME]


@given(seed=seeds)
@settings(max_examples=2, deadline=None)
def test_rules_say_pairs_and_kinds(seed):
    world = deduction.world(seed)
    for prompts, asked in (
        (deduction.paired(world, 1, draw(seed), taught=False), PAIR),
        (deduction.kinds(world, 1, draw(seed), taught=False), KIND),
    ):
        true = {deduction.label(ix) for ix in prompts.concepts[0].tolist() if ix != NONE} | {f"ask{asked}"}
        assert [name for name in range(N_NAMES) if follows(world, name, true)] == [int(prompts.answers[0]) - NAME]


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_steps_add_up_and_kinds_go_along_chains(seed):
    world = deduction.world(seed)
    everything = torch.arange(N_CHAINED)
    low = everything[everything < 2 * WIDTH]
    assert torch.equal(world.after(world.after(low, 3), 5), world.after(low, 5))
    assert torch.equal(world.kinds[world.after(everything, LEVELS - 1)], world.kinds)
    assert world.taught_kinds.sum() == N_CHAINED // 2 and (world.taught_pairs.sum(1) == WIDTH // 2).all()


def test_words_are_those_of_the_concepts_in_the_forms_asked_for():
    prompts = deduction.chained(deduction.world(0), 50, draw(1), hops=2, forms=(1, 3))
    told = prompts.concepts != NONE
    assert (prompts.ids[told] // FORMS == prompts.concepts[told]).all()
    assert set((prompts.ids[told] % FORMS).tolist()) == {1, 3}
    assert (told.sum(1) == 2).all() and ((prompts.ids[:, :-1] >= N_WORDS) == ~told[:, :-1]).all()
    assert (prompts.ids[:, -1] >= ASK).all() and (prompts.ids < NAME).all() and (prompts.answers < VOCAB).all()


def test_the_question_is_so_many_levels_above_the_fact():
    prompts = deduction.chained(deduction.world(0), 50, draw(1), hops=3)
    facts = prompts.concepts.masked_fill(prompts.concepts >= N_CHAINED, NONE).amax(1)
    assert torch.equal(prompts.ids[:, -1] - ASK + 1 - facts // WIDTH, torch.full((50,), 3))


def test_lessons_keep_to_what_is_taught():
    world = deduction.world(3)
    prompts = deduction.lessons(world, 500, draw(2))
    asked = prompts.ids[:, -1] - ASK + 1
    facts = prompts.concepts.masked_fill(prompts.concepts >= N_CHAINED, NONE).amax(1)
    assert (asked - facts // WIDTH)[asked < PAIR].unique().tolist() == [1]
    assert world.taught_kinds[facts[asked == KIND]].all()
    ys = prompts.concepts.amax(1) - N_CHAINED
    assert world.taught_pairs[facts[asked == PAIR], ys[asked == PAIR]].all()


def test_prompts_without_a_fact_have_no_answer():
    prompts = deduction.idle(20, draw(0))
    assert (prompts.answers == NONE).all() and (prompts.concepts.amax(1) >= N_CHAINED).all()


def test_propositions_are_what_is_told_and_the_question():
    prompts = deduction.stated(20, draw(0))
    told = deduction.propositions(prompts)
    assert torch.equal(told[:, :-1], prompts.concepts[:, :-1])
    assert torch.equal(told[:, -1] - N_CONCEPTS + ASK, prompts.ids[:, -1])


@pytest.mark.parametrize("hops", [0, LEVELS])
def test_chains_have_no_such_number_of_steps(hops):
    with pytest.raises(BadOption, match="1 to 5 steps"):
        deduction.chained(deduction.world(0), 2, draw(0), hops=hops)


def test_a_network_learns_from_lessons():
    world, model = deduction.world(0), deduction.network(0, d_model=16)
    prompts = deduction.lessons(world, 64, draw(0))
    value = deduction.loss(model, prompts)
    value.backward()
    assert float(value.detach()) > 1 and deduction.accuracy(model, prompts) < 0.5
