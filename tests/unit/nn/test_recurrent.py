"""Recurrent networks equal torch's own, and every gate and state can be read and held at every step."""

import pytest
import torch
from torch import nn

import optrode as op
from optrode.errors import BadOption, GateNotFired
from optrode.nn.recurrent import Recurrent, RecurrentSpec, as_model, build, from_torch

KINDS = {"rnn": nn.RNN, "relu": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


@pytest.fixture(params=KINDS, name="kind")
def _kind(request):
    return request.param


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torchs(kind, n_layers, has_bias=True, sizes=(3, 5, 2)):
    options = {"nonlinearity": "relu"} if kind == "relu" else {}
    network = KINDS[kind](*sizes[:2], num_layers=n_layers, batch_first=True, bias=has_bias, dtype=torch.float64, **options)
    return network, nn.Linear(*sizes[1:], bias=has_bias, dtype=torch.float64)


def make(kind, n_layers=1, **options):
    return build(RecurrentSpec(kind, 3, 5, 2, n_layers), 4, torch.float64, **options)


@pytest.mark.parametrize(
    ("n_layers", "has_bias", "sizes"), [(1, True, (3, 5, 2)), (2, True, (1, 7, 3)), (3, False, (4, 1, 1))]
)
def test_it_is_torchs_own_network(kind, n_layers, has_bias, sizes):
    network, readout = torchs(kind, n_layers, has_bias, sizes)
    module, inputs = from_torch(network, readout), numbers(2, 6, sizes[0])
    hidden, last = network(inputs)
    found = module(inputs)
    last_hidden, *last_cell = last if kind == "lstm" else (last,)
    close = {"atol": 1e-12, "rtol": 0}
    torch.testing.assert_close(found.logits, readout(hidden), **close)
    torch.testing.assert_close(found.states[:, :, -1, 0], hidden, **close)
    torch.testing.assert_close(found.states[:, -1, :, 0].transpose(0, 1), last_hidden, **close)
    assert found.states.shape == (2, 6, n_layers, 1 + len(last_cell), sizes[1])
    if last_cell:
        torch.testing.assert_close(found.states[:, -1, :, 1].transpose(0, 1), last_cell[0], **close)
    assert len(list(module.parameters())) == len(list(network.parameters())) + len(list(readout.parameters()))


def test_a_second_call_goes_on_where_the_first_ended(kind):
    module, inputs = make(kind, 2), numbers(2, 7, 3)
    whole, first = module(inputs), module(inputs[:, :4])
    second = module(inputs[:, 4:], first.states[:, -1])
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), whole.logits, atol=1e-14, rtol=0)
    torch.testing.assert_close(second.states, whole.states[:, 4:], atol=1e-14, rtol=0)


def test_gates_and_states_are_sites_at_every_step(kind):
    module, inputs = make(kind, 2), numbers(2, 6, 3)
    model, sites = as_model(module), module.config.sites
    held = op.record(model, inputs, list(sites), keep_logits=True)
    states = module(inputs).states
    assert all(held[site].shape == (2, 6, 2 if "readout" in site else 5) for site in sites) and len(held) == len(sites)
    for layer in (0, 1):
        assert torch.equal(held[f"module:cells.{layer}.hidden.out"], states[:, :, layer, 0])
    assert torch.equal(held["module:readout.out"], held.logits)
    third = op.record(model, inputs, "module:cells.1.hidden.out[pos=2:4, feature=1]")
    assert torch.equal(*third.values(), states[:, 2:4, 1, 0, 1:2])


@torch.no_grad()
def test_every_site_moves_what_comes_after(kind):
    module, inputs = make(kind, 2), numbers(1, 5, 3)
    model, plain = as_model(module), module(inputs).logits
    for site in module.config.sites[:-1]:
        with op.gates(model, op.add(f"{site}[pos=2]", torch.tensor(0.5, dtype=torch.float64))):
            moved = module(inputs).logits
        differs = (moved - plain).abs().amax((0, 2))
        assert differs[:2].tolist() == [0, 0] and float(differs[2:].min()) > 0, site
    assert torch.equal(module(inputs).logits, plain)


def test_an_lstm_whose_forget_gate_is_held_at_1_forgets_nothing():
    module, inputs = make("lstm"), numbers(2, 6, 3)
    model = as_model(module)
    sites = [f"module:cells.0.{name}.out" for name in ("input", "candidate", "cell", "output", "hidden")]
    with op.gates(model, op.clamp("module:cells.0.forget.out", 1.0)), op.recording(model, sites) as held:
        found = module(inputs)
    i, g, cell, o, hidden = (held[site] for site in sites)
    torch.testing.assert_close(cell, (i * g).cumsum(1), atol=1e-14, rtol=0)
    torch.testing.assert_close(hidden, o * cell.tanh(), atol=1e-14, rtol=0)
    torch.testing.assert_close(found.states[:, :, 0, 1], cell, atol=0, rtol=0)
    assert not torch.allclose(found.logits, module(inputs).logits)


