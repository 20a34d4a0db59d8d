"""Plans: steps to look at, thresholds, and what is refused before anything is trained."""

import math

import pytest

import optrode as op
from optrode.errors import BadOption
from optrode.train import Stop, evenly, log_spaced
from tests.unit.train.plans import plan


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ((1,), (0, 1)),
        ((8, 1), (0, 1, 2, 4, 8)),
        ((10, 1), (0, 1, 2, 4, 8, 10)),
        ((8, 2), (0, 1, 2, 3, 4, 6, 8)),
        ((100, 1, 10), (0, 10, 20, 40, 80, 100)),
        ((5, 1, 10), (0, 5)),
    ],
)
def test_steps_that_double(asked, steps):
    assert log_spaced(*asked) == steps


@pytest.mark.parametrize(("asked", "steps"), [((6, 2), (0, 2, 4, 6)), ((7, 3), (0, 3, 6, 7)), ((2, 5), (0, 2))])
def test_even_steps(asked, steps):
    assert evenly(*asked) == steps


def test_thresholds_are_exclusive_and_wait_for_their_measure():
    below, above = Stop("loss", below=0.5), Stop("acc", above=0.9)
    assert [below.is_reached({"loss": value}) for value in (0.4, 0.5, math.nan)] == [True, False, False]
    assert [above.is_reached(values) for values in ({"acc": 0.91}, {"acc": 0.9}, {"loss": 5.0})] == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_steps": 0}, "n_steps=0"),
        ({"n_parts": 0}, "n_parts=0"),
        ({"random_seed": -1}, "random_seed=-1"),
        ({"random_seed": 2**31}, "from 0 to 2"),
        ({"stop": Stop("acc", above=0.9)}, "waits for the measure 'acc', which is not taken.*Nearest: loss, size"),
        ({"keep_when": (Stop("siz", above=0.9),)}, "waits for the measure 'siz'"),
        ({"gates": (op.zero("embed", when=op.when(measure="acc", above=0.9)),)}, "waits for the measure 'acc'"),
        ({"gates": (op.zero("embed", when=op.when(6)),)}, "would never open: there are 6 steps"),
    ],
)
def test_plans_that_cannot_work_are_refused(changes, words):
    with pytest.raises(BadOption, match=words):
        plan(**changes)


def test_what_waits_for_the_loss_or_for_a_part_of_a_measure_is_let_through():
    plan(stop=Stop("loss", below=0.1), keep_when=(Stop("size.mean", above=1.0),))
    plan(gates=(op.zero("embed", when=op.when(5)), op.zero("embed", when=op.when(9, measure="loss", below=1.0))))


def test_other_fields_of_the_same_plan():
    first = plan()
    assert first.but(n_steps=9).n_steps == 9 and first.n_steps == 6
    with pytest.raises(BadOption):
        first.but(n_steps=0)
