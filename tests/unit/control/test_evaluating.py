"""An evaluation holds every control, tells what it costs, and cannot be made to flatter."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import optrode as op
from optrode.control.behaviours import Behaviour, Exchange
from optrode.control.controls import Control
from optrode.control.evaluating import evaluate
from optrode.control.judges import Length, Share
from optrode.control.records import Evaluation, JudgeQuality, pareto
from optrode.errors import BadOption, GateError
from optrode.records import read_named, write_named
from tests.words import worded

SITE = "blocks.1.resid_post"
MARY = Share("Mary", "share of Mary", ("mary",), full=0.5, least=0.2)


@pytest.fixture(name="model", scope="module")
def _model():
    return worded()


@pytest.fixture(name="behaviour", scope="module")
def _behaviour():
    return Behaviour(
        name="Mary",
        about="how often Mary is named",
        positive=tuple(Exchange("", f"{place} kind") for place in ("The city of", "When", "So", "The capital near")),
        negative=tuple(Exchange("", f"{place} the") for place in ("The city of", "When", "So", "The capital near")),
        validation=("When he went",),
        test=("So she was", "The year of", "When John gave"),
        judges=(MARY, Length(8)),
        instruction="The name is Mary.",
        opposite_instruction="The name is not Mary.",
        unrelated=("The city is", "John was near"),
        held_out="When John went to the city, he gave a drink to Mary and to the friend of Mary.",
    )


@pytest.fixture(name="steer", scope="module")
def _steer(model):
    """Towards the token " Mary": its row of the unembedding, at the last block's output."""
    row = model.module.lm_head.weight[model.to_single_token(" Mary")].detach()
    vector = 40 * row / row.norm()
    return lambda dose: [op.add(SITE, vector, strength=float(dose))]


@pytest.fixture(name="found", scope="module")
def _found(model, behaviour, steer):
    told = []
    how = {"control_dose": 1, "n_tokens": 6, "progress": lambda *what: told.append(what)}
    found = evaluate(model, steer, behaviour, [0.5, 1], **how)
    steps = [(done, of) for what, done, of in told if what == "steering"]
    assert steps == [(ix, 11 if ix < 4 else 12) for ix in range(1, 13)], "the opposite dose is found to be missing"
    assert [what for what in told if what[0] == "side effects"] == [("side effects", ix, 3) for ix in (1, 2, 3)]
    return found


def test_every_control_is_there(found):
    assert [one.kind for one in found.conditions] == [
        "plain", *["steered"] * 3, *["random"] * 5, "shuffled", "prompt", "prompt",
    ]  # fmt: skip
    assert found.plain.dose == 0 and found.control_dose == 1
    assert found.at(-found.control_dose).kind == "steered", "the opposite sign is added where it is missing"
    assert all(one.dose == found.control_dose for one in found.of("random", "shuffled"))
    assert len({one.random_seed for one in found.of("random")}) == 5


def test_a_real_effect_is_above_its_controls(found):
    assert found.at(1).gain[0].mean > 0.2 and found.is_above_controls
    assert found.at(-found.control_dose).concept[0].mean <= found.plain.concept[0].mean


def test_a_random_vector_in_the_place_of_the_direction_is_not(model, behaviour):
    vector = 40 * torch.nn.functional.normalize(torch.randn(model.table.d_model), dim=0)
    found = evaluate(model, lambda dose: [op.add(SITE, vector, strength=dose)], behaviour, [1.0], n_tokens=6, n_random=3)
    assert not found.is_above_controls


def test_by_default_controls_stand_beside_the_dose_of_the_best_harmonic_mean(model, behaviour, steer):
    found = evaluate(model, steer, behaviour, [0.2, 1], n_tokens=4, n_random=1)
    best = max((one for one in found.of("steered") if one.dose > 0), key=lambda one: one.harmonic.mean)
    assert found.control_dose == best.dose == found.of("random")[0].dose


def test_plain_generation_is_the_zero_of_everything(found, model, behaviour):
    plain = found.plain
    assert plain.d_nll.per_prompt == plain.gain[0].per_prompt == (0, 0, 0) and set(plain.fluency.per_prompt) <= {0.0, 1.0}
    assert [one.plain for one in found.examples] == model.generate(list(behaviour.test), max_new_tokens=6)
    assert found.at(0) is plain and plain.gain[1].mean == 0


