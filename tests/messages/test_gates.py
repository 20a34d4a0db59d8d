"""What a user is told about gates that do not fit, cannot act, or have nothing to put in."""

import pytest
import torch
from torch import nn

import optrode as op
from optrode.errors import (
    BadGate,
    GateDevice,
    GateDtype,
    GateNotFinite,
    GateNotFired,
    GateShape,
    NotRecorded,
)
from optrode.model.source import from_source
from tests.messages.conftest import PROMPT, refused, state_of

RESID, Z = "blocks.1.resid_pre", "blocks.1.attn.z"
NAN = float("nan")


def held(model, *gates):
    with op.gates(model, *gates):
        model(PROMPT)


@pytest.mark.parametrize(
    ("gate", "parts"),
    [
        (op.add(RESID, torch.zeros(7)), ("add tensor (7,)", "shape (7,)", "last axis has length 48")),
        (op.add(RESID, torch.zeros(5, 48)), ("shape (5, 48)", "(1, 14, 48) (batch 1, pos 14, feature 48)", "broadcasts")),
        (op.patch(RESID, torch.zeros(2, 14, 48)), ("shape (2, 14, 48)", "batch 1, pos 14, feature 48")),
        (op.patch("blocks.1.mlp.post", torch.zeros(3)), ("shape (3,)", "feature 56")),
        (op.clamp(Z, torch.zeros(9)), ("shape (9,)", "length 8")),
        (op.project_out(RESID, torch.ones(3)), ("shape (3,)", "length 48")),
        (op.project_out(RESID, torch.ones(2, 2, 48)), ("shape (2, 2, 48)", "feature 48")),
        (op.affine(RESID, torch.zeros(48, 7)), ("shape (48, 7)",)),
        (op.affine(RESID, torch.zeros(7, 48)), ("shape (7, 48)",)),
        (op.affine(RESID, torch.zeros(48, 48), torch.zeros(2)), ("shape (2,)", "length 48")),
    ],
)
def test_wrong_shape(model, gate, parts):
    with refused(GateShape, *parts, by=model):
        held(model, gate)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_wrong_dtype(model, dtype):
    with refused(GateDtype, f"its value is {dtype}, the model torch.float32", "value.to(torch.float32)", by=model):
        held(model, op.add(RESID, torch.zeros(48, dtype=dtype)))


def test_wrong_device(model):
    away = torch.zeros(48, device=torch.device("meta"))
    for gate in (op.add(RESID, away), op.patch(RESID, away), op.project_out(RESID, away)):
        with refused(GateDevice, "its value is on meta, the model on cpu", 'value.to("cpu")', by=model):
            held(model, gate)


def test_values_that_are_no_numbers(model):
    value = torch.zeros(48)
    value[5] = NAN
    with refused(GateNotFinite, f"patch from tensor (48,) at {RESID}", "1 of 48", "first at (5,)", by=model):
        held(model, op.patch(RESID, value))
    recording = op.record(model, PROMPT, RESID)
    recording[RESID][0, 3, 7] = torch.inf
    with refused(GateNotFinite, "patch from a recording", "first at (0, 3, 7)", by=model):
        held(model, op.patch(RESID, recording))


@pytest.mark.parametrize(
    "make",
    [
        lambda: op.clamp(Z, NAN), lambda: op.clamp(Z, low=NAN), lambda: op.clamp(Z, high=NAN),
        lambda: op.scale(Z, torch.inf), lambda: op.zero(Z, strength=NAN),
    ],
)  # fmt: skip
def test_options_that_are_no_numbers(make):
    with refused(GateNotFinite, f"at {Z}", "is not a finite number"):
        make()


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: op.clamp(Z), ("either a value, or bounds",)),
        (lambda: op.clamp(Z, 1.0, low=0.0), ("either a value, or bounds",)),
        (lambda: op.clamp(Z, low=2.0, high=1.0), ("low=2 is above high=1", "swap them")),
        (lambda: op.zero(Z, each="layers"), ("each='layers'", "Nearest: layer")),
        (lambda: op.zero(Z, each=("head", "head")), ("an axis is named twice", "Nearest: head")),
        (lambda: op.zero(Z, strenght=2.0), ("option strenght=", "no such option", "Nearest: strength")),
        (lambda: op.patch(Z, "cleam"), ("source 'cleam'", "Nearest: clean", "a Recording or a tensor")),
        (lambda: op.project_out(RESID, torch.zeros(48)), ("1 direction(s) span only 0",)),
        (lambda: op.project_out(RESID, torch.ones(2, 48)), ("2 direction(s) span only 1", "leave out")),
    ],
)
def test_gates_that_make_no_sense(make, parts):
    with refused(BadGate, *parts):
        make()


def test_worlds_outside_a_task(model):
    for gate, world in ((op.patch(Z), "clean"), (op.resample(Z), "corrupt"), (op.mean(Z), "clean")):
        with refused(BadGate, f"world {world!r} at {Z}", "only within a task", "op.patch(site, op.record(", by=model):
            held(model, gate)


def test_recordings_that_do_not_fit(model):
    other = op.record(model, PROMPT, "blocks.2.attn.z")
    with refused(NotRecorded, f"recording of {Z}", "it holds 1 site.", "Nearest: blocks.2.attn.z", by=model):
        held(model, op.patch(Z, other))
    two_rows = op.record(model, [PROMPT, PROMPT], Z)
    with refused(GateShape, "shape (2, 14, 6, 8)", "batch 1, pos 14, head 6, feature 8", by=model):
        held(model, op.patch(Z, two_rows))


class Half(nn.Module):
    """A module with a part that its forward leaves out."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x)


def test_gates_that_never_fired(model):
    with refused(GateNotFired, "zero", "never ran", "inside the context", by=model), op.gates(model, op.zero(Z)):
        pass
    with refused(GateNotFired, "came by once, never with a token at pos=99", "prompts' lengths", by=model):
        held(model, op.zero(f"{Z}[pos=99]"))
    with refused(GateNotFired, "came by once, never with a generated token", "and the scope", by=model):
        held(model, op.zero(Z, scope="generated"))
    with refused(GateNotFired, "never with a generated", by=model), op.gates(model, op.zero(Z, scope="generated")):
        model.generate(PROMPT, max_new_tokens=1)  # one token is read off the prompt; none is fed back
    own = from_source(Half())
    unused = op.zero("module:unused.out")
    with refused(GateNotFired, "unused.out: the model ran, but not through this", by=own), op.gates(own, unused):
        own(torch.zeros(1, 3))


def test_one_gate_of_several_that_does_not_fit_places_none(model):
    with refused(GateShape, by=model), op.gates(model, op.zero(Z), op.add(RESID, torch.zeros(7))):
        raise AssertionError("the block was entered")


def test_errors_of_the_user_keep_their_type(model):
    before = state_of(model.module)
    held_gates = op.gates(model, op.zero(Z), op.zero("blocks.*.attn.pattern"))
    for context in (held_gates, op.recording(model, "blocks.*.resid_mid")):
        with pytest.raises(LookupError, match="^my own$"), context:
            raise LookupError("my own")
        assert state_of(model.module) == before


def test_errors_inside_the_model_keep_their_type(model):
    before = state_of(model.module)
    with pytest.raises(ZeroDivisionError), op.gates(model, op.zero("blocks.*.attn.pattern"), op.zero("blocks.*.resid_mid")):
        handle = model.module.model.layers[2].register_forward_pre_hook(lambda *_: 1 / 0)
        try:
            model(PROMPT)
        finally:
            handle.remove()
    assert state_of(model.module) == before