def test_an_lstm_whose_gate_is_held_at_one_step_forgets_just_then():
    module, inputs = make("lstm"), numbers(2, 6, 3)
    model = as_model(module)
    sites = [f"module:cells.0.{name}.out" for name in ("input", "candidate", "cell")]
    with op.gates(model, op.zero("module:cells.0.forget.out[pos=3]")), op.recording(model, sites) as held:
        found = module(inputs)
    i, g, cell = (held[site] for site in sites)
    torch.testing.assert_close(cell[:, 3], i[:, 3] * g[:, 3], atol=1e-14, rtol=0)
    plain = module(inputs)
    assert torch.equal(found.logits[:, :3], plain.logits[:, :3])
    assert not torch.allclose(found.logits[:, 3:], plain.logits[:, 3:])


def test_a_gru_whose_update_gate_is_held_at_1_stays_where_it_is():
    module, inputs, start = make("gru"), numbers(2, 6, 3), numbers(2, 1, 1, 5, seed=1)
    with op.gates(as_model(module), op.clamp("module:cells.0.update.out", 1.0)):
        found = module(inputs, start)
    torch.testing.assert_close(found.states[:, :, 0, 0], start[:, 0].expand(2, 6, 5), atol=1e-14, rtol=0)


def test_units_of_a_relu_network_can_be_silenced():
    module, inputs = make("relu"), numbers(2, 6, 3)
    with op.gates(as_model(module), op.scale("module:cells.0.hidden.out[feature=1|4]", 0.0)):
        found = module(inputs).states[:, :, 0, 0]
    without = make("relu")
    with torch.no_grad():
        for part in (without.cells[0].read, without.cells[0].recur):
            part.weight[[1, 4]], part.bias[[1, 4]] = 0.0, 0.0
    torch.testing.assert_close(found, without(inputs).states[:, :, 0, 0], atol=1e-14, rtol=0)
    assert float(found.detach()[..., [0, 2, 3]].max()) > 0


def test_gates_hold_while_it_trains_and_gradients_reach_every_parameter(kind):
    module, inputs = make(kind, 2).train(), numbers(2, 6, 3)
    module(inputs).logits.square().mean().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in module.parameters())
    module.zero_grad()
    model = as_model(module)
    with op.gates(model, op.zero("module:cells.0.hidden.out")):
        module(inputs).logits.square().mean().backward()
    below, above = module.cells[0].read.weight.grad, module.cells[1].recur.weight.grad
    assert below is None and float(above.abs().max()) > 0


def test_the_state_is_a_function_that_can_be_differentiated(kind):
    module, inputs = make(kind), numbers(2, 1, 3)
    start = numbers(2, 1, module.config.n_parts, 5, seed=2).abs().requires_grad_()
    assert torch.autograd.gradcheck(lambda state: module(inputs, state).states, (start,))


def test_weights_are_drawn_as_torch_draws_them(kind):
    module = build(RecurrentSpec(kind, 9, 100, 2), 1)
    before = torch.random.get_rng_state()
    assert torch.equal(build(RecurrentSpec(kind, 9, 100, 2), 1).cells[0].read.weight, module.cells[0].read.weight)
    assert torch.equal(before, torch.random.get_rng_state())
    weight = module.cells[0].recur.weight.detach()
    assert float(weight.abs().max()) <= 0.1 and float(weight.std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)
    assert RecurrentSpec(**module.config.to_dict()) == module.config


def test_a_step_that_never_comes_is_reported():
    module = make("rnn")
    with (
        pytest.raises(GateNotFired, match="came by 4 times, never with a token at pos=4"),
        op.gates(as_model(module), op.zero("module:cells.0.hidden.out[pos=4]")),
    ):
        module(numbers(1, 4, 3))


@pytest.mark.parametrize(
    ("make_wrong", "message"),
    [
        (lambda: RecurrentSpec("ltsm", 1, 1, 1), r"kind='ltsm': no such recurrent network. Nearest: lstm"),
        (lambda: RecurrentSpec("gru", 1, 0, 1), "d_hidden=0: a recurrent network has at least one"),
        (lambda: build(RecurrentSpec("gru", 1, 1, 1), init="lecunn"), "init='lecunn': no such rule. Nearest: lecun"),
        (lambda: make("gru")(numbers(1, 2, 4)), r"inputs of shape \[1, 2, 4\]: the network reads \[batch, time, 3\]"),
        (lambda: make("gru")(numbers(1, 0, 3)), r"inputs of shape \[1, 0, 3\]: .* one step or more"),
        (lambda: make("lstm")(numbers(1, 2, 3), numbers(1, 1, 1, 5)), r"the network carries \[1, 1, 2, 5\]"),
        (lambda: from_torch(nn.LSTM(3, 5, bidirectional=True), nn.Linear(5, 2)), "torch's LSTM with bidirectional"),
        (lambda: from_torch(nn.LSTM(3, 5, bias=False), nn.Linear(5, 2)), "one of them has biases, the other has none"),
    ],
)
def test_what_cannot_be_is_refused(make_wrong, message):
    with pytest.raises(BadOption, match=message):
        make_wrong()


def test_weights_load_into_a_network_of_the_same_spec(kind):
    module, inputs = make(kind, 2), numbers(1, 3, 3)
    other = Recurrent(module.config).double()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(inputs).logits, module(inputs).logits)
    assert as_model(other).weights_hash == as_model(module).weights_hash
    assert repr(as_model(other)).startswith(f"Model('{kind}'")