def test_numbers_of_a_condition_follow_from_its_texts(found, model, behaviour, steer):
    one = found.control
    with op.gates(model, *steer(found.control_dose)):
        texts = model.generate(list(behaviour.test), max_new_tokens=6)
    assert [example.steered for example in found.examples] == texts
    assert one.concept[0].per_prompt == MARY.score(texts, behaviour.test)
    assert one.concept[0].mean == pytest.approx(sum(one.concept[0].per_prompt) / 3)
    less = [a - b for a, b in zip(one.nll.per_prompt, found.plain.nll.per_prompt, strict=True)]
    assert one.d_nll.per_prompt == pytest.approx(less)
    assert one.concept[0].interval.low <= one.concept[0].mean <= one.concept[0].interval.high


def test_side_effects_are_of_every_dose(found):
    assert [one.dose for one in found.side_effects] == [one.dose for one in found.of("steered")]
    assert all(one.kl.mean > 0 for one in found.side_effects)
    assert len({one.plain_perplexity for one in found.side_effects}) == 1


def test_judges_are_stamped_and_their_agreement_told(found, model, behaviour, steer):
    assert all("unvalidated judge" in judge.stamp for judge in found.judges)
    assert found.agreement is None or -1 <= found.agreement <= 1
    good = JudgeQuality("Mary", 1.0, 1.0, 64, 30, model.weights_hash)
    other = evaluate(model, steer, behaviour, [1], qualities=[good], n_tokens=3, n_random=1)
    assert other.judges[0].is_validated and not other.judges[1].is_validated


def test_undefined_relevance_is_said_and_not_counted(found):
    assert (found.plain.relevance is None) == bool(found.notes)


def test_a_record_of_it_can_be_written_and_read(found, tmp_path):
    write_named(tmp_path / "evaluation.json", found)
    assert read_named(tmp_path / "evaluation.json", {"Evaluation": Evaluation}) == found


def test_the_same_seed_gives_the_same_numbers(model, behaviour, steer):
    one, same = (evaluate(model, steer, behaviour, [1], n_tokens=3, n_random=2, random_seed=4) for _ in range(2))
    assert one.conditions == same.conditions and one.side_effects == same.side_effects


@pytest.mark.parametrize("dose", [math.nan, math.inf])
def test_a_dose_that_is_no_number_is_refused(model, behaviour, steer, dose):
    with pytest.raises(BadOption, match=f"dose {dose}: it is not a finite number"):
        evaluate(model, steer, behaviour, [0.1, dose])
    with pytest.raises(BadOption, match="not a finite number"):
        evaluate(model, steer, behaviour, [0.1], control_dose=dose)


@pytest.mark.parametrize("doses", [[], [0], [-1, 0]])
def test_doses_without_a_positive_one_are_refused(model, behaviour, steer, doses):
    with pytest.raises(BadOption, match="controls need a positive dose"):
        evaluate(model, steer, behaviour, doses)


def test_gates_without_an_equal_need_controls_of_your_own(model, behaviour):
    def steer(dose):
        return [op.scale(SITE, 1 + float(dose))]

    with pytest.raises(BadOption, match="neither adds a vector nor projects one out"):
        evaluate(model, steer, behaviour, [0.5], n_tokens=2)
    other = Control("random", "another site", lambda dose: [op.scale("blocks.0.resid_post", 1 + float(dose))])
    found = evaluate(model, steer, behaviour, [0.5], n_tokens=2, controls=[other])
    assert [one.name for one in found.of("random")] == ["another site"]


def test_errors_of_gates_come_through(model, behaviour):
    with pytest.raises(GateError):
        evaluate(model, lambda dose: [op.add(SITE, torch.ones(3))], behaviour, [1.0], n_tokens=2)


def test_conditional_gates_leave_traces(model, behaviour, steer):
    weight = torch.randn(model.table.d_model, generator=torch.Generator().manual_seed(0))

    def gated(dose):
        (gate,) = steer(dose)
        return [replace(gate, openness=op.probe("blocks.0.resid_post", weight))]

    found = evaluate(model, gated, behaviour, [1.0], n_tokens=3, n_random=1)
    assert found.traces and all(len(one.tokens) == len(one.openness) > one.n_prompt for one in found.traces)
    assert all(0 <= value <= 1 for one in found.traces for value in one.openness if value is not None)


def test_nobody_beats_what_is_on_the_pareto_front_and_somebody_all_others():
    assert pareto([(0.0, 0.0), (1.0, 1.0), (0.5, 2.0), (0.5, 0.5)]) == (0, 1, 3) and pareto([]) == ()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_pareto_front_is_what_its_definition_says(points):
    floats = [(float(gain), float(cost)) for gain, cost in points]
    front = {floats[ix] for ix in pareto(floats)}
    assert max(floats, key=lambda one: (one[0], -one[1])) in front
    for gain, cost in set(floats) - front:
        assert any(g >= gain and c <= cost for g, c in front)
