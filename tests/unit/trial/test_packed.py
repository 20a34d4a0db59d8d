"""Packed trials: families, sites, actuators and metrics mixed in one pass give the numbers of the naive twin."""

from dataclasses import dataclass, replace
from functools import cache
from random import Random

import pytest
import torch

import optrode as op
from optrode.errors import GateDtype, GateNotFinite, GateNotFired, GateShape, NotPacked, UnknownSite
from optrode.gate.gate import WORLDS, Actuator, Gate
from optrode.model.names import parse
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial import attention, metric
from optrode.trial.naive import run_naively
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench
from optrode.trial.trial import Trial
from tests.messages.conftest import state_of
from tests.parity.cases import NO_SDPA, SEQUENTIAL_NEOX, model_of

FAMILIES = [
    "llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", SEQUENTIAL_NEOX, "gemma2", "gemma3_text", "phi3", "olmo2",
    "mixtral", "bert",
]  # fmt: skip
UNEQUAL = (9, 6, 9, 9)
"""A group of three rows, and one of a single row."""


def make_pair(rng, n):
    clean = [rng.randrange(1, 61) for _ in range(n)]
    corrupt = list(clean)
    corrupt[n // 2] = 61 - clean[n // 2]
    right, wrong, other = rng.sample(range(61), 3)
    return Pair(tuple(clean), tuple(corrupt), (right,), (wrong, other), targets=((n - 1, right), (n - 3, wrong)))


def make_task(lengths=UNEQUAL, random_seed=0):
    rng = Random(random_seed)
    return Task("toy", "A toy.", "logit_gap", tuple(make_pair(rng, n) for n in lengths))


def noise(*shape, random_seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(random_seed), dtype=torch.float64)


def general(model):
    """Gates that every family has, for prompts of any length; several trials of one, two or three gates."""
    d, d_head, last = model.table.d_model, model.table.d_head, model.table.n_layers - 1

    def value(*shape):
        return noise(*shape).to(model.dtype)

    return [
        (op.zero("blocks.1.attn.z[head=1]"),),
        (op.patch("blocks.1.resid_pre[pos=-2:]", "corrupt"),),
        (op.patch("blocks.2.resid_pre", "corrupt"), op.patch("blocks.*.mlp_out[pos=-1]", "clean")),
        (op.resample("embed", strength=0.7), op.scale("blocks.1.attn_out[pos=1]", 1.5)),
        (op.mean("blocks.1.attn.v[head=0]", "corrupt", strength=0.5),),
        (op.mean("blocks.0.resid_post", "clean", over="all"), op.zero("blocks.2.attn.z[head=0|3, pos=-3:]")),
        (op.clamp("blocks.1.attn_out[pos=2:]", low=-0.3, high=0.2),),
        (op.clamp("blocks.2.attn.q[head=-1]", 0.25), op.clamp("blocks.1.mlp_out[pos=-1]", value(d))),
        (op.add("blocks.1.resid_post[pos=-3|1]", value(d), strength=-2.0),),
        (op.scale("blocks.0.attn.k[head=1, pos=1:]", 2.0), op.scale(f"blocks.{last}.attn.k", 0.0)),
        (op.project_out("blocks.*.resid_pre", value(2, d)),),
        (op.affine("blocks.1.attn.z[head=2]", value(d_head, d_head), value(d_head)),),
        # the gate of the later layer starts at the earlier position
        (op.scale("blocks.0.mlp_out[pos=-1]", 3.0), op.zero("blocks.1.attn_out[pos=-2]"), op.zero(f"blocks.{last}.attn.v")),
        # one site twice: the second gate sees what the first has made
        (op.add("blocks.1.mlp_out", value(d)), op.scale("blocks.1.mlp_out[feature=0:9]", -1.0)),
        (op.patch("blocks.*.attn.z[head=0]", "corrupt", strength=1.5),),
    ]


def special(model):
    """Gates at sites that only some families have."""
    d, kinds = model.table.d_model, model.table.places

    def value(*shape):
        return noise(*shape).to(model.dtype)

    each = {
        "pos_embed": (op.scale("pos_embed[pos=-2:]", 0.5), op.resample("blocks.1.attn.q")),
        "resid_mid": (op.project_out("blocks.1.resid_mid[pos=1:]", value(d)), op.zero("blocks.1.attn.z[head=3]")),
        "ln1": (op.scale("blocks.*.ln1[pos=-1]", 0.5),),
        "ln2": (op.add("blocks.2.ln2", value(d), strength=0.5), op.resample("blocks.0.ln2[pos=2:]")),
        "mlp.pre": (op.clamp("blocks.1.mlp.pre[feature=3|-1]", 1.0),),
        "mlp.pre_linear": (op.mean("blocks.0.mlp.pre_linear[pos=-3:]"),),
        "mlp.post": (op.zero("blocks.*.mlp.post[feature=10:30]"), op.resample("blocks.1.mlp.post[feature=40:]")),
        "mlp.router": (op.add("blocks.1.mlp.router", value(5)), op.resample("blocks.2.mlp.router[pos=-1]")),
        "ln1_post": (op.scale("blocks.1.ln1_post", 2.0), op.zero("blocks.2.ln2_post[pos=-2:]")),
        "final_norm": (op.add("final_norm[pos=-1]", value(d)), op.scale("blocks.2.mlp_out", 0.0)),
    }
    return [(op.scale("final_norm", 0.5),)] * ("final_norm" in kinds) + [each[kind] for kind in each if kind in kinds]


def mixed(model, name="logit_gap"):
    """About fifteen trials in both worlds; every second one of the general gates, so that two families have them all."""
    some = general(model)[len(model.module.config.model_type) % 2 :: 2] + special(model)
    return [Trial(held, "clean" if ix % 4 else "corrupt", name) for ix, held in enumerate(some)]


@cache
def exact(family, attention_kind="sdpa"):
    """Index in `mixed` -> the trial's naive numbers in double precision, for every third trial."""
    first, step = (1, 5) if attention_kind == "eager" and family not in NO_SDPA else (len(family) % 3, 3)
    model = model_of(family, attention_kind, torch.float64)
    trials = mixed(model)
    return {ix: run_naively(model, make_task(), trials[ix]) for ix in range(first, len(trials), step)}


def from_exact(values, wanted):
    """The largest difference of those trials' values that are known exactly."""
    return far([values[ix] for ix in wanted], list(wanted.values()))


def far(found, wanted):
    """The largest difference of any trial's values."""
    return max(abs(a - b) for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True))


