"""Training with written steps: arms differ in what they should, and layers are counted as said."""

from dataclasses import replace

import pytest
import torch

from optrode.claims import Line, Map, Measured
from optrode.study.papers.cot_training import ARMS, STUDY, TESTS, _depth, _Lab
from optrode.study.study import Outcome, Setting


@pytest.fixture
def lab():
    return _Lab(Setting(3, "quick"))


def rows(lessons):
    both = torch.cat([lessons.inputs, lessons.wanted], 1)[lessons.n_facts :]
    return [tuple(row) for row in both.tolist()]


def test_fewer_questions_are_those_whose_answers_are_not_noisy(lab):
    whole, fewer, noisy = (rows(lab.lessons(arm)) for arm in ("steps", "fewer questions", "answers noisy"))
    assert len(whole) == len(noisy) > len(fewer)
    kept = iter(fewer)
    left_out = [ix for ix, row in enumerate(whole) if row not in set(fewer)]
    assert len(left_out) == len(whole) - len(list(kept))
    changed = [ix for ix, (row, other) in enumerate(zip(whole, noisy, strict=True)) if row != other]
    assert set(changed) <= set(left_out)
    assert changed


def test_every_arm_learns_the_same_facts(lab):
    whole = lab.lessons("steps")
    for arm in ARMS:
        other = lab.lessons(arm)
        assert torch.equal(other.inputs[: other.n_facts], whole.inputs[: whole.n_facts])
        assert torch.equal(other.wanted[: other.n_facts], whole.wanted[: whole.n_facts])


def test_without_steps_no_bridge_is_seen(lab):
    learned = lab.lessons("no steps")
    assert bool((learned.inputs[learned.n_facts :, 3] == lab.world.vocab - 1).all())


def test_layers_count_until_the_bridge_can_be_read_where_it_can_be_read_best():
    assert float(_depth(torch.tensor([[0.0, 0.5], [1.0, 0.0], [0.2, 1.0]]))) == 0.5
    assert float(_depth(torch.zeros(3, 2))) == 3.0


def outcome(seed, ood):
    lines = {f"{arm}.{test}": Line(arm, (0.0, 128.0), (0.0, 0.5)) for arm in ARMS for test in TESTS}
    lines["moved"] = Line("moved", (0.0, 1.0), (1.0, 0.0))
    read = Map("", "stream", "position", ("after layer 1",), ("r1", "r2"), ((0.2 * seed, 0.5),))
    measured = {claim.key: Measured(0.5, 0.25) for claim in STUDY.claims} | {"C1a": Measured(ood, 0.04)}
    return Outcome(measured, lines, {"steps": read, "no steps": read}, random_seed=seed)


def test_titles_say_the_medians():
    figures = STUDY.figures([outcome(0, 0.7), outcome(1, 0.9), outcome(2, 0.8)])
    assert figures.charts[0].title.startswith("With steps 80% of the questions out of distribution are answered, without 4%")
    assert figures.maps[0].cells == ((0.2, 0.5),)


def test_titles_can_be_made_of_a_seed_that_measured_nothing():
    one = outcome(0, 0.7)
    assert STUDY.figures([replace(one, measured=dict.fromkeys(one.measured, Measured(float("nan"), float("nan"))))])
