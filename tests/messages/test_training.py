"""What a user is told about gates and schedules in training that cannot work, or never did."""

import json
import subprocess
import sys

import pytest
import torch

import optrode as op
from optrode.errors import BadGate, BadName, BadOption, GateNotFired, GateShape, SiteUnavailable, UnknownSite
from optrode.gate.held import Held
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench
from optrode.trial.trial import Trial
from tests.messages.conftest import PROMPT, refused
from tests.words import worded

Z, OUT = "blocks.1.attn.z", "blocks.1.mlp_out"


def held(model, *gates):
    with op.gates(model, *gates):
        model(PROMPT)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"start": -1}, ("start and ramp count steps from 0",)),
        ({"ramp": -2}, ("start and ramp count steps from 0",)),
        ({"every": 0}, ("every from 1",)),
        ({"start": 5, "until": 5}, ("ends at step 5, before it starts at 5", "an `until` above `start`")),
        ({"until": 0}, ("ends at step 0",)),
        ({"below": 0.5}, ("one measure and one bound", 'measure="loss"')),
        ({"measure": "loss"}, ("one measure and one bound",)),
        ({"measure": "loss", "below": 1.0, "above": 0.0}, ("one measure and one bound",)),
        ({"measure": "loss", "below": float("nan")}, ("not a finite number",)),
    ],
)
def test_schedules_that_make_no_sense(options, parts):
    with refused(BadGate, "schedule ", *parts):
        op.when(**options)


class TestNeverFired:
    """Every way in which a schedule can keep its gate closed, and what to do about it."""

    @pytest.mark.parametrize(
        ("when", "n_steps", "told", "parts"),
        [
            (op.when(3), 0, {}, ("(from step 3) never opened it in 0 step(s)", "count steps", "optimizer=optimizer")),
            (op.when(3), 2, {}, ("never opened it in 2 step(s)", "train on, or start it earlier")),
            (op.when(measure="loss", below=1.0), 2, {}, ("waits for a measure that nobody told", "held.tell(loss=value)")),
            (op.when(measure="loss", below=1.0), 2, {"loss": 1.5}, ("once loss is below 1", "loss came to 1.5", "train on")),
            (op.when(measure="acc", above=0.9), 2, {"acc": 0.5}, ("once acc is above 0.9", "acc came to 0.5")),
            (op.when(2, measure="loss", below=2.0), 1, {"loss": 1.5}, ("never opened it in 1 step(s)", "start it earlier")),
        ],
    )
    def test_it_says_why(self, model, when, n_steps, told, parts):
        with refused(GateNotFired, f"gate zero at {Z}", *parts, by=model), op.gates(model, op.zero(Z, when=when)) as keeper:
            if told:
                keeper.tell(**told)
            for _ in range(max(n_steps, 1)):
                model(PROMPT)
                keeper.step(min(n_steps, 1))

    def test_the_best_value_is_told_and_what_is_no_number_is_not(self, model):
        gate = op.zero(Z, when=op.when(measure="loss", below=1.0))
        with refused(GateNotFired, "loss came to 1.25"), op.gates(model, gate) as keeper:
            model(PROMPT)
            for value in (3.0, 1.25, float("nan"), float("inf"), 2.0):
                keeper.tell(loss=value)

    def test_the_model_that_never_ran_comes_first(self, model):
        with refused(GateNotFired, "the model never ran"), op.gates(model, op.zero(Z, when=op.when(9))):
            pass

    def test_an_open_gate_that_selects_nothing_is_told_as_without_a_schedule(self, model):
        with refused(GateNotFired, "never with a token at pos=99"):
            held(model, op.zero(f"{Z}[pos=99]", when=op.when(until=5)))


def test_measures_that_nobody_waits_for():
    waiting = Held((op.zero(Z, when=op.when(measure="loss", below=1.0)),))
    with refused(BadOption, "measures los", "no schedule waits for any of them", "Nearest: loss"):
        waiting.tell(los=0.5)
    waiting.tell(loss=0.5, other=1.0)
    Held((op.zero(Z),)).tell(anything=1.0)


class TestReading:
    @pytest.mark.parametrize("name", ["blocks.2.mlp_out", "blocks.1.resid_post", OUT])
    def test_what_comes_later_is_not_known(self, model, name):
        gate = op.compute(OUT, lambda h, around: around[name], reads=name)
        parts = (f"{name}, read by a gate", "has not come by in this pass", "op.first_pass()")
        with refused(SiteUnavailable, *parts, by=model):
            held(model, gate)

    def test_what_was_not_promised_is_not_known(self, model):
        gate = op.compute(OUT, lambda h, around: around["blocks.0.mlp_out"])
        with refused(SiteUnavailable, "blocks.0.mlp_out, read by a gate", "name it in the gate's `reads`", by=model):
            held(model, gate)

    @pytest.mark.parametrize("name", ["blocks.*.mlp_out", "blocks.0:2.mlp_out", "blocks.0.attn.z[head=1]", "embed[pos=1]"])
    def test_patterns_and_selectors_are_refused(self, name):
        with refused(BadGate, f"reads={name!r} at {OUT}", "whole sites, one by one"):
            op.compute(OUT, lambda h, around: h, reads=name)

    def test_sites_that_do_not_exist(self, model):
        for name, near in (("blocks.0.mlp_uot", "blocks.0.mlp_out"), ("blocks.7.mlp_out", "blocks.2.mlp_out")):
            with refused(UnknownSite, name, f"Nearest: {near}", by=model):
                held(model, op.compute(OUT, lambda h, around: h, reads=name))
        with refused(BadName, "brackets do not match"):
            op.compute(OUT, lambda h, around: h, reads="embed[")