def routes(bench, trials):
    return {chunk.route for chunk in bench.plan(trials).chunks}


def work_of(bench, *trials):
    """What trials take on a bench that knows what its model can do."""
    assert bench.can.packs
    before = bench.work
    bench.run_many(trials)
    return bench.tally.since(before)


def make_model(family="llama", **overrides):
    return from_source(tiny(family, **overrides).double())


def trial_of(*held, world="clean", metric="logit_gap"):
    return Trial(held, world, metric)


BOTH = ("llama", "gpt2", "gemma3_text", "bert")
"""Families that also run in eager attention in double precision; the others do so in single precision below."""


@pytest.mark.parametrize(
    ("family", "attention_kind"), [(f, "eager" if f in NO_SDPA else "sdpa") for f in FAMILIES] + [(f, "eager") for f in BOTH]
)
def test_a_mixed_list_of_trials_equals_the_naive_twin(family, attention_kind):
    model = model_of(family, attention_kind, torch.float64)
    bench, trials = Bench(model, make_task()), mixed(model)
    plan = bench.plan(trials)
    assert [chunk.route for chunk in plan.chunks] == ["packed", "packed"]  # one for each world
    assert from_exact(bench.run_many(trials), wanted := exact(family, attention_kind)) <= 1e-10
    assert bench.work.token_layers < bench.work.plain_token_layers and not bench.work.plainly
    assert all(wanted[ix] != pytest.approx(bench.base(trials[ix].world), abs=1e-6) for ix in wanted if ix not in plan.null)


@pytest.mark.parametrize("family", FAMILIES)
def test_single_precision_is_right_to_its_rounding(family):
    model = model_of(family, "eager", torch.float32)
    wanted = exact(family, "eager" if family in NO_SDPA else "sdpa")
    scale = max(abs(value) for values in wanted.values() for value in values)
    trials = mixed(model)
    assert far(Bench(model, make_task()).run_many([trials[ix] for ix in wanted]), list(wanted.values())) <= 1e-5 * scale


