"""Answers under gates, and doses of a given divergence."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import optrode as op
from optrode.control.contrast import Contrast
from optrode.control.direction import directions
from optrode.control.dose import iso_kl, solve
from optrode.control.rollout import roll_out
from optrode.errors import BadOption, DoseNotFound, GateNotFinite
from optrode.model.source import from_source
from optrode.model.tiny import tiny

SITE = "blocks.1.resid_post"
PROMPTS = [(5, 9, 2, 7), (8, 1), (4, 30, 22, 17, 3, 11), (40, 41, 2)]


@pytest.fixture(scope="module")
def model():
    return from_source(tiny("llama").double())


@pytest.fixture(scope="module")
def found(model):
    return directions(model, Contrast(tuple(PROMPTS[:2]), tuple(PROMPTS[2:])), SITE, held_out=0.0)[0]


class TestRollOut:
    def test_answers_and_likelihoods_are_those_of_each_prompt_alone(self, model):
        rolled = roll_out(model, PROMPTS, (), 6)
        for prompt, answer, nll, kl in zip(PROMPTS, rolled.answers, rolled.nll, rolled.kl, strict=True):
            ids = torch.tensor([[*prompt, *answer]])
            with torch.no_grad():
                logits = model.module(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            assert tuple(logits.argmax(-1).tolist()) == answer
            torch.testing.assert_close(nll, -logits.gather(-1, torch.tensor(answer)[:, None])[:, 0])
            torch.testing.assert_close(kl, torch.zeros_like(kl), atol=1e-10, rtol=0)
        assert math.isclose(rolled.mean_nll, float(torch.cat(rolled.nll).mean()))

    def test_divergences_are_those_of_a_pass_over_the_whole_text(self, model, found):
        gate = found.gate(0.8)
        rolled = roll_out(model, PROMPTS, [gate], 6)
        for prompt, answer, kl in zip(PROMPTS, rolled.answers, rolled.kl, strict=True):
            ids = torch.tensor([[*prompt, *answer]])
            with torch.no_grad():
                plain = model.module(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                with op.gates(model, gate):
                    gated = model.module(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            torch.testing.assert_close(kl, (gated.exp() * (gated - plain)).sum(-1), rtol=1e-5, atol=1e-7)
            assert tuple(gated.argmax(-1).tolist()) == answer

    def test_gates_on_generated_tokens_change_nothing_before_the_second(self, model, found):
        rolled = roll_out(model, PROMPTS, [found.gate(0.8, scope="generated")], 6)
        assert all(float(kl[0]) < 1e-12 < float(kl[1:].max()) for kl in rolled.kl)

    def test_an_answer_ends_with_the_token_that_ends_it(self):
        model = from_source(tiny("llama"))
        answer = roll_out(model, PROMPTS[1:2], (), 8).answers[0]
        model.module.generation_config.eos_token_id = answer[3]
        again = roll_out(model, PROMPTS, (), 8)
        assert again.answers[1] == answer[: answer.index(answer[3]) + 1] != answer[:1]
        assert [len(kl) for kl in again.kl] == [len(one) for one in again.answers] == [len(nll) for nll in again.nll]

    def test_nothing_to_continue_is_refused(self, model):
        with pytest.raises(BadOption, match="no sequence of prompts"):
            roll_out(model, [])
        with pytest.raises(BadOption, match="n_tokens"):
            roll_out(model, PROMPTS, (), 0)


class TestSolve:
    @given(
        factor=st.floats(0.1, 1e3), power=st.floats(1, 3), target=st.floats(0.1, 5), first=st.floats(0.05, 1)
    )
    @settings(max_examples=200, deadline=None)
    def test_power_laws_are_met_within_eight(self, factor, power, target, first):
        tried = solve(lambda dose: factor * dose**power, target, first=first)
        assert len(tried) <= 8 and abs(tried[-1][1] - target) <= 0.05 * target

    @given(ceiling=st.floats(1.2, 6), scale=st.floats(0.05, 5))
    @settings(max_examples=100, deadline=None)
    def test_so_are_laws_that_level_off(self, ceiling, scale):
        tried = solve(lambda dose: ceiling * (1 - math.exp(-((dose / scale) ** 2))), 1.0)
        assert abs(tried[-1][1] - 1) <= 0.05

    def test_what_cannot_be_met_is_refused_with_what_was_closest(self):
        with pytest.raises(DoseNotFound, match="all below it.*0.5 nats"):
            solve(lambda dose: 0.5, 1.0)
        with pytest.raises(DoseNotFound, match="none below it"):
            solve(lambda dose: 2.0, 1.0)
        with pytest.raises(DoseNotFound, match="0.5 nats at dose .*, 2 nats at dose"):
            solve(lambda dose: 0.5 if dose < 0.7 else 2.0, 1.0)
        with pytest.raises(DoseNotFound, match="8 doses"):
            solve(lambda dose: 0.0, 1.0)
        with pytest.raises(DoseNotFound, match="check the gates"):
            solve(lambda dose: math.nan, 1.0)

    @pytest.mark.parametrize("bad", [{"target": 0.0}, {"target": math.nan}, {"first": -1.0}, {"tolerance": 0.0}])
    def test_numbers_that_make_no_sense_are_refused(self, bad):
        with pytest.raises(BadOption, match=next(iter(bad))):
            solve(lambda dose: dose, **({"target": 1.0} | bad))
        with pytest.raises(BadOption, match="max_evaluations"):
            solve(lambda dose: dose, 1.0, max_evaluations=0)


class TestIsoKL:
    @pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
    @pytest.mark.parametrize("target", [0.5, 1.0])
    def test_it_is_met_within_five_percent_and_eight_evaluations(self, family, target):
        model = from_source(tiny(family))
        one = directions(model, Contrast(tuple(PROMPTS[:2]), tuple(PROMPTS[2:])), SITE, held_out=0.0)[0]
        iso = iso_kl(model, lambda dose: [one.gate(dose)], PROMPTS, target)
        assert iso.n_evaluations == len(iso.tried) <= 8 and abs(iso.kl - target) <= 0.05 * target
        rolled = roll_out(model, PROMPTS, [one.gate(iso.dose)], 20)
        assert math.isclose(float(torch.cat(rolled.kl).quantile(0.95)), iso.kl, rel_tol=1e-9)

    def test_the_other_side_has_a_dose_of_its_own(self, model, found):
        iso = iso_kl(model, lambda dose: [found.gate(dose)], PROMPTS, first=-0.2)
        assert iso.dose < 0 and all(dose < 0 for dose, _ in iso.tried) and abs(iso.kl - 1) <= 0.05

    def test_gates_that_change_nothing_have_no_dose(self, model):
        with pytest.raises(DoseNotFound, match="all below it"):
            iso_kl(model, lambda dose: [op.scale(SITE, 1.0, strength=dose)], PROMPTS, n_tokens=3, max_evaluations=3)

    def test_bad_options_are_refused(self, model, found):
        with pytest.raises(BadOption, match="quantile"):
            iso_kl(model, lambda dose: [found.gate(dose)], PROMPTS, quantile=95.0)
        with pytest.raises(GateNotFinite):
            iso_kl(model, lambda dose: [found.gate(math.inf)], PROMPTS)
