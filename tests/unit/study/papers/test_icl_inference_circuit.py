"""Cuts of the inference circuit find a mechanism that is planted, and nothing where nothing was learnt."""

import math

import torch

import optrode as op
from optrode.study.papers import icl_inference_circuit as study
from optrode.study.study import Setting


def bench(base=0.9):
    rows = study.TASK.draw(study.TASK.words(0), 16, torch.Generator().manual_seed(0))
    return study.Bench(study.TASK.network(0, study.N_LAYERS), rows, (), Setting(profile="quick"), base)


def test_what_is_left_is_a_share_of_accuracy_above_chance():
    assert bench(0.9).left(0.9) == 1 and bench(0.9).left(0.5) == 0 and math.isnan(bench(0.6).left(0.5))


def test_steps_are_arrows_of_the_layout_and_do_not_overlap():
    parts = [study.steps(step) for step in study.STEPS]
    assert int(torch.stack(parts).sum(0).max()) == 1
    assert int(study.steps("s>y", "x>y").sum()) == 6


def test_a_planted_step_is_found_by_its_cut_and_not_by_random_ones():
    """The answer is written to the logits when, and only when, attention from labels to the query's separator is there."""
    tested = bench()
    wanted = torch.nn.functional.one_hot(tested.rows.labels[:, -1], study.TASK.n_labels + study.TASK.n_classes).float()
    arrow = study.steps("y>sq")

    def answer(h, p):
        attention = p["blocks.2.attn.pattern"][:, :, arrow].sum()
        return wanted[:, None] * (1.0 if attention > 0 else -1.0)

    planted = study.Bench(
        tested.model, tested.rows, (op.compute("logits", answer, reads="blocks.2.attn.pattern"),), tested.setting, 1.0
    )
    assert planted.accuracy() == 1 and planted.random(arrow) == 1
    assert planted.accuracy(*study.masks.cut(arrow, study.LAYERS)) == 0
    assert planted.accuracy(*study.masks.cut(study.steps("s>y"), study.LAYERS)) == 1


def test_cuts_in_one_layer_and_in_all_are_told_apart():
    found = study._by_layer(bench())
    assert found.rows == study.STEPS and found.columns == ("layer 1", "layer 2", "layer 3", "all")
    assert all(0 <= cell <= 1 for row in found.cells for cell in row)
