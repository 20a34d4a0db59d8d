"""A layer and a dose chosen on validation prompts, within what language can afford."""

import math

import pytest
import torch

from optrode.control.choosing import choose
from optrode.control.contrast import Contrast
from optrode.control.direction import directions
from optrode.control.rollout import roll_out
from optrode.errors import BadOption, NoneAllowed
from optrode.model.source import from_source
from optrode.model.tiny import tiny

PROMPTS = [(5, 9, 2, 7), (8, 1), (4, 30, 22, 17, 3, 11), (40, 41, 2)]


@pytest.fixture(scope="module")
def model():
    return from_source(tiny("gpt2"))


@pytest.fixture(scope="module")
def found(model):
    return directions(model, Contrast(tuple(PROMPTS[:2]), tuple(PROMPTS[2:])), held_out=0.0)


def low_tokens(answers):
    """Share of tokens of low number."""
    return [sum(token < 20 for token in answer) / len(answer) for answer in answers]


def test_the_table_holds_every_layer_at_every_dose_and_the_best_keeps_the_limits(model, found):
    calls = []
    choice = choose(
        model, found, PROMPTS, low_tokens, doses=(-0.5, 0.5, 2.0), max_d_nll=1.0, max_repeated=1.0, n_tokens=8,
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    names = [f"blocks.{layer}.resid_post" for layer in range(3)]
    assert [(one.name, one.dose) for one in choice.table] == [(n, d) for n in names for d in (-0.5, 0.5, 2.0)]
    assert calls[-1] == (names[-1], 9, 9) and choice.n_prompts == 4
    allowed = [one for one in choice.table if one.d_nll <= 1.0]
    assert 0 < len(allowed) < 9 and choice.best in allowed
    assert choice.best.score == max(one.score for one in allowed)


def test_its_numbers_are_those_of_the_answers(model, found):
    choice = choose(model, found[1:2], PROMPTS, low_tokens, doses=(0.7,), max_d_nll=9.0, max_repeated=1.0, n_tokens=8)
    rolled, plain = roll_out(model, PROMPTS, [found[1].gate(0.7)], 8), roll_out(model, PROMPTS, (), 8)
    (one,) = choice.table
    scores = torch.tensor(low_tokens(rolled.answers), dtype=torch.float64)
    assert math.isclose(one.score, float(scores.mean())) and one.is_allowed
    assert math.isclose(one.d_nll, rolled.mean_nll - plain.mean_nll) and choice.plain.d_nll == 0


def test_loops_are_not_allowed_however_likely(model, found):
    choice = choose(model, found[:1], PROMPTS, low_tokens, doses=(0.1,), max_d_nll=9.0, max_repeated=0.0, n_tokens=24)
    assert choice.table[0].repeated > 0 and not choice.table[0].is_allowed
    with pytest.raises(NoneAllowed, match="repeats at most 0 of its bigrams.*blocks.0.resid_post at dose 0.1"):
        assert choice.best


def test_among_equals_the_smallest_dose_is_best(model, found):
    choice = choose(
        model, found[:1], PROMPTS, lambda answers: [1.0] * len(answers), doses=(0.4, -0.1, 0.2), max_d_nll=99.0,
        max_repeated=1.0, n_tokens=2,
    )  # fmt: skip
    assert choice.best.dose == -0.1


def test_anything_that_makes_gates_of_a_dose_can_be_chosen(model, found):
    both = {"both": lambda dose: [found[0].gate(dose), found[2].gate(-dose)]}
    choice = choose(model, both, PROMPTS, low_tokens, doses=(0.2,), n_tokens=2, max_repeated=1.0, max_d_nll=9.0)
    assert choice.best.name == "both"


def test_what_cannot_be_tried_is_refused(model, found):
    def attempt(candidates=found, score=low_tokens, **options):
        return choose(model, candidates, PROMPTS, score, **({"n_tokens": 2} | options))

    with pytest.raises(BadOption, match="at least one of each"):
        attempt(())
    with pytest.raises(BadOption, match="always tried"):
        attempt(doses=(0.0,))
    with pytest.raises(BadOption, match="finite"):
        attempt(doses=(math.nan,))
    with pytest.raises(BadOption, match="one site and method"):
        attempt((found[0], found[0]))
    with pytest.raises(BadOption, match="3 numbers for 4 answers"):
        attempt(score=lambda answers: [0.0] * 3)
    with pytest.raises(BadOption, match="NaN"):
        attempt(score=lambda answers: [math.nan] * 4)
