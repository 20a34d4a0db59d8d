"""The state on disk: it comes back to the bit, a writer killed in between leaves the one before, and a wrong one is told."""

import pytest
import torch
from torch import nn

import optrode.train.state as state
from optrode.errors import BadFile, BadOption
from optrode.records import read_json
from tests.unit.train.plans import batch, equal, make, make_llama, next_token

OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, centered=True),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
    "fused": lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True),
}


def step(model, optimizer, number):
    optimizer.zero_grad()
    next_token(model, batch(number, torch.Generator().manual_seed(number))).backward()
    optimizer.step()


def begun(name, made_by=make):
    model = made_by(0)
    optimizer = OPTIMIZERS[name](model.module.parameters())
    model.module.train()
    return model, optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("made_by", [make, make_llama])
def test_model_optimiser_and_random_numbers_go_on_as_they_were(tmp_path, name, made_by):
    model, optimizer = begun(name, made_by)
    for number in range(2):
        step(model, optimizer, number)
    numbers = torch.get_rng_state()
    state.save_state(tmp_path, state.capture(model.module, optimizer, 2, {"a": [1, None, "x"]}))
    other, later = begun(name, made_by)
    step(other, later, 7)
    torch.rand(9)
    held = state.load_state(tmp_path)
    state.restore_into(held, other.module, later)
    assert torch.equal(torch.get_rng_state(), numbers) and held.step == 2 and held.notes["a"] == [1, None, "x"]
    for one, two in ((model, optimizer), (other, later)):
        torch.manual_seed(5)  # dropout
        step(one, two, 3)
    assert equal(dict(model.module.state_dict()), dict(other.module.state_dict()))


def test_buffers_are_kept(tmp_path):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    net(torch.randn(5, 2))
    optimizer = torch.optim.SGD(net.parameters())
    state.save_state(tmp_path, state.capture(net, optimizer, 0, {}))
    fresh = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state.restore_into(state.load_state(tmp_path), fresh, torch.optim.SGD(fresh.parameters()))
    assert equal(dict(net.state_dict()), dict(fresh.state_dict())) and fresh[1].num_batches_tracked == 1


def test_options_that_the_caller_changed_win_over_those_of_the_state(tmp_path):
    model, optimizer = begun("adamw")
    made = state.options_of(optimizer)
    optimizer.param_groups[0]["lr"] = 0.5  # by a schedule, say
    state.save_state(tmp_path, state.capture(model.module, optimizer, 0, {}, made))
    held = state.load_state(tmp_path)
    for changes, expected in (({"lr": 0.01}, 0.5), ({"lr": 0.002}, 0.002)):
        later = torch.optim.AdamW(model.module.parameters(), amsgrad=True, weight_decay=0.3, betas=(0.5, 0.6), **changes)
        state.restore_into(held, model.module, later)
        (group,) = later.param_groups
        assert (group["lr"], group["weight_decay"], group["betas"]) == (expected, 0.3, (0.5, 0.6))


def test_a_writer_killed_between_both_files_leaves_the_state_before(tmp_path, monkeypatch):
    model, optimizer = begun("adamw")
    state.save_state(tmp_path, state.capture(model.module, optimizer, 1, {}))
    before = dict(state.load_state(tmp_path).tensors)
    step(model, optimizer, 0)

    def killed(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as held, pytest.raises(KeyboardInterrupt):
        held.setattr(state, "write_text", killed)
        state.save_state(tmp_path, state.capture(model.module, optimizer, 2, {}))
    assert state.load_state(tmp_path).step == 1 and equal(dict(state.load_state(tmp_path).tensors), before)
    state.save_state(tmp_path, state.capture(model.module, optimizer, 3, {}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-3.safetensors", "state.json"]


def test_shared_and_odd_tensors_are_written_and_read(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    given = {"a": whole, "b": whole, "c": whole.T, "d": whole[1:, ::2], "e": torch.tensor(3), "f": torch.ones(2).bfloat16()}
    state.write_tensors(tmp_path / "x.safetensors", given)
    assert equal(state.read_tensors(tmp_path / "x.safetensors"), given)


def test_no_state_is_none_and_a_wrong_one_is_told(tmp_path):
    assert state.load_state(tmp_path) is None
    (tmp_path / "state.json").write_text("[1]")
    with pytest.raises(BadFile, match="not the state of a training run"):
        state.load_state(tmp_path)
    (tmp_path / "state.json").write_text('{"step": 1, "file": "state-1.safetensors", "notes": {}}')
    (tmp_path / "state-2.safetensors").write_bytes(b"")
    with pytest.raises(BadFile, match="state-1.safetensors: no such file. Nearest: state-2.safetensors"):
        state.load_state(tmp_path)


def test_weights_of_another_architecture_change_nothing():
    module = make(0).module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    good = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    missing = {name: tensor for name, tensor in good.items() if name != "unembed.weight"}
    for wrong, words in (
        (missing, "unembed.weight is not in it"),
        (good | {"unembed.weigth": torch.zeros(1)}, "unembed.weigth is in it, and not in the model.*Nearest: unembed"),
        (good | {"unembed.weight": torch.zeros(7, 9)}, r"unembed.weight is \[7, 9\], the model's is \[7, 8\]"),
    ):
        with pytest.raises(BadFile, match=words):
            state.load_weights(module, wrong)
        assert equal(dict(module.state_dict()), before)


def test_the_first_difference_is_named():
    state.check_same("a run", {"name": "a", "old": 1}, {"name": "a", "values": "x"})
    with pytest.raises(BadOption, match="n_parts=2, and the plan has 3"):
        state.check_same("a run", {"name": "a", "n_parts": 2}, {"name": "a", "n_parts": 3})


def test_nothing_is_pickled(tmp_path):
    model, optimizer = begun("adamw")
    step(model, optimizer, 0)
    state.save_state(tmp_path, state.capture(model.module, optimizer, 1, {}))
    data = (tmp_path / "state-1.safetensors").read_bytes()
    assert data[8:9] == b"{" and not data.startswith((b"PK", b"\x80"))
    assert read_json(tmp_path / "state.json")["notes"]["optimizer"]["groups"][0]["lr"] == 0.01
