"""What the study of abrupt learning reads off curves, and the patterns that it holds."""

import math

import pytest
import torch

from optrode.study.papers import data_dependence as study
from optrode.study.papers.data_dependence_figures import CLASSES, LAWS
from optrode.study.study import Setting
from optrode.train.records import Series


def test_a_pattern_to_hold_looks_at_own_items_or_at_those_before():
    own, before = study.looking(study.TASK, 0), study.looking(study.TASK, 1)
    for label in (1, 3, 5, 7):
        assert own[label].argmax() == label - 1
        assert before[label].argmax() == (label - 3 if label > 1 else label)
    assert bool((own.sum(1) == 1).all()) and bool((before.sum(1) == 1).all())
    assert all(own[item, item] == before[item, item] == 1 for item in (0, 2, 4, 6, 8))


def test_a_curve_passes_a_bound_between_two_measurements():
    rising = Series((0, 10, 20), (0.0, 0.4, 0.8))
    assert study.passes(rising, 0.5) == pytest.approx(12.5)
    assert study.passes(Series((0, 10), (2.0, 1.0)), 1.25, falling=True) == pytest.approx(7.5)
    assert math.isnan(study.passes(rising, 0.9)) and study.passes(rising, -1.0) == 0
    assert study.half_rise(rising) == pytest.approx(10)
    assert study.at(rising, 12.5) == 0.4 and math.isnan(study.at(rising, math.nan))


def test_a_spread_is_unknown_when_a_start_never_learnt():
    assert math.isnan(study._spread([1.0, math.nan, 3.0]))
    assert study._spread([float(x) for x in range(1, 12)]) == pytest.approx(5)


def test_the_balance_of_every_law_that_figures_show_is_measured(monkeypatch):
    seen = []

    def learns(self, name, n_steps, **law):
        seen.append(name)
        return {test: Series((0,), (0.5,)) for test in ("IC", "IWL", "IC2")}

    monkeypatch.setattr(study._Lab, "learns", learns)
    found = study._Found()
    study._data(study._Lab(Setting()), found)
    assert set(LAWS) <= set(seen) and {f"K={k}" for k in CLASSES} <= set(seen)
    assert all(found.measured[key].value == 0 for key in ("R2a", "R2b", "R2c"))


def test_patterns_of_checkpoints_are_means_over_rows_that_ask_for_the_shown_pair():
    lab_rows = study.TASK.draw(study.TASK.world(0), 64, torch.Generator().manual_seed(0))
    model = study.bursty.network(study.TASK)
    means = study._mean_patterns(model, lab_rows)
    assert [tuple(one.shape) for one in means] == [(9, 9), (9, 9)]
    assert torch.allclose(means[0].sum(1), torch.ones(9), atol=1e-5) and float(means[0].triu(1).abs().max()) == 0