def values_of_every_shape(model, n_rows, n_pos):
    d, n_heads, d_head = model.table.d_model, model.table.n_heads, model.table.d_head
    at_heads = [(d_head,), (n_pos, 1, d_head), (n_rows, 1, 1, d_head), (n_rows, n_pos, n_heads, d_head), (n_heads, 1)]
    at_stream = [(d,), (1,), (n_pos, d), (n_pos, 1), (n_rows, 1, d), (n_rows, n_pos, 1), (n_rows, n_pos, d)]
    gates = [(op.add("blocks.1.attn.z", noise(*shape), strength=0.5),) for shape in at_heads]
    gates += [(op.add("blocks.1.resid_pre[pos=2:]", noise(*shape)),) for shape in at_stream]
    gates += [(op.clamp("blocks.2.mlp_out[pos=-2:]", noise(*shape)),) for shape in at_stream]
    gates += [(op.patch("blocks.1.attn_out", noise(*shape)),) for shape in at_stream]
    return gates + [(op.mean("embed", noise(n_pos, d)),), (op.add("final_norm", noise(n_rows, n_pos, d)),)]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_values_of_every_shape_land_on_their_rows_and_positions(family):
    model, task = model_of(family, "sdpa", torch.float64), make_task((6, 6, 6))
    trials = [trial_of(*held) for held in values_of_every_shape(model, 3, 6)]
    bench = Bench(model, task, "logprob")
    trials = [replace(trial, metric="logprob") for trial in trials]
    assert far(bench.run_many(trials), [run_naively(model, task, trial) for trial in trials]) <= 1e-10
    assert routes(bench, trials) == {"packed"}


def test_a_value_for_each_row_follows_the_rows_that_are_run():
    model, task = model_of("llama", "sdpa", torch.float64), make_task((6, 6, 6, 6))
    rows = torch.zeros(4, 1, model.table.d_model, dtype=torch.float64)
    rows[1], rows[3] = noise(model.table.d_model), noise(model.table.d_model, random_seed=1)
    bench, trial = Bench(model, task), trial_of(op.add("blocks.1.resid_pre[pos=4]", rows))
    values = bench.run(trial)
    assert values == pytest.approx(run_naively(model, task, trial), abs=1e-10)
    assert [a == b for a, b in zip(values, bench.base("clean"), strict=True)] == [True, False, True, False]
    assert work_of(bench, trial).token_layers == 2 * (2 + 1)  # two rows: two positions in block 1, one in the last


def test_recordings_of_other_prompts_are_patched_at_their_positions():
    model, task = model_of("gpt2", "sdpa", torch.float64), make_task((6, 6, 6))
    others = [list(pair.corrupt) for pair in make_task((6, 6, 6), random_seed=5).pairs]
    held = op.record(model, others, ["blocks.1.attn.z", "blocks.2.resid_pre", "embed"])
    short = op.record(model, [tokens[:4] for tokens in others], ["blocks.1.mlp_out"])
    trials = [
        trial_of(op.patch("blocks.1.attn.z[head=2]", held)), trial_of(op.patch("blocks.2.resid_pre[pos=-1]", held)),
        trial_of(op.mean("embed[pos=1]", held, over="all")), trial_of(op.patch("blocks.1.mlp_out", short)),
    ]  # fmt: skip
    assert far(Bench(model, task).run_many(trials), [run_naively(model, task, trial) for trial in trials]) <= 1e-10


