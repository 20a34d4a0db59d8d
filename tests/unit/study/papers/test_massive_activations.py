"""What is particular to the study of massive activations."""

import math

import numpy as np
import pytest
import torch

from optrode.study.kit import text
from optrode.study.kit.curve_fits import fitted
from optrode.study.papers.massive_activations import Look, formula_errors, share_of_classes
from optrode.train.growth import MassiveLaw
from optrode.train.streams import massive_ratios

STEPS = np.arange(0, 1601, 80).astype(float)


def curve(decay, amplitude=5.0):
    law = MassiveLaw(amplitude, decay, 0.01, 1.2, 20.0)
    return fitted("planted", STEPS, law.at(STEPS) + 0.01 * np.random.default_rng(0).normal(size=len(STEPS)))


@pytest.fixture(scope="module")
def early():
    return curve(1.0)


@pytest.fixture(scope="module")
def late():
    return curve(0.02)


def test_a_look_measures_ratios_places_and_sinks():
    model = text.network(1, n_layers=2, d_model=8, d_mlp=8, n_heads=2, n_ctx=12, init="torch")
    rows = text.draw(torch.arange(1, 60), 4, 9, torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.module.embed.weight[text.BOS] = 1000.0
        found = Look(rows)(model)
    assert [found["ratio0"], found["ratio1"]] == pytest.approx(massive_ratios(model, {"input_ids": rows}))
    assert found["first"] == 1.0 and found["size"] == pytest.approx(1000.0, rel=0.01)
    assert 0 < found["sink"] < 1 and 0 < found["second"] < 1


def test_the_formula_of_the_peak_is_right_and_without_lamberts_function_wrong(early, late):
    right, wrong = formula_errors([early, late])
    assert right < 1e-5 and wrong > 0.05
    assert math.isnan(formula_errors([curve(0.0)])[0])


def test_layers_are_classed_by_where_they_peak(early, late):
    assert share_of_classes([early, late, late, early], 4) == 1.0
    assert share_of_classes([early, late, late, early], 4, is_swapped=True) == 0.0
    assert share_of_classes([late, late, late, early, early, late, late, late], 4) == 0.75
