"""Gates are scored by definitions, with thresholds from validation, beside length, words, and a gate that knows all."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import optrode as op
from optrode.control import demos
from optrode.control.behaviours import Behaviour, Exchange, Trigger
from optrode.control.gate_quality import auc, benefits_of, open_at, quality, threshold_at
from optrode.control.judges import Share
from optrode.control.records import GateQuality
from optrode.errors import BadOption
from optrode.records import read_named, write_named
from tests.words import worded

SCORES = st.lists(st.integers(0, 8).map(float), min_size=1, max_size=30)
SITE = "blocks.1.resid_post"


@pytest.fixture(name="model", scope="module")
def _model():
    return worded()


@given(SCORES, SCORES)
def test_auc_is_that_of_scikit_learn(high, low):
    found = auc(np.array(high), np.array(low))
    assert found == pytest.approx(roc_auc_score([1] * len(high) + [0] * len(low), high + low))
    assert found + auc(np.array(low), np.array(high)) == pytest.approx(1)


@given(SCORES, st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.99]))
def test_no_more_than_the_rate_exceeds_the_threshold_and_a_lower_one_would_not_do(scores, rate):
    values = np.array(scores)
    threshold = threshold_at(values, rate)
    assert (values > threshold).mean() <= rate + 1e-9
    lower = values[values < threshold]
    if len(lower):
        assert (values > lower.max()).mean() > rate


def oracle(asked):
    trigger = demos.cooking()
    target = {one for part in (trigger.validation, trigger.test, trigger.contrast) for one in part[0]}
    return [float(one in target) for one in asked]


def test_a_perfect_gate_is_above_length_and_words(model):
    found = quality(model, "an oracle", oracle, demos.cooking())
    assert [test.name for test in found.tests] == ["in domain", "same words, other meaning"]
    for test in found.tests:
        gate, length, words = test.scores
        assert (gate.auc, gate.tpr_1, gate.tpr_5, gate.fpr_1, gate.fpr_5) == (1, 1, 1, 0, 0)
        assert gate.auc_interval.low == 1 and [one.name for one in (length, words)] == ["prompt length", "bag of words"]
        assert words.auc < 1 and test.is_above_words == (test.above_words.low > 0)
    easy, hard = found.tests
    assert easy.scores[1].auc == pytest.approx(0.5, abs=0.2), "lengths are alike"
    assert hard.scores[2].auc < easy.scores[2].auc, "words alone fail where they mean something else"
    assert hard.is_above_words


def test_a_gate_of_words_is_not_above_words(model):
    words = ("cook", "bake", "sauce", "boil", "recipe", "fry", "oven", "dough", "rice", "soup")

    def score(asked):
        return [float(sum(word in one.lower() for word in words)) for one in asked]

    found = quality(model, "keywords", score, demos.cooking())
    assert not any(test.is_above_words for test in found.tests)


def test_thresholds_are_those_of_validation(model):
    trigger = demos.cooking()
    shifted = dict.fromkeys((*trigger.test[0], *trigger.test[1]), 1.0)
    found = quality(model, "shifted", lambda asked: [shifted.get(one, 0.0) for one in asked], trigger)
    gate = found.tests[0].scores[0]
    assert gate.auc == 0.5 and gate.fpr_1 == gate.fpr_5 == 1, "a threshold that does not carry over is seen to fail"


@pytest.mark.parametrize("scores", [lambda asked: [0.0], lambda asked: [float("nan")] * len(asked)])
def test_scores_that_do_not_fit_are_refused(model, scores):
    with pytest.raises(BadOption, match="scores of a gate"):
        quality(model, "bad", scores, demos.cooking())


def test_the_record_can_be_written_and_read(model, tmp_path):
    found = quality(model, "an oracle", oracle, demos.cooking())
    write_named(tmp_path / "gate.json", found)
    assert read_named(tmp_path / "gate.json", {"GateQuality": GateQuality}) == found


class TestBenefit:
    TRIGGER = Trigger(
        "When", "when the prompt begins with When", (("When",), ("So",)), (("When a",), ("So a",)),
        (("When Mary", "When John", "When the"), ("So Mary", "The city", "So he")), ((), ()),
    )  # fmt: skip

    @pytest.fixture(name="found", scope="class")
    @classmethod
    def _found(cls, model):
        row = model.module.lm_head.weight[model.to_single_token(" Mary")].detach()
        vector = 40 * row / row.norm()
        judge = Share("Mary", "share of Mary", ("mary",))
        sides = (Exchange("", "The kind"),), (Exchange("", "The year"),)
        behaviour = Behaviour("Mary", "Mary", *sides, ("a",), ("b",), (judge,), instruction="Name Mary.")

        def opened(asked):
            return [one.startswith("When") for one in asked]

        def steer(dose):
            return [op.add(SITE, vector, strength=float(dose), scope="generated")]

        def gated(dose):
            rows = torch.tensor([float(x) for x in opened((*cls.TRIGGER.test[0], *cls.TRIGGER.test[1]))])
            return [op.add(SITE, vector, strength=float(dose), scope="generated", openness=op.by_row(rows))]

        return {one.name: one for one in benefits_of(model, behaviour, cls.TRIGGER, steer, gated, opened, 1, n_tokens=5)}

    def test_always_on_keeps_all_and_spares_nothing(self, found):
        always = found["always on"]
        assert (always.open_target, always.open_benign, always.kept, always.removed) == (1, 1, 1, 0)
        assert always.effect.mean > 0.2 and always.damage.mean > 0

    def test_a_perfect_gate_is_as_good_as_the_oracle(self, found):
        gated, oracle = found["gated"], found["oracle"]
        assert (gated.effect, gated.damage) == (oracle.effect, oracle.damage)
        assert gated.kept == gated.removed == 1 and (gated.open_target, gated.open_benign) == (1, 0)

    def test_a_random_gate_keeps_and_spares_by_its_open_rate(self, found):
        random = found["random at equal open rate"]
        assert random.open_target == random.open_benign == 0.5
        assert random.kept == pytest.approx(0.5) and random.removed == pytest.approx(0.5)


def test_which_prompts_a_latched_gate_opens_at(model):
    embed = model.module.get_input_embeddings().weight.detach()
    condition = op.cosine("blocks.0.resid_pre", embed[model.to_single_token(" Mary")], above=0.9, read="prompt", pool="last")
    gate = op.add(SITE, torch.ones(model.table.d_model), openness=condition)
    assert open_at(model, [gate], ["When Mary", "When John"]) == (True, False)