class TestMetrics:
    GATES = (
        (op.zero("blocks.1.attn.z[head=1]"),), (op.resample("blocks.1.resid_pre[pos=-2:]"),),
        (op.scale("blocks.0.mlp_out[pos=-1]", 3.0), op.zero("blocks.2.attn_out[pos=-3]")), (op.scale("final_norm", 0.5),),
    )  # fmt: skip

    @staticmethod
    def surprise(logits, pairs):
        return -logits.log_softmax(-1)[:, :, 3].sum(-1)

    NAMES = ("logit_gap", "prob_gap", "logprob", "kl", "accuracy", "surprise")

    CASES = (*(("llama", name) for name in NAMES), ("gemma2", "kl"), ("gemma2", "logit_gap"), ("bert", "logprob"))

    @pytest.mark.parametrize(("family", "name"), CASES)
    def test_every_metric_is_that_of_the_naive_twin(self, family, name, monkeypatch):
        own = op.Metric("surprise", "nats", self.surprise, reads_targets=True)
        monkeypatch.setitem(metric.METRICS, "surprise", own)
        model, task = model_of(family, "eager", torch.float64), make_task()
        held = self.GATES[: 3 if family == "bert" else 4]  # BERT has no final norm
        trials = [trial_of(*gates, world=world, metric=name) for gates, world in zip(held, WORLDS * 2, strict=False)]
        bench = Bench(model, task, own if name == "surprise" else name)
        assert far(bench.run_many(trials), [run_naively(model, task, trial) for trial in trials]) <= 1e-10
        assert routes(bench, trials) == {"packed"}

    @pytest.mark.parametrize("order", [(4, 1, 7), (7, 4, 1), (5,), (7, 7)])
    def test_targets_may_stand_anywhere_and_in_any_order(self, order):
        model = model_of("llama", "sdpa", torch.float64)
        pairs = [replace(pair, targets=tuple((p, 10 + p) for p in order)) for pair in make_task((8, 8)).pairs]
        task = Task("toy", "A toy.", "logprob", tuple(pairs))
        trials = [trial_of(*held, metric="logprob") for held in self.GATES]
        assert far(Bench(model, task).run_many(trials), [run_naively(model, task, trial) for trial in trials]) <= 1e-10


class TestOtherRoutes:
    SITES = ("attn.scores", "attn.pattern", "attn.result")

    @pytest.mark.parametrize("site", SITES)
    def test_sites_inside_attention_start_at_their_layer(self, site):
        self.check(op.scale(f"blocks.2.{site}[head=1]", 0.5), layer=2, route="by layer", why=site)

    def test_the_logits_start_after_the_last_layer(self):
        self.check(op.add("logits", noise(61)), layer=3, route="by layer", why="logits")

    def test_a_module_inside_a_block_starts_at_its_layer(self):
        self.check(op.scale("module:model.layers.1.mlp.act_fn.out", 0.5), layer=1, route="by layer", why="module:")

    def test_a_module_outside_the_blocks_runs_in_full(self):
        self.check(op.scale("module:model.norm.out", 0.5), layer=0, route="in full", why="module:")

    def check(self, gate, layer, route, why):
        model, task = model_of("llama", "eager", torch.float64), make_task()
        trials = [trial_of(gate), trial_of(op.zero("final_norm[feature=3]"), gate, world="corrupt")]
        bench = Bench(model, task)
        for chunk in (plan := bench.plan(trials)).chunks:
            assert (chunk.route, chunk.layer) == (route, layer) and why in chunk.reason and len(chunk.trials) == 1
        assert len(plan.chunks) == 2
        assert far(bench.run_many(trials), [run_naively(model, task, trial) for trial in trials]) <= 1e-10
        assert sum((bench.work.plainly or {}).values()) == 2

    def test_bloom_is_declined_once_and_starts_by_layer(self):
        model, task = model_of("bloom", "eager", torch.float64), make_task()
        bench, trials = Bench(model, task), mixed(model)
        with pytest.warns(NotPacked, match="not packed: the bloom family") as seen:
            values = bench.run_many(trials)
        assert len(seen) == 1 and from_exact(values, exact("bloom", "eager")) <= 1e-10
        alone = bench.plan(trials).chunks
        assert {chunk.route for chunk in alone} == {"by layer", "in full"}
        assert all("attention interface" in chunk.reason and len(chunk.trials) == 1 for chunk in alone)
        layers = {chunk.layer for chunk in alone if chunk.route == "by layer"}
        assert layers == {1, 2, 3} and bench.work.token_layers < bench.work.plain_token_layers

    def test_an_actuator_that_mixes_positions_starts_at_its_layer(self):
        model, task = model_of("llama", "sdpa", torch.float64), make_task()
        bench, trial = Bench(model, task), trial_of(Gate(parse("blocks.1.attn_out"), Reverse()))
        assert [(chunk.route, chunk.layer) for chunk in bench.plan([trial]).chunks] == [("by layer", 1)]
        values = bench.run(trial)
        assert values == pytest.approx(run_naively(model, task, trial), abs=1e-10) and values != bench.base("clean")

    def test_a_pointwise_actuator_of_the_users_own_is_packed(self):
        model, task = model_of("llama", "sdpa", torch.float64), make_task()
        bench, trial = Bench(model, task), trial_of(Gate(parse("blocks.1.attn_out[pos=-2:]"), Squash()))
        assert routes(bench, [trial]) == {"packed"}
        assert bench.run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-10)

    def test_without_sharing_everything_runs_in_full(self):
        model, task = model_of("llama", "sdpa", torch.float64), make_task()
        bench, trials = Bench(model, task, shares=False), mixed(model)[:4]
        assert far(bench.run_many(trials), Bench(model, task).run_many(trials)) <= 1e-10
        assert bench.work.token_layers == bench.work.plain_token_layers and routes(bench, trials) == {"in full"}


