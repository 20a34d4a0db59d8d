"""What the study makes of probes and predictions."""

import pytest
import torch

from optrode.study.kit import regression as task
from optrode.study.papers.icl_representations import LOWER, SPEC, UPPER, _Exam, arrival, learnt, named
from optrode.train.records import Series


def test_arrival_is_between_start_and_peak():
    assert arrival([0.0, 0.2, 0.8, 1.0, 0.9], 0.5) == pytest.approx(1.5)
    assert arrival([0.0, 0.2, 0.8, 1.0, 0.9], 0.9) == pytest.approx(2.5)
    assert arrival([0.5, 1.0, 1.0], 0.5) == pytest.approx(0.5)


def test_a_curve_that_never_rises_has_come_at_once():
    assert arrival([0.4, 0.3, 0.4], 0.9) == 0


def test_ridge_misses_nothing_and_a_constant_everything():
    phi = task.draw_representation(4, 2, torch.Generator().manual_seed(0))
    rows = task.draw_prompts(phi, 200, 12, 0.1, torch.Generator().manual_seed(1))
    exam = _Exam(rows, task.ridge(rows.features, rows.ys, 0.01))
    assert exam.missed(exam.best) == pytest.approx(0)
    assert exam.missed(torch.zeros_like(rows.ys)) == pytest.approx(1)
    assert 0 < exam.missed(0.9 * exam.best) < 0.1


def test_upper_and_lower_blocks_are_as_many_and_end_and_start_the_network():
    assert len(UPPER) == len(LOWER)
    assert max(UPPER) == SPEC.n_layers - 1 and min(LOWER) == 0
    assert named(UPPER) == "blocks 3 to 5"


def test_half_is_missed_between_two_measurements_or_never():
    assert 10 < learnt(Series((0, 10, 20), (1.0, 0.6, 0.4))) < 20
    assert learnt(Series((0, 10, 20), (1.0, 0.9, 0.8))) == 20