class TestComputing:
    def test_values_of_the_wrong_shape(self, model):
        for value in (torch.zeros(7), torch.zeros(2, 14, 48), torch.zeros(1, 1, 1, 1)):
            with refused(GateShape, f"value of shape {tuple(value.shape)} at {OUT}", "(1, 14, 48)", "broadcasts", by=model):
                held(model, op.compute(OUT, lambda h, around, value=value: value))

    def test_values_that_broadcast_are_taken(self, model):
        held(model, op.compute(OUT, lambda h, around: torch.zeros(48)), op.compute(Z, lambda h, around: h.new_zeros(())))

    def test_functions_that_cannot_be_called(self):
        done = subprocess.run([sys.executable, "-c", UNTYPED], capture_output=True, text=True, check=True)
        not_called, no_tensor, none, a_list, a_number = json.loads(done.stdout)
        assert not_called[0] == "BadGate" and "its function is of type int" in not_called[1]
        assert no_tensor[0] == "BadGate" and "its function returned float" in no_tensor[1]
        assert none[0] == "BadGate" and "returned NoneType. Next: return a tensor of the site's shape" in none[1]
        assert a_list[0] == "BadGate" and "when=1000 of zero: it is of type int, not a schedule" in a_list[1]
        assert a_number[0] == "BadGate" and "openness=0.5 of zero: it is of type float" in a_number[1]


UNTYPED = """
import json
import torch
import optrode as op
from optrode.model.source import from_source
from optrode.model.tiny import tiny

MODEL = from_source(tiny("llama"))

def outcome(make):
    try:
        with op.gates(MODEL, make()):
            MODEL(torch.tensor([[5, 9, 2]]))
    except Exception as error:
        return [type(error).__name__, str(error)]

OUT = "blocks.1.mlp_out"
print(json.dumps([outcome(make) for make in (
    lambda: op.compute(OUT, 3), lambda: op.compute(OUT, lambda h, around: 0.5),
    lambda: op.compute(OUT, lambda h, around: None), lambda: op.zero(OUT, when=1000),
    lambda: op.zero(OUT, openness=0.5),
)]))
"""


class TestAside:
    def test_gates_that_a_pass_aside_cannot_hold(self):
        for inner in (op.zero("embed", when=op.when(3)), op.patch("embed", op.first_pass())):
            decisive = ("a pass with", "neither schedules, nor conditions, nor passes of its own", "that takes its values")
            with refused(BadGate, *decisive):
                op.first_pass(inner)

    def test_a_mean_of_a_pass(self):
        with refused(BadGate, "mean of a first pass", "over a recording's rows", "use op.patch"):
            op.mean("embed", op.first_pass())

    def test_another_model_of_other_sizes(self, model):
        narrow = worded(hidden_size=24, intermediate_size=20)
        with refused(GateShape, "value of shape (1, 14, 24)", "the site has the shape (1, 14, 48)", by=model):
            held(model, op.patch(OUT, op.other_model(narrow)))
        short = worded(num_hidden_layers=1)
        with refused(UnknownSite, "layer 1 is out of range", "Nearest: blocks.0.mlp_out", by=model):
            held(model, op.patch(OUT, op.other_model(short)))

    def test_a_cache_that_the_pass_aside_does_not_have(self, model):
        ids = model.batch(PROMPT).token_ids
        cache = model.module(ids, use_cache=True).past_key_values
        parts = ("gate from a first pass", "K/V cache that the pass aside has no counterpart of", "hold the gate")
        with refused(BadGate, *parts, by=model), op.gates(model, op.patch(OUT, op.first_pass())):
            model.module(ids[:, :1], past_key_values=cache)


class TestTrials:
    """A trial is one pass of a finished model: it knows no training steps and no pass under way."""

    TASK = Task("mine", "", "logit_gap", (Pair((5, 9, 2), (5, 8, 2), (7,), (11,)),))

    @pytest.mark.parametrize(
        "make",
        [
            lambda **options: op.zero(Z, when=op.when(3), **options),
            lambda **options: op.zero(Z, when=op.when(measure="loss", below=1.0), **options),
            lambda **options: op.compute(Z, lambda h, around: h, **options),
            lambda **options: op.patch(Z, op.first_pass(), **options),
        ],
    )
    def test_gates_of_training_are_refused(self, model, make):
        with refused(BadGate, Z, "op.gates", by=model):
            Bench(model, self.TASK).run(Trial((make(),), "clean", "logit_gap"))
        with refused(BadGate, Z, "op.gates", by=model):
            op.sweep(model, self.TASK, make(each="head"))