@dataclass(frozen=True)
class Reverse(Actuator):
    """Gives each position what stands at its mirror image."""

    def __str__(self):
        return "reverse"

    def target(self, h, site, moment):
        return h.flip(1)


@dataclass(frozen=True)
class Squash(Actuator):
    is_pointwise = True

    def __str__(self):
        return "squash"

    def target(self, h, site, moment):
        return h.tanh()


@dataclass(frozen=True)
class FailsInAPack(Actuator):
    is_pointwise = True

    def __str__(self):
        return "fail"

    def target(self, h, site, moment):
        if moment.rows is not None:
            raise ArithmeticError("in a pack")
        return -h


@dataclass
class Loose(Actuator):
    """A data class that is not frozen, which Python cannot hash."""

    def __str__(self):
        return "loose"

    def target(self, h, site, moment):
        return -h


class TestTogetherAndAlone:
    def test_company_and_order_do_not_matter(self):
        model = model_of("llama", "sdpa", torch.float64)
        trials = mixed(model)
        backwards = Bench(model, make_task()).run_many(trials[::-1])[::-1]
        bench = Bench(model, make_task())
        alone = [bench.run(trial) for trial in trials[::4]]
        assert from_exact(backwards, exact("llama")) <= 1e-10 and far(alone, backwards[::4]) <= 1e-12

    def test_the_same_list_again_gives_the_same_bits(self):
        model = model_of("gpt2", "sdpa", torch.float64)
        bench, trials = Bench(model, make_task()), mixed(model)[:8]
        assert bench.run_many(trials) == bench.run_many(trials) == Bench(model, make_task()).run_many(trials)

    def test_no_trial_at_all(self):
        assert Bench(model_of("llama"), make_task()).run_many([]) == []

    def test_a_trial_without_gates_is_the_plain_run(self):
        bench = Bench(model_of("llama"), make_task())
        assert bench.run(trial_of(world="corrupt")) == bench.base("corrupt") and bench.work.n_null == 1


class TestNull:
    NULL = (
        trial_of(op.patch("blocks.*.resid_pre", "clean")),
        trial_of(op.patch("blocks.1.attn.z[head=2]", "corrupt", strength=2.0), world="corrupt"),
        trial_of(op.scale("blocks.1.mlp_out", 1.0)), trial_of(op.zero("blocks.0.attn_out", strength=0.0)),
        trial_of(op.clamp("blocks.2.attn_out", low=-1e6)), trial_of(op.patch("embed", "clean")),
        trial_of(op.resample("blocks.*.resid_pre[pos=0:2]")),  # the worlds part after position 1
    )  # fmt: skip

    @pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
    def test_what_changes_nothing_is_the_plain_run_bit_for_bit_and_costs_nothing(self, family):
        bench = Bench(model_of(family, "sdpa", torch.float64), make_task())
        trials = self.NULL[:-1] if family == "mixtral" else self.NULL  # experts round across positions
        found = bench.run_many(trials)
        assert found == [bench.base(trial.world) for trial in trials]
        work = work_of(bench, *trials)
        assert work.n_null == work.n_trials == len(trials) and work.token_layers == work.kv_token_layers == 0

    def test_everything_is_run_when_asked_for(self):
        model = model_of("llama", "sdpa", torch.float64)
        bench, trials = Bench(model, make_task(), skip_null=False), [*self.NULL, *mixed(model)[:8]]
        plan = bench.plan(trials)
        assert not plan.null and sorted(ix for chunk in plan.chunks for ix in chunk.trials) == list(range(len(trials)))
        found = bench.run_many(trials)
        assert far(found[: len(self.NULL)], [bench.base(trial.world) for trial in self.NULL]) <= 1e-10
        assert far(found[len(self.NULL) :], Bench(model, make_task()).run_many(mixed(model)[:8])) <= 1e-10
        assert bench.work.n_null == 0

    def test_rows_that_nothing_changes_keep_their_plain_values(self):
        pairs = list(make_task((8, 8, 8)).pairs)
        pairs[1] = replace(pairs[1], corrupt=pairs[1].clean)
        bench = Bench(model_of("llama", "sdpa", torch.float64), Task("toy", "A toy.", "logit_gap", tuple(pairs)))
        trial = trial_of(op.resample("blocks.1.resid_pre[pos=4]"))
        values = bench.run(trial)
        assert [a == b for a, b in zip(values, bench.base("clean"), strict=True)] == [False, True, False]
        assert work_of(bench, trial).token_layers == 2 * (4 + 1)


