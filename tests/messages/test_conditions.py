"""Conditions, rules, rows and requests that cannot be: one clear message each, and the model as before."""

import pytest
import torch

import optrode as op
from optrode.errors import BadGate, BadOption, GateNotFinite, GateShape, UnknownSite
from tests.messages.conftest import PROMPT, refused

SITE = "blocks.1.resid_post"


def weight(model, **changes):
    return torch.ones(changes.get("width", model.table.d_model))


def held(model, **options):
    with op.gates(model, op.zero(options.pop("site", SITE), **options)):
        model(PROMPT)


class TestConditions:
    def test_what_comes_later_opens_nothing_in_the_same_pass(self, model):
        later = op.probe("blocks.2.resid_post", weight(model), above=0.5)
        with refused(
            BadGate, "opened by blocks.2.resid_post", "it comes later", "op.first_pass()", 'read="previous"', by=model
        ):
            held(model, openness=later)

    def test_of_many_sites_it_says_how_many_would_work(self, model):
        probe = op.probe(SITE, weight(model), above=0.5)
        with refused(BadGate, "only 2 of its 3 sites", "blocks.0.resid_post is over before", by=model):
            held(model, site="blocks.*.resid_post", openness=probe)

    def test_a_probe_of_another_width(self, model):
        with refused(GateShape, "made for 5 features", f"{model.table.d_model} are read", "fit it at that site", by=model):
            held(model, openness=op.probe("blocks.0.resid_post", weight(model, width=5)))

    def test_a_site_that_is_not_there(self, model):
        with refused(UnknownSite, "layer 9 is out of range", by=model):
            held(model, openness=op.probe("blocks.9.resid_post", weight(model)))

    def test_words_that_are_none(self, model):
        with refused(BadGate, "read='promt'", "Nearest: prompt"):
            op.probe(SITE, weight(model), read="promt")
        with refused(BadGate, "a reading is one site", "name one layer"):
            op.probe("blocks.*.resid_post", weight(model))
        with refused(BadGate, "a condition reads all positions", 'read="prompt"'):
            op.probe(f"{SITE}[pos=-1]", weight(model))

    def test_numbers_that_are_none(self, model):
        with refused(GateNotFinite, "threshold nan", "give a finite one"):
            op.probe(SITE, weight(model), above=float("nan"))
        with refused(GateNotFinite, "its weight holds NaN"):
            op.probe(SITE, weight(model) * torch.nan)
        with refused(BadGate, "its direction is zero"):
            op.cosine(SITE, 0 * weight(model))

    def test_a_prompt_that_was_processed_before(self, model):
        ids = model.batch(PROMPT).token_ids
        cache = model.module(ids, use_cache=True).past_key_values
        gate = op.zero(SITE, openness=op.probe("blocks.0.resid_post", weight(model), above=0.5, read="prompt"))
        with refused(BadGate, "the prompt was processed before the gate was held", by=model), op.gates(model, gate):
            model.module(ids[:, :1], past_key_values=cache)

    def test_trials_know_no_pass_of_their_own(self, model):
        gate = op.zero(SITE, openness=op.probe("blocks.0.resid_post", weight(model), above=0.5))
        with refused(BadGate, "a trial shares passes with others", "hold the gate with op.gates"):
            op.Trial((gate,), "clean", "logit_gap")


class TestRows:
    def test_a_row_that_the_batch_does_not_have(self, model):
        with refused(BadGate, "gate at row 4", "the batch has 1 row(s)", by=model):
            held(model, rows=[4])

    @pytest.mark.parametrize("rows", [[], [-1], [0, 0]])
    def test_rows_that_are_none(self, rows):
        with refused(BadGate, "rows are different numbers from 0"):
            op.zero(SITE, rows=rows)

    def test_doses_for_another_batch(self, model):
        with refused(BadGate, "values for 2 rows, and the pass has 1", by=model):
            held(model, openness=op.by_row([0.5, 1.0]))


class TestTraces:
    def test_a_trace_that_nobody_kept(self, model):
        with op.gates(model, op.zero(SITE)) as keeper:
            model(PROMPT)
            with refused(BadOption, "it was not kept", "op.gates(..., trace=True)"):
                _ = keeper.trace

    def test_a_trace_of_other_rows(self, model):
        with op.gates(model, op.zero(SITE), trace=True) as keeper:
            model(PROMPT)
        with refused(BadOption, "replay of 2 row(s)", "the trace has 1", by=model):
            op.replay(model, [op.zero(SITE)], [[1, 2], [3]], keeper.trace)
