import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.nn.transformer import Spec, as_model, build

SPEC = Spec(n_layers=1, n_heads=2, d_model=8, vocab=5, n_ctx=4)


def train(model, folder, steps):
    optimizer = torch.optim.SGD(model.module.parameters(), lr=0.1)
    held = []
    for step in steps:
        loss = model.module(torch.tensor([[1, 2, 3]])).logits.square().mean()
        op.train.keep(model, folder, step, loss=float(loss.detach()), size=float(step))
        held.append({name: tensor.clone() for name, tensor in model.module.state_dict().items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return held


def test_a_loop_of_ones_own_is_kept_as_fit_keeps_it(tmp_path):
    model = as_model(build(SPEC))
    held = train(model, tmp_path / "own", range(4))
    trained = op.train.load_run(tmp_path / "own", model)
    assert trained.run.name == "own" and [one.step for one in trained.run.checkpoints] == [0, 1, 2, 3]
    assert trained.run.measures["size"].values == (0.0, 1.0, 2.0, 3.0) and len(trained.run.loss.values) == 4
    first = op.train.along(trained, lambda model: float(model.module.unembed.weight.detach().sum()))
    assert first == {step: pytest.approx(float(weights["unembed.weight"].sum())) for step, weights in enumerate(held)}
    assert len({one.weights_hash for one in trained.run.checkpoints}) == 4


def test_a_loop_that_goes_back_forgets_what_came_later(tmp_path):
    model = as_model(build(SPEC))
    train(model, tmp_path, range(4))
    train(model, tmp_path, range(2, 3))
    run = op.train.load_run(tmp_path, model).run
    assert [one.step for one in run.checkpoints] == [0, 1, 2] and run.measures["size"].steps == (0, 1, 2)


def test_a_measure_may_come_later(tmp_path):
    model = as_model(build(SPEC))
    op.train.keep(model, tmp_path, 0)
    run = op.train.keep(model, tmp_path, 5, late=2.0)
    assert run.measures["late"].steps == (5,) and run.loss.steps == ()


def test_negative_steps_are_refused(tmp_path):
    with pytest.raises(BadOption, match="steps count from 0"):
        op.train.keep(as_model(build(SPEC)), tmp_path, -1)
