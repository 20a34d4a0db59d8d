"""The toy of three factors: its gradient descent, and what holding factors does to it."""

import pytest
import torch

from optrode.study.kit import rank_one
from optrode.study.kit.curves import falls_below
from optrode.train.loop import fit


def test_training_is_gradient_descent_at_rate_one():
    draw = rank_one.draw(0, 4)
    found = fit(draw.plan("free", n_steps=3)).run.loss.values
    factors = [draw.start[name].clone().requires_grad_() for name in "abc"]
    truth, losses = rank_one.outer(draw.true), []
    for _ in range(3):
        loss = 0.5 * ((torch.einsum("i,j,k->ijk", *factors) - truth) ** 2).mean()
        losses.append(float(loss.detach()))
        slopes = torch.autograd.grad(loss, factors)
        factors = [(f - g).detach().requires_grad_() for f, g in zip(factors, slopes, strict=True)]
    assert found == pytest.approx(losses, rel=1e-5)


def test_factors_held_at_the_truth_take_the_wait_away():
    draw, steps = rank_one.draw(0), {}
    for name, gates in (("none", ()), ("c", draw.held("c")), ("bc", draw.held("bc"))):
        steps[name] = falls_below(fit(draw.plan(name, gates, 300)).run.loss, 0.05 * draw.first_loss())
    assert steps["bc"] < steps["c"] < steps["none"]
    assert steps["none"] == pytest.approx(233.4, abs=0.5)


def test_factors_held_elsewhere_never_let_it_learn():
    draw = rank_one.draw(1)
    run = fit(draw.plan("wrong", draw.held("bc", at="other"), 60)).run
    assert run.loss.values[-1] > 0.3 * run.loss.values[0]
    assert draw.other["b"].norm() == pytest.approx(float(draw.true["b"].norm()), rel=1e-5)
