"""Refusal tokens: the dial is a bias where the lead token is said, and equals a threshold on its probability."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.claims import Line, Map, Measured
from optrode.study.kit import refusing
from optrode.study.kit.refusing import World
from optrode.study.papers import refusal_tokens as study
from optrode.study.papers.refusal_tokens_figures import SWEPT
from optrode.study.study import Outcome

WORLD = study.WORLD
PROMPTS = refusing.draw(WORLD, 60, torch.Generator().manual_seed(0))
MODEL = refusing.network(WORLD, 0, d_model=16)


def test_the_dial_acts_on_the_lead_token_alone():
    held = study.bias(study.LEAD_AT, [WORLD.refuse(2)], 1e4)
    with study.gates(MODEL, held):
        made = refusing.respond(MODEL, PROMPTS, "category")
    plain = refusing.respond(MODEL, PROMPTS, "category")
    assert bool((made[:, 1] == WORLD.refuse(2)).all())
    assert torch.equal(made[:, 0], plain[:, 0])
    assert not bool((made[:, 2:] == WORLD.refuse(2)).all())


@settings(deadline=None, max_examples=15)
@given(st.floats(0.05, 0.95))
def test_a_bias_is_a_threshold_on_the_probability_of_one_refusal_token(tau):
    both = study.bias(study.LEAD_AT, [WORLD.respond, WORLD.refuse(0)], 1e4)
    others = study.bias(study.LEAD_AT, [WORLD.refuse(k) for k in (1, 2, 3)], -1e4)
    with study.gates(MODEL, others):
        chance = refusing.lead_odds(MODEL, WORLD, PROMPTS).double().sigmoid()
    with study.gates(MODEL, study.bias(study.LEAD_AT, [WORLD.refuse(0)], study._bias_of(tau)), both):
        lead = refusing.respond(MODEL, PROMPTS, "single")[:, 1]
    is_clear = (chance - tau).abs() > 1e-3  # a bias of 1e4 rounds
    assert torch.equal((lead == WORLD.refuse(0))[is_clear], (chance >= tau)[is_clear])


@pytest.mark.parametrize("n", [0, 1, 3, 7])
def test_a_bias_for_a_rate_refuses_as_many(n):
    odds = torch.tensor([0.3, -2.0, 1.5, -0.1, 4.0, -3.0, 0.9])
    found = torch.arange(7) < n
    assert int((odds + study._for_rate(odds, found) > 0).sum()) == (n if n < 7 else 6)


def test_a_dial_moves_what_it_should_in_a_model_that_says_its_token():
    rates = study._rates(torch.ones(len(PROMPTS), dtype=torch.bool), PROMPTS)
    assert set(rates) == {-1, 0, 1, 2, 3} and set(rates.values()) == {1.0}


def test_the_world_of_the_study_is_that_of_its_tokens():
    assert World() == WORLD
    assert [WORLD.respond + 1 + k for k in range(4)] == list(study.REFUSE)


def outcome(seed, moved):
    line = Line("line", (0.0, 1.0), (0.0, 1.0))
    keys = [*(f"sweep.{name}" for name in SWEPT), "F1", "accuracy", "dial", "again", "calibration"]
    lines = dict.fromkeys(keys, line)
    cells = Map("", "token", "prompts", ("a",), ("b", "c"), ((0.5 + seed / 10, 0.0),))
    measured = {claim.key: Measured(0.5, 0.25) for claim in study.STUDY.claims} | {"D1": Measured(moved, 0.0)}
    return Outcome(measured, lines, {"moved": cells}, random_seed=seed)


def test_titles_say_the_medians():
    figures = study.STUDY.figures([outcome(0, 0.7), outcome(1, 0.9), outcome(2, 0.8)])
    assert "moves the refusal rate by +0.80" in figures.charts[0].title
    assert figures.maps[0].cells == ((0.6, 0.0),)


def test_titles_can_be_made_of_a_seed_that_measured_nothing():
    one = outcome(0, 0.7)
    nothing = dict.fromkeys(one.measured, Measured(float("nan"), float("nan")))
    assert study.STUDY.figures([replace(one, measured=nothing)]).charts