class TestTheModelAfterwards:
    @staticmethod
    def state(model):
        """Everything that a run may not change, with what the model says and writes."""
        forwards = [name for name, module in model.module.named_modules() if "forward" in module.__dict__]
        ids = torch.tensor([[3, 1, 4, 1, 5]])
        with torch.no_grad():
            logits = model.module(input_ids=ids).logits
        written = None
        if model.table.is_causal:
            written = model.module.generate(ids, max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(ids))
        implementations = [m.config._attn_implementation for m in model.module.modules() if hasattr(m, "config")]
        said = logits.tolist(), written.tolist() if written is not None else None
        return state_of(model.module), forwards, implementations, said

    @pytest.mark.parametrize("family", ["gemma3_text", "mixtral", "bert"])
    def test_it_is_as_before(self, family):
        model = model_of(family, "sdpa", torch.float64)
        before = self.state(model)
        Bench(model, make_task()).run_many(mixed(model)[:6])
        assert self.state(model) == before
        assert before[1] == [] and not attention._packings and not attention._own

    @pytest.mark.parametrize("layer", [0, 2])
    def test_it_is_as_before_when_a_pack_fails(self, layer):
        model = model_of("llama", "sdpa", torch.float64)
        before = self.state(model)
        bench = Bench(model, make_task())
        broken = trial_of(Gate(parse(f"blocks.{layer}.attn.z"), FailsInAPack()))
        with pytest.raises(ArithmeticError, match="in a pack"):
            bench.run_many([*mixed(model)[:3], broken])
        assert self.state(model) == before and not attention._packings and not attention._own
        wanted = {ix: values for ix, values in exact("llama").items() if ix < 6}
        assert from_exact(bench.run_many(mixed(model)[:6]), wanted) <= 1e-10

    def test_it_is_as_before_when_the_head_fails(self):
        model = model_of("llama", "sdpa", torch.float64)
        before = self.state(model)
        with pytest.raises(ArithmeticError, match="in a pack"):
            Bench(model, make_task()).run(trial_of(Gate(parse("final_norm"), FailsInAPack())))
        assert self.state(model) == before

    def test_it_is_as_before_when_the_stem_fails(self):
        model = model_of("llama", "sdpa", torch.float64)
        before = self.state(model)
        wrong = Gate(parse("embed"), Squash()), op.add("blocks.1.resid_pre", noise(7))
        with pytest.raises(GateShape):
            Bench(model, make_task()).run(trial_of(*wrong))
        assert self.state(model) == before


WRONG = {
    "shape": (op.add("blocks.1.resid_pre", noise(7)), GateShape),
    "shape of neurons": (op.add("blocks.1.mlp.post", noise(7)), GateShape),
    "shape of positions": (op.add("blocks.1.resid_pre", noise(4, 48)), GateShape),
    "dtype": (op.add("blocks.1.resid_pre", noise(48).float()), GateDtype),
    "nan": (op.patch("blocks.1.attn.z", torch.full((8,), float("nan"), dtype=torch.float64)), GateNotFinite),
    "no position": (op.zero("blocks.1.attn.z[pos=30]"), GateNotFired),
    "no position before the blocks": (op.zero("embed[pos=30]"), GateNotFired),
    "no generated token": (op.zero("blocks.1.attn.z", scope="generated"), GateNotFired),
    "no such head": (op.zero("blocks.1.attn.z[head=6]"), UnknownSite),
    "no such neuron": (op.zero("blocks.1.mlp.post[feature=56]"), UnknownSite),
    "no such layer": (op.zero("blocks.3.attn.z"), UnknownSite),
}


