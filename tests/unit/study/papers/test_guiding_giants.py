"""Guiding giants: what its arms are made of, and that every claim and figure is measured."""

from dataclasses import replace

import pytest
import torch

from optrode.control.controller import controller_for
from optrode.study.papers import guiding_giants as study
from optrode.study.papers.guiding_giants_figures import ARMS
from optrode.study.study import Setting, run


@pytest.fixture(name="lab", scope="module")
def _lab():
    return study._Lab(Setting(3, "quick"))


def test_a_quick_run_measures_every_claim_and_draws_every_figure():
    found, figures = run(study.STUDY, profile="quick", random_seeds=(4,))
    missing = {one.claim for one in found.findings if one.values[0] is None or one.controls[0] is None}
    assert missing <= {"W4"}, "an untrained network may refuse nothing, of which no share can be kept"
    assert len(figures.charts) == 4 and len(figures.charts[0].lines) == len(ARMS)


def test_random_directions_keep_the_norm_and_stand_where_the_right_ones_do_not(lab):
    assert lab.is_right[-1] and sum(lab.is_right) == 2
    for one, right, keep in zip(lab.mixed, lab.right, lab.is_right, strict=True):
        assert one.site == right.site and one.typical == right.typical and float(one.vector.norm()) == pytest.approx(1)
        assert torch.equal(one.vector, right.vector) is keep
        assert keep or abs(float(one.vector @ right.vector)) < 0.6


def test_test_requests_are_half_triggers_and_some_of_the_others_are_forbidden(lab):
    rows = lab.requests(9, 200)
    assert int(rows.is_trigger.sum()) == 100 and not bool((rows.is_trigger & rows.is_forbidden).any())
    assert 20 <= int(rows.is_forbidden.sum()) <= 50


def test_the_objective_counts_gates_in_parts_of_the_dose(lab):
    shut = lab.judged([one.gate(0.0) for one in lab.mixed], 0.3)
    assert shut.harm == pytest.approx(0, abs=1e-6) and shut.cost == 0 and shut.total == pytest.approx(shut.effect, abs=1e-6)
    half, whole = (lab.judged([one.gate(dose) for one in lab.mixed], 0.3) for dose in (0.15, 0.3))
    assert whole.cost == pytest.approx(1) and half.cost == pytest.approx(0.5)
    assert replace(whole, harm=0.0, effect=1.0).total == pytest.approx(1.1)


def test_gates_at_random_are_as_far_open_as_the_controllers(lab):
    ours = lab.trained(lab.mixed, 0.3)
    drawn = lab.judged(study._at_random(lab, ours, 0.3), 0.3)
    assert drawn.cost == pytest.approx(lab.judged(ours.gates, 0.3).cost, rel=0.1)


def test_the_published_loss_gives_layer_weights_no_gradient_and_its_score_is_no_amount(lab):
    made, slope = study.published_controller(lab)
    assert slope == 0.0 and made.amount == "linear"
    (held,) = study._published_gates(lab, 0.3)
    assert str(held.site.whole) == study.READ


def test_a_controller_in_the_pass_itself_reaches_the_last_layer_only(lab):
    made = controller_for(lab.model, lab.mixed, study.READ)
    assert study._reach(lab, made, 0.3) == study.Measured(1.0, 0.25)
