"""Sites that come by once per step of a recurrent network: positions are steps, counted from either end."""

import pytest
import torch
from torch import nn

import optrode as op
from optrode.errors import GateNotFired, NotRecorded, SiteUnavailable
from optrode.model.source import from_source
from optrode.nn.recurrent import RecurrentSpec, as_model, build

SITE = "module:cells.0.hidden.out"
INPUTS = torch.randn(3, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["rnn", "lstm", "gru"])
def model(request):
    return as_model(build(RecurrentSpec(request.param, 2, 5, 3, n_layers=2), 1, torch.float64))


def held(model, gate):
    """What the site had at each step, with a gate there."""
    with op.gates(model, gate), op.recording(model, SITE) as found:
        model.module(INPUTS)
    return found[SITE]


@pytest.mark.parametrize(
    ("selector", "steps"),
    [("3", [3]), ("-1", [5]), ("-2:", [4, 5]), ("1:3", [1, 2]), (":-4", [0, 1]), ("0|-1", [0, 5]), ("*", list(range(6)))],
)
def test_a_gate_acts_at_the_steps_that_it_selects(model, selector, steps):
    after = held(model, op.clamp(f"{SITE}[pos={selector}]", 0.5))
    assert [step for step in range(6) if (after[:, step] == 0.5).all()] == steps
    assert not (after == 0.5)[:, [step for step in range(6) if step not in steps]].any()


@pytest.mark.parametrize(("selector", "steps"), [("3", [3]), ("-1", [5]), ("-3:-1", [3, 4]), ("4|0", [0, 4]), ("2:3", [2])])
def test_a_recording_keeps_the_axis_of_steps(model, selector, steps):
    whole = op.record(model, INPUTS, SITE)[SITE]
    name = f"{SITE}[feature=1:4, pos={selector}]"
    part = op.record(model, INPUTS, name)[name]
    assert whole.shape == (3, 6, 5) and part.shape == (3, len(steps), 3)
    assert torch.equal(part, whole[:, steps, 1:4])


def test_one_step_of_several_passes_joins_along_rows(model):
    name = f"{SITE}[pos=-1]"
    with op.recording(model, [name, SITE]) as found:
        model.module(INPUTS[:1])
        model.module(INPUTS[1:])
    assert found[name].shape == (3, 1, 5) and torch.equal(found[name][:, 0], found[SITE][:, 5])


def test_a_step_that_never_comes_is_told(model):
    with pytest.raises(GateNotFired, match="came by 6 times, never with a token at pos=9"):
        held(model, op.zero(f"{SITE}[pos=9]"))
    with pytest.raises(NotRecorded, match="nothing was read there"):
        op.record(model, INPUTS, f"{SITE}[pos=-7]")


def test_a_recording_is_patched_step_by_step(model):
    other = op.record(model, INPUTS.flip(0), SITE)
    after = held(model, op.patch(f"{SITE}[pos=2|-1]", other))
    assert torch.equal(after[:, [2, 5]], other[SITE][:, [2, 5]]) and not torch.equal(after[:, 3], other[SITE][:, 3])


class Steps(nn.Module):
    """A network that is not told how many steps it makes."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(3, 3)

    def forward(self, x):
        for _ in range(4):
            x = self.cell(x).tanh()
        return x


class TestUnknownNumberOfSteps:
    @pytest.mark.parametrize("selector", ["-1", "-2:", "0|-1", ":-1"])
    def test_counting_from_the_end_is_refused(self, selector):
        model = from_source(Steps())
        for act in (lambda name: op.record(model, torch.randn(2, 3), name), lambda name: self.hold(model, name)):
            with pytest.raises(SiteUnavailable, match=r"do not say how many steps there are.*count steps from the first"):
                act(f"module:cell.out[pos={selector}]")

    @staticmethod
    def hold(model, name):
        with op.gates(model, op.zero(name)):
            model.module(torch.randn(2, 3))

    def test_counting_from_the_start_works(self):
        model, x = from_source(Steps()), torch.randn(2, 3)
        whole = op.record(model, x, "module:cell.out")["module:cell.out"]
        part = op.record(model, x, "module:cell.out[pos=1:3]")["module:cell.out[pos=1:3]"]
        assert whole.shape == (2, 4, 3) and torch.equal(part, whole[:, 1:3])


class Masked(nn.Module):
    """Token ids with padding, read step by step."""

    def __init__(self):
        super().__init__()
        self.embed, self.cell = nn.Embedding(9, 4), nn.Linear(4, 4)

    def forward(self, input_ids, attention_mask=None):
        state = torch.zeros(len(input_ids), 4)
        for x in self.embed(input_ids).unbind(1):
            state = self.cell(x + state)
        return state


def test_rows_of_unequal_length_have_a_last_step_each():
    model, tokens = from_source(Masked()), torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    site = "module:cell.out"
    with op.gates(model, op.clamp(f"{site}[pos=-1]", 9.0)), op.recording(model, site) as found:
        model.module(input_ids=tokens, attention_mask=mask)
    assert (found[site] == 9).all(-1).nonzero().tolist() == [[0, 4], [1, 2]]
    name = f"{site}[pos=-1]"
    with pytest.raises(NotRecorded, match="rows end at different steps"), op.recording(model, name):
        model.module(input_ids=tokens, attention_mask=mask)
