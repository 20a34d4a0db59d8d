"""Steering the embedded language model, on prompts that nothing was chosen on; bounds from a pilot that was not ours.

On a first set of test requests three bounds were missed at what validation chose within .25 nats (block 14, dose .2:
VADER +.46, but .36 nats, .05 at its lowest, random vectors .11). Since then validation may cost .15 nats, so that test
requests cost less than .3, and the test requests are new ones.

Control: five random vectors of equal norm, shuffled labels, the opposite sign, asking in words, and, of the gate, its
prompts' length and words. What is chosen is chosen on validation requests.
"""

import pytest

import optrode as op
from optrode.control import demos
from optrode.control.choosing import choose
from optrode.control.conditional import fit_condition
from optrode.control.direction import directions
from optrode.control.evaluating import evaluate
from optrode.control.gate_quality import benefits_of, quality

pytestmark = pytest.mark.slow

N_TOKENS = 24
LAYERS, DOSES = (14, 20), (0.1, 0.2)


@pytest.fixture(scope="module")
def model():
    return op.load("smollm2")


@pytest.fixture(scope="module")
def chosen(model):
    """The direction and dose of the best mood on validation requests, among those that cost at most .15 nats."""
    behaviour = demos.sentiment()
    sites = [f"blocks.{layer}.resid_post" for layer in LAYERS]
    found = directions(model, behaviour.contrast(model), sites)
    asked, judge = behaviour.prompts(model, behaviour.validation), behaviour.judges[0]
    choice = choose(
        model, found, asked, lambda texts: judge.score(texts, texts), doses=DOSES, max_d_nll=0.15, n_tokens=N_TOKENS
    )
    return next(one for one in found if one.site in choice.best.name), choice.best.dose


@pytest.fixture(scope="module")
def evaluation(model, chosen):
    direction, dose = chosen
    return evaluate(
        model, lambda dose: [direction.gate(dose)], demos.sentiment(), [-2 * dose, dose], control_dose=dose,
        qualities=demos.sentiment_qualities(), n_tokens=N_TOKENS,
    )  # fmt: skip


class TestSentiment:
    def test_it_moves_the_mood(self, evaluation):
        assert evaluation.n_prompts == 64 and evaluation.control.gain[0].mean >= 0.15

    def test_it_costs_little(self, evaluation):
        assert evaluation.control.d_nll.mean <= 0.30

    def test_the_opposite_sign_makes_it_gloomy(self, evaluation):
        assert min(one.concept[0].mean for one in evaluation.of("steered") if one.dose < 0) <= 0

    def test_random_vectors_of_equal_norm_move_it_less(self, evaluation):
        found = [abs(one.gain[0].mean) for one in evaluation.of("random")]
        assert len(found) == 5 and max(found) < evaluation.control.gain[0].mean

    def test_random_vectors_of_equal_norm_move_it_hardly(self, evaluation):
        assert sum(abs(one.gain[0].mean) for one in evaluation.of("random")) / 5 <= 0.10

    def test_asking_in_words_stands_in_the_table(self, evaluation):
        happy, sad = evaluation.of("prompt")
        assert happy.gain[0].mean > 0 > sad.gain[0].mean

    def test_the_second_judge_agrees_on_the_direction(self, evaluation):
        assert evaluation.control.gain[1].interval.low > 0

    def test_the_first_judge_is_validated_on_this_model_and_the_second_stays_stamped(self, evaluation):
        vader, classifier = evaluation.judges
        assert vader.is_validated and "balanced accuracy 0.80" in classifier.stamp


class TestConditional:
    @pytest.fixture(scope="class")
    @classmethod
    def condition(cls, model):
        return fit_condition(model, demos.cooking())

    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, model, condition):
        return quality(model, "probe", condition.score, demos.cooking())

    def test_the_gate_tells_requests_apart_in_domain(self, found):
        gate = found.tests[0].scores[0]
        assert gate.auc >= 0.95 and gate.fpr_5 <= 0.15

    def test_length_tells_nothing_here_and_words_stand_beside(self, found):
        length = found.tests[0].scores[1]
        assert abs(length.auc - 0.5) <= 0.2 and found.tests[0].scores[2].name == "bag of words"

    def test_gating_keeps_the_effect_and_spares_the_rest(self, model, condition, chosen):
        direction, _ = chosen
        open_, gated = (
            lambda dose, more=more: [direction.gate(dose, **more)] for more in ({}, {"openness": condition.openness()})
        )
        found = benefits_of(
            model, demos.sentiment(), demos.cooking(), open_, gated, condition.opened, 0.2, n_tokens=N_TOKENS
        )
        benefits = {one.name: one for one in found}
        assert benefits["gated"].kept >= 0.85 and benefits["gated"].removed >= 0.70
        assert benefits["gated"].removed > benefits["random at equal open rate"].removed
