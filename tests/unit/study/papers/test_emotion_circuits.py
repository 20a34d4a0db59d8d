"""Emotion circuits: what is exchanged, what is best, and titles that say the medians."""

from dataclasses import replace

import torch

from optrode.claims import Line, Measured
from optrode.study.kit.feeling_circuits import Centred
from optrode.study.papers.emotion_circuits import STUDY, _alike, _best, _shuffled, _Told
from optrode.study.papers.emotion_circuits_figures import HELD
from optrode.study.study import Outcome


def test_feelings_are_exchanged_within_scenarios():
    found = torch.arange(24.0).reshape(4, 6, 1)
    moved = _shuffled(found, torch.Generator().manual_seed(0))
    assert torch.equal(moved.sort(1).values, found)
    assert not torch.equal(moved, found)


def test_the_best_is_both_felt_and_well_told():
    assert _best({"weak": _Told(0.2, 1.0, 0.2), "right": _Told(0.7, 0.7, 0.5), "strong": _Told(1.0, 0.1, 0.1)}) == "right"


def test_directions_are_compared_with_the_same_and_with_the_next():
    one = Centred({"site": torch.eye(6)}, {}, {})
    assert _alike(one, one, "site", 0) == 1.0
    assert _alike(one, one, "site", 1) == 0.0


def outcome(seed, felt):
    bars = Line("", tuple(float(ix) for ix in range(len(HELD))), (0.5,) * len(HELD))
    lines = {f"test.{axis}": bars for axis in ("felt", "well", "both")}
    lines["off"] = Line("", (0.0, 1.0, 2.0), (1.0, 0.2, 0.9))
    lines |= {f"{key}.{axis}": bars for key in ("circuit", "steering", "random") for axis in ("felt", "well")}
    measured = {claim.key: Measured(0.5, 0.25) for claim in STUDY.claims} | {"E3": Measured(felt, 0.3)}
    return Outcome(measured, lines, random_seed=seed)


def test_titles_say_the_medians():
    figures = STUDY.figures([outcome(0, 0.7), outcome(1, 0.9), outcome(2, 0.8)])
    said = "the circuit gives 80% of the stories the asked feeling, random parts 30%"
    assert said in figures.charts[0].title
    assert "in 50% of the stories" in figures.charts[2].title
    assert len(figures.charts[1].lines) == 9


def test_titles_can_be_made_of_a_seed_that_measured_nothing():
    one = outcome(0, 0.7)
    assert STUDY.figures([replace(one, measured=dict.fromkeys(one.measured, Measured(float("nan"), float("nan"))))])
