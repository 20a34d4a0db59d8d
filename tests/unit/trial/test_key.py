"""A trial's key: everything that its numbers depend on, and nothing else."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

import optrode as op
from optrode.gate.gate import Actuator, Gate
from optrode.model.names import parse
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.key import bench_key, trial_key
from optrode.trial.metric import METRICS
from optrode.trial.prompts import Pair, Task
from optrode.trial.trial import Trial
from tests.parity.cases import model_of

PAIR = Pair((1, 2, 3, 4), (1, 2, 5, 4), (7,), (8, 9), targets=((3, 7),))
TASK = Task("toy", "A toy.", "logit_gap", (PAIR, replace(PAIR, clean=(4, 3, 2, 1))))
VECTOR = torch.arange(8.0)
GATE = op.add("blocks.1.attn.z[head=1]", VECTOR)
OTHER = op.zero("blocks.0.mlp_out")


def key(*held, world="clean", bench="b"):
    return trial_key(bench, Trial(held or (GATE,), world, "logit_gap"))


def of_bench(model=None, task=TASK, metric=METRICS["logit_gap"]):  # noqa: B008
    return bench_key(model or model_of("llama"), task, metric)


def with_pair(**changed):
    return replace(TASK, pairs=(replace(PAIR, **changed), *TASK.pairs[1:]))


def spike(at):
    vector = VECTOR.clone()
    vector[at] += 1e-6
    return vector


class TestWhatItDependsOn:
    @pytest.mark.parametrize(
        "held",
        [
            (op.add("blocks.1.attn.z[head=2]", VECTOR),), (op.add("blocks.0.attn.z[head=1]", VECTOR),),
            (op.add("blocks.1.attn.z", VECTOR),), (op.add("blocks.1.attn.q[head=1]", VECTOR),),
            (op.add("blocks.1.attn.z[head=1, pos=1]", VECTOR),), (op.add("blocks.1.attn.z[head=1]", spike(0)),),
            (op.add("blocks.1.attn.z[head=1]", spike(7)),), (op.add("blocks.1.attn.z[head=1]", VECTOR.double()),),
            (op.add("blocks.1.attn.z[head=1]", VECTOR[None]),), (op.add("blocks.1.attn.z[head=1]", VECTOR, strength=0.5),),
            (op.add("blocks.1.attn.z[head=1]", VECTOR, scope="prompt"),), (op.clamp("blocks.1.attn.z[head=1]", VECTOR),),
            (op.patch("blocks.1.attn.z[head=1]", VECTOR),), (GATE, GATE), (GATE, OTHER), (OTHER, GATE),
            (op.scale("blocks.1.mlp_out", 2.0),), (op.scale("blocks.1.mlp_out", 2.5),), (op.zero("blocks.1.mlp_out"),),
            (op.patch("blocks.1.mlp_out", "clean"),), (op.patch("blocks.1.mlp_out", "corrupt"),),
            (op.mean("blocks.1.mlp_out", "clean"),), (op.mean("blocks.1.mlp_out", "clean", over="all"),),
            (op.clamp("blocks.1.mlp_out", low=0.5),), (op.clamp("blocks.1.mlp_out", high=0.5),),
            (op.clamp("blocks.1.mlp_out", 0.5),), (op.affine("blocks.1.attn.z", torch.eye(8)),),
            (op.affine("blocks.1.attn.z", torch.eye(8), VECTOR),), (op.project_out("blocks.1.attn.z", VECTOR),),
        ],
    )  # fmt: skip
    def test_each_gate_has_its_own(self, held):
        assert key(*held) != key() and key(*held) == key(*held)

    def test_none_of_these_share_one(self):
        names = ["clean", "corrupt"]
        held = [op.patch("blocks.1.mlp_out", name, strength=s) for name in names for s in (1.0, 2.0)]
        held += [op.mean("blocks.1.mlp_out", name, over=over) for name in names for over in ("rows", "all")]
        held += [op.clamp("blocks.1.mlp_out", **bounds) for bounds in ({"low": 1.0}, {"high": 1.0}, {"value": 1.0})]
        assert len({key(gate, world=world) for gate in held for world in names}) == 2 * len(held)

    def test_gates_in_another_order(self):
        assert key(GATE, OTHER) != key(OTHER, GATE)

    def test_the_world_and_the_bench(self):
        assert len({key(), key(world="corrupt"), key(bench="c")}) == 3

    def test_what_a_recording_holds(self):
        held = [op.record(model_of("llama"), [tokens], "blocks.1.mlp_out") for tokens in ((1, 2, 3), (1, 2, 4))]
        assert key(op.patch("blocks.1.mlp_out", held[0])) != key(op.patch("blocks.1.mlp_out", held[1]))

    @pytest.mark.parametrize(
        "changed",
        [{"clean": (1, 2, 3, 5)}, {"corrupt": (1, 2, 6, 4)}, {"right": (6,)}, {"wrong": (8,)}, {"targets": ((2, 7),)}],
        ids=str,
    )
    def test_tokens_and_answers(self, changed):
        assert of_bench(task=with_pair(**changed)) != of_bench()

    def test_which_prompts_there_are_and_in_what_order(self):
        tasks = TASK, TASK.take(1), TASK.half(1), replace(TASK, pairs=TASK.pairs[::-1])
        assert len({of_bench(task=task) for task in tasks}) == 4

    def test_the_weights(self):
        changed = tiny("llama")
        with torch.no_grad():
            changed.model.layers[2].mlp.down_proj.weight[5, 7] += 1e-6
        models = [model_of("llama"), from_source(tiny("llama", random_seed=1)), from_source(changed), model_of("gpt2")]
        assert len({of_bench(model) for model in models}) == 4

    def test_the_metric_and_its_code(self):
        one, same, other, nested = (compiled(source) for source in (FIRST, "\n\n" + FIRST, SECOND, NESTED))
        changed = compiled(NESTED.replace("2.0", "3.0"))
        metrics = [op.Metric("own", "nats", function) for function in (one, other, nested, changed)]
        assert len({of_bench(metric=metric) for metric in (*metrics, *METRICS.values())}) == 4 + len(METRICS)
        assert of_bench(metric=op.Metric("own", "nats", same)) == of_bench(metric=metrics[0])
        assert of_bench(metric=op.Metric("its own", "nats", one)) != of_bench(metric=metrics[0])


FIRST = "def own(logits, pairs):\n    return logits[:, -1, 3]\n"
SECOND = "def own(logits, pairs):\n    return logits[:, -1, 4]\n"
NESTED = "def own(logits, pairs):\n    def inner(x):\n        return x * 2.0\n    return inner(logits[:, -1, 3])\n"


def compiled(source, name="own"):
    """The function that a source file would define, wherever it stands."""
    scope = {}
    exec(compile(source, f"<{len(source)}>", "exec"), scope)
    return scope[name]


class TestWhatItDoesNotDependOn:
    def test_it_is_64_hexadecimal_digits(self):
        assert len(key()) == len(of_bench()) == 64 and int(key(), 16) >= 0

    @pytest.mark.parametrize(
        "vector",
        [VECTOR.clone(), torch.nn.Parameter(VECTOR), torch.stack([VECTOR, VECTOR], 1)[:, 0], VECTOR.expand(1, 8)[0]],
        ids=["copy", "parameter", "strided", "view"],
    )
    def test_objects_and_memory_layout(self, vector):
        assert key(op.add("blocks.1.attn.z[head=1]", vector)) == key()

    def test_detaching_and_axes_of_a_sweep(self):
        assert key(replace(GATE, detach=True)) == key(replace(GATE, each=("layer",))) == key()

    def test_the_spelling_of_a_site(self):
        assert key(op.add("blocks.1.attn.hook_z[ head = 1 ]", VECTOR)) == key()

    def test_the_metric_is_named_by_the_bench(self):
        assert trial_key("b", Trial((GATE,), "clean", "kl")) == key()

    def test_models_loaded_twice_and_their_names(self):
        again = from_source(tiny("llama"))
        again.name = "another"
        assert of_bench(again) == of_bench(from_source(tiny("llama")))

    def test_what_is_only_for_people(self):
        named = replace(TASK, name="other", description="Other.", random_seed=5)
        shown = with_pair(clean_tokens=("a", "b", "c", "d"), right_tokens=("x",))
        assert of_bench(task=named) == of_bench(task=shown) == of_bench()

    def test_other_trials(self):
        trials = [Trial((gate,), "clean", "logit_gap") for gate in (GATE, OTHER, op.zero("embed"))]
        assert [trial_key("b", trial) for trial in trials[::-1]] == [trial_key("b", trial) for trial in trials][::-1]


class Bare(Actuator):
    """Not a data class."""

    is_pointwise = True

    def __str__(self):
        return "bare"

    def target(self, h, site, moment):
        return -h


def doubling():
    @dataclass(frozen=True)
    class Own(Actuator):
        def __str__(self):
            return "own"

        def target(self, h, site, moment):
            return h * 2.0

    return Own()


def halving():
    @dataclass(frozen=True)
    class Own(Actuator):
        def __str__(self):
            return "own"

        def target(self, h, site, moment):
            return h / 2.0

    return Own()


class TestFaults:
    """Kept as they were found: two things that compute different numbers, and share a key."""

    def test_the_config(self):
        one, other = (tiny("llama", rope_parameters={"rope_type": "default", "rope_theta": t}) for t in (1e4, 100.0))
        assert of_bench(from_source(one)) != of_bench(from_source(other))

    def test_what_a_metrics_function_closes_over(self):
        def make(token):
            return op.Metric("own", "logits", lambda logits, pairs: logits[:, -1, token])

        assert of_bench(metric=make(3)) != of_bench(metric=make(4))

    def test_the_defaults_of_a_metrics_function(self):
        metrics = [op.Metric("own", "logits", lambda logits, pairs, t=t: logits[:, -1, t]) for t in (3, 4)]
        assert of_bench(metric=metrics[0]) != of_bench(metric=metrics[1])

    def test_partial_functions(self):
        def value(logits, pairs, token):
            return logits[:, -1, token]

        metrics = [op.Metric("own", "logits", partial(value, token=token)) for token in (3, 4)]
        assert of_bench(metric=metrics[0]) != of_bench(metric=metrics[1])

    @pytest.mark.parametrize("changed", [{"reads_targets": True}, {"against": "corrupt"}], ids=str)
    def test_what_a_metric_reads(self, changed):
        own = replace(METRICS["kl"], name="own")
        assert of_bench(metric=replace(own, **changed)) != of_bench(metric=own)

    def test_the_marks_of_a_pair(self):
        assert of_bench(task=with_pair(marks={"end": 2})) != of_bench()

    def test_the_lengths_of_a_recordings_rows(self):
        held = op.record(model_of("llama"), [(1, 2, 3), (4, 5, 6)], "blocks.1.mlp_out")
        gate, shorter = (op.mean("blocks.1.mlp_out", r, over="all") for r in (held, replace(held, lengths=(3, 2))))
        assert key(gate) != key(shorter)

    def test_the_code_of_an_actuator_of_the_users_own(self):
        assert key(Gate(parse("blocks.1.mlp_out"), doubling())) != key(Gate(parse("blocks.1.mlp_out"), halving()))

    def test_an_actuator_that_is_no_data_class_has_a_key(self):
        assert len(key(Gate(parse("blocks.1.mlp_out"), Bare()))) == 64

    def test_a_set_in_a_metrics_code_has_one_key(self):
        def own(logits, pairs):
            return logits[:, -1, 3]

        code = own.__code__
        functions = own, compiled(FIRST)
        for function, numbers in zip(functions, ([0, 8], [8, 0]), strict=True):
            function.__code__ = code.replace(co_consts=(*code.co_consts, frozenset(numbers)))
        one, other = (op.Metric("own", "logits", function) for function in functions)
        assert frozenset([0, 8]) == frozenset([8, 0]) and of_bench(metric=one) == of_bench(metric=other)
