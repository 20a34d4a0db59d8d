"""Nested logits are their formula, and learn when the reference says they do."""

import math

import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.study.kit.nested import nested, summed


def written_out(beta, alpha, xi, n, wide, c):
    q1 = math.exp(beta) / (math.exp(beta) + c)
    q2 = math.exp(alpha * q1) / (math.exp(alpha * q1) + n - 1)
    right = math.exp(xi * q2)
    return -math.log(right / (right + (n - 1) * math.exp(xi * (1 - q2) / (n - 1)) + wide - n))


@pytest.mark.parametrize("c", [None, 3.0])
def test_the_loss_is_the_formula(c):
    sizes = [(8, 32), (4, 4), (2, 9)]
    gains = torch.tensor([[0.3, -1.0, 2.0], [1.5, 2.0, 0.7], [0.0, 3.0, -1.0]])
    found = nested(sizes, gains, c)()
    expected = [written_out(*g.tolist(), *size, c or size[0]) for g, size in zip(gains, sizes, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("wide", [8, 9, 32])
def test_at_nothing_the_loss_is_ln_l_and_its_slope_vanishes_only_for_l_equal_n(wide):
    model = nested([(8, wide)], torch.zeros(1, 3))
    loss = summed(model, None)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(wide))
    slope = model.module.gains.grad[0]
    assert float(slope[2]) == pytest.approx(-(1 / 8 - 1 / wide), abs=1e-12)
    assert slope[:2].abs().max() == 0


def test_steps_to_learn_are_those_of_the_reference():
    sizes, start = [(8, 32), (8, 16), (8, 9), (8, 8), (8, 8)], torch.zeros(5, 3)
    start[4, 2] = 0.5
    look = lambda model: {str(ix): float(one) for ix, one in enumerate(model())}  # noqa: E731
    plan = op.train.Plan(
        "nested", lambda _: nested(sizes, start), lambda *_: None, summed, 300, op.train.sgd(0.5),
        measures={"loss": op.train.Measure(look)}, measure_at=op.train.evenly(300, 1),
    )  # fmt: skip
    measures = op.train.fit(plan).run.measures
    assert [measures[f"loss.{ix}"].first_below(0.2) for ix in range(5)] == [107, 129, 245, None, 276]
    assert measures["loss.3"].values[-1] == pytest.approx(math.log(8))


def test_sizes_that_are_no_contexts_are_refused():
    with pytest.raises(BadOption, match="at least 2 pairs"):
        nested([(8, 4)], torch.zeros(1, 3))
    with pytest.raises(BadOption, match="there are 2 runs"):
        nested([(8, 9), (8, 9)], torch.zeros(1, 3))