@pytest.mark.parametrize("gate, kind", WRONG.values(), ids=WRONG)
def test_a_wrong_gate_is_refused_as_by_gates(gate, kind):
    model, task = model_of("llama", "sdpa", torch.float64), make_task((5, 7))
    with pytest.raises(op.OptrodeError) as plainly, torch.no_grad(), op.gates(model, gate):
        model.module(input_ids=torch.tensor([task.pairs[0].clean]))
    with pytest.raises(op.OptrodeError) as caught:
        Bench(model, task).run_many([trial_of(op.zero("blocks.1.attn_out")), trial_of(gate)])
    assert type(caught.value) is type(plainly.value) is kind


class TestWork:
    def test_only_positions_that_can_differ_are_computed(self):
        bench = Bench(model_of("llama", "sdpa", torch.float64), make_task((6, 6)))
        trials = [trial_of(op.zero(f"blocks.{layer}.mlp_out[pos=3]")) for layer in range(3)]
        work = work_of(bench, *trials, TestNull.NULL[0])
        # two rows, positions 3 to 5 from the gate's layer on, and in the last block only the one that the metric reads
        assert work.token_layers == 2 * ((3 + 3 + 1) + (3 + 1) + 1)
        assert work.plain_token_layers == 4 * 2 * 6 * 3 and work.n_trials == 4 and work.n_null == 1
        assert work.ratio > 5 and "24 token-layers computed of 144" in str(work)

    def test_a_position_behind_all_that_the_metric_reads_is_not_run(self):
        pairs = tuple(replace(pair, targets=((3, 7),)) for pair in make_task((6, 6)).pairs)
        bench = Bench(model_of("llama", "sdpa", torch.float64), Task("toy", "A toy.", "logprob", pairs))
        work = work_of(bench, late := trial_of(op.zero("blocks.0.mlp_out[pos=4:]"), metric="logprob"))
        assert work.n_null == 1 and bench.run(late) == bench.base("clean")
        early = trial_of(op.zero("blocks.0.mlp_out[pos=2:]"), metric="logprob")
        assert work_of(bench, early).token_layers == 2 * (2 + 2 + 1)


class TestFaults:
    """Kept as they were found."""

    def test_gates_at_two_sites_of_one_module_keep_each_trials_own_order(self):
        model, task = model_of("llama", "sdpa", torch.float64), make_task()
        one, other = op.zero("blocks.1.resid_mid"), op.scale("blocks.1.attn_out", 2.0)
        trials = [trial_of(one, other), trial_of(other, one)]
        assert far(Bench(model, task).run_many(trials), [run_naively(model, task, trial) for trial in trials]) <= 1e-10

    def test_gates_between_those_of_another_site_keep_their_order(self):
        model, task = model_of("olmo2", "sdpa", torch.float64), make_task()
        double, flip = op.scale("blocks.1.attn_out", 2.0), op.scale("blocks.1.attn_out", -1.0)
        trial = trial_of(double, op.clamp("blocks.1.ln1_post", low=-0.1), flip)
        assert Bench(model, task).run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-10)

    def test_two_equal_gates_before_the_blocks_act_twice(self):
        model, task = model_of("llama", "sdpa", torch.float64), make_task()
        trial = trial_of(op.scale("embed", 0.5), op.scale("embed", 0.5))
        assert Bench(model, task).run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-10)

    def test_actuators_need_not_be_hashable(self):
        model, task = model_of("llama", "sdpa", torch.float64), make_task()
        trial = trial_of(Gate(parse("blocks.1.attn_out"), Loose()))
        assert Bench(model, task).run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-10)

    def test_a_metric_may_read_the_first_half_of_the_prompts_only(self):
        model = model_of("llama", "sdpa", torch.float64)
        pairs = tuple(replace(pair, targets=((1, 11),)) for pair in make_task((8, 8)).pairs)
        task, trial = Task("toy", "A toy.", "logprob", pairs), trial_of(op.zero("blocks.1.attn.z[pos=0]"), metric="logprob")
        assert Bench(model, task).run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-10)
