"""Control vectors for reasoning: how doses are chosen and compared."""

from dataclasses import replace

import pytest
import torch

from optrode.claims import Line, Measured
from optrode.study.kit import careless
from optrode.study.kit.careless import Score
from optrode.study.papers import repe_reasoning as study
from optrode.study.papers.repe_reasoning import DOSES, STEPS, STUDY, Swept
from optrode.study.papers.repe_reasoning_figures import ANSWERS, CONTROLS, PLAIN, READINGS
from optrode.study.study import Outcome, Setting


def swept(chosen, accuracy, kl=lambda dose: dose**2):
    return Swept(chosen, {dose: Score(accuracy(dose), 0.5, 0.25, 1.0, kl(dose)) for dose in DOSES})


def test_gains_are_at_the_chosen_dose_and_signs_between_opposite_ones():
    one = swept(0.5, lambda dose: 0.6 + 0.1 * dose)
    assert one.gain == pytest.approx(0.05) and one.sign(0.5) == pytest.approx(0.1)


@pytest.mark.parametrize(("kl", "dose"), [(0.25, 0.5), (0.3, 0.5), (0.02, 0.125), (9.0, 1.0), (0.0, 0.125)])
def test_the_dose_of_nearest_kl_is_found(kl, dose):
    one = swept(0.5, lambda dose: dose)
    assert one.at_kl(kl).accuracy == dose


def test_doses_are_the_same_both_ways():
    assert tuple(sorted((*STEPS, 0.0, *(-dose for dose in STEPS)))) == DOSES


@pytest.fixture
def lab():
    lab = study._Lab(Setting(3, "quick"), 0.45)
    vars(lab)["model"] = careless.network(3, d_model=16)
    return lab


def test_a_vector_is_swept_with_the_model_left_alone_in_the_middle(lab):
    one = lab.sweep(torch.arange(16.0))
    assert set(one.scores) == set(DOSES) and one.chosen in STEPS
    assert one.scores[0.0].kl == 0 and all(one.scores[dose].kl > 0 for dose in DOSES if dose)
    flipped = lab.sweep(-2 * torch.arange(16.0))
    assert flipped.scores[-0.5].accuracy == one.scores[0.5].accuracy
    assert flipped.scores[-0.5].kl == pytest.approx(one.scores[0.5].kl, rel=1e-3)




def test_items_to_read_to_choose_and_to_test_with_differ(lab):
    assert not torch.equal(lab.test.ids, lab.validation.ids) and not torch.equal(lab.read.ids, lab.validation.ids)


def test_claims_compare_a_reading_with_its_control():
    up, flat = swept(1.0, lambda dose: 0.6 + 0.1 * dose), swept(1.0, lambda dose: 0.6)
    names = ("R-C", "PCA-C", "R", "solved - failed")
    controls = ("failed - strings", "half 1", "half 2", "strings", "strings, PCA", "shuffled 0", "random 0", "random 1")
    found = study._readings(dict.fromkeys(names, up) | dict.fromkeys(controls, flat))
    for key in ("V1", "V3", "V4", "V5", "V10"):
        assert found[key].value == pytest.approx(0.1) and found[key].control == 0
    assert found["V2"].value == pytest.approx(0.2)
    assert set(found) | {"V7", "V8", "V9"} == {claim.key for claim in STUDY.claims}


def outcome(seed, gain):
    shown = {("two writers", name) for name in (*READINGS, *CONTROLS)} | {("careful writers", name) for name in PLAIN}
    parts = ("accuracy", "kl", "entropy", *ANSWERS)
    lines = {f"{world}.{name}.{part}": Line(name, (0.0, 1.0), (0.0, 0.5)) for world, name in shown for part in parts}
    measured = {claim.key: Measured(0.5, 0.25) for claim in STUDY.claims} | {"V1": Measured(gain, 0.0)}
    return Outcome(measured, lines, random_seed=seed)


def test_titles_say_the_medians():
    figures = STUDY.figures([outcome(0, 0.07), outcome(1, 0.09), outcome(2, 0.08)])
    assert figures.charts[0].title.startswith("Accuracy changes by +0.080")


def test_titles_can_be_made_of_a_seed_that_measured_nothing():
    one = outcome(0, 0.7)
    nothing = dict.fromkeys(one.measured, Measured(float("nan"), float("nan")))
    assert STUDY.figures([replace(one, measured=nothing)]).charts
