"""Path patching against exact edge effects, against the definition written out with hooks, and its messages."""

import numpy as np
import pytest
import torch

import optrode as op
from optrode.circuit.edge.exact import exact_effects
from optrode.circuit.edge.paths import patch_paths
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import BadName, BadOption
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.metric import find_metric
from optrode.truth.programs import load
from tests.unit.trial.test_run import make_task

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")

FAMILIES = ["gpt2", "llama", "gpt_neox"]
EDGES = {
    "gpt2": ["embed -> a0.h1.q", "a0.h2 -> a1.h3.k", "m0 -> a2.h0.v", "a1.h1 -> m1", "a0.h0 -> m2", "a2.h3 -> logits"],
    "llama": ["embed -> a1.g1.k", "a0.h5 -> a2.h4.q", "m1 -> a2.g0.v", "a0.h2 -> m0", "m0 -> m2", "embed -> logits"],
    "gpt_neox": ["embed -> a2.h1.q", "a0.h2 -> a1.h5.k", "m0 -> a1.h0.v", "a0.h4 -> m1", "m0 -> m2", "m2 -> logits"],
}


def make_model(family):
    return from_source(tiny(family).double())


def ends_of(edge):
    sender, receiver = edge.split(" -> ")
    return [sender], [receiver]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_without_mlps_one_edge_has_its_exact_effect_prompt_by_prompt(family, ablation):
    model, task = make_model(family), make_task()
    bench = op.Bench(model, task)
    runs = EdgeRuns(bench, wiring_of(model), ablation)
    exact = exact_effects(runs, [runs.wiring.graph.edge(edge) for edge in EDGES[family]])
    for column, edge in enumerate(EDGES[family]):
        found = patch_paths(model, task, *ends_of(edge), through_mlps=False, ablation=ablation, bench=bench)
        assert found.per_prompt == pytest.approx(exact[:, column], abs=1e-9)
        assert found.effect == pytest.approx(exact[:, column].mean(), abs=1e-9)
        assert found.relative == pytest.approx(found.effect / np.mean(bench.base("clean")))


def test_paths_through_mlps_are_counted_only_where_they_may_be():
    model, task = make_model("gpt2"), make_task()
    for edge, has_detour in {"a0.h2 -> a2.h0.q": True, "a0.h2 -> m0": False, "m0 -> a1.h0.v": False}.items():
        through, direct = (patch_paths(model, task, *ends_of(edge), through_mlps=way).effect for way in (True, False))
        assert (abs(through - direct) > 1e-4) if has_detour else through == pytest.approx(direct, abs=1e-12)


def test_in_parallel_blocks_a_head_has_no_way_through_its_own_mlp():
    model, task = make_model("gpt_neox"), make_task()
    one_later, two_later = (
        [patch_paths(model, task, ["a0.h1"], [receiver], through_mlps=through).effect for through in (True, False)]
        for receiver in ("a1.h0.v", "a2.h0.v")
    )
    assert one_later[0] == pytest.approx(one_later[1], abs=1e-12) and abs(two_later[0] - two_later[1]) > 1e-4


class Naive:
    """Path patching into q inputs of a GPT-2 by hooks on transformers' own modules, run by run."""

    def __init__(self, model):
        self.module, self.d_head = model.module, model.table.d_head
        self.blocks = model.module.transformer.h

    def part(self, head):
        return slice(head * self.d_head, (head + 1) * self.d_head)

    def read(self, tokens, hooks=()):
        """Logits, and what heads, MLPs and q, k, v projections gave, with hooks that last for this run."""
        held, hooks = {}, list(hooks)
        for ix, block in enumerate(self.blocks):
            hooks += [
                block.attn.c_proj.register_forward_pre_hook(lambda _, x, ix=ix: held.update({("z", ix): x[0].clone()})),
                block.mlp.register_forward_hook(lambda _, args, out, ix=ix: held.update({("mlp", ix): out.clone()})),
                block.attn.c_attn.register_forward_hook(lambda _, args, out, ix=ix: held.update({("qkv", ix): out.clone()})),
            ]
        with torch.no_grad():
            logits = self.module(input_ids=torch.tensor([list(tokens)])).logits
        for hook in hooks:
            hook.remove()
        return logits, held

    def held_still(self, clean, corrupt, sender, through_mlps):
        """Hooks under which the sender gives its corrupt output and all others their clean one."""
        for ix, block in enumerate(self.blocks):
            z = clean["z", ix].clone()
            if ix == sender[0]:
                z[..., self.part(sender[1])] = corrupt["z", ix][..., self.part(sender[1])]
            yield block.attn.c_proj.register_forward_pre_hook(lambda _, args, z=z: (z,))
            if not through_mlps:
                yield block.mlp.register_forward_hook(lambda *_, ix=ix: clean["mlp", ix])

    def put_in(self, patched, receivers):
        """Hooks under which the receivers read their patched q."""
        for layer, head in receivers:

            def put(_, args, out, layer=layer, head=head):
                out = out.clone()
                out[..., self.part(head)] = patched["qkv", layer][..., self.part(head)]
                return out

            yield self.blocks[layer].attn.c_attn.register_forward_hook(put)

    def __call__(self, pair, sender, receivers, through_mlps):
        (_, corrupt), (_, clean) = self.read(pair.corrupt), self.read(pair.clean)
        _, patched = self.read(pair.clean, self.held_still(clean, corrupt, sender, through_mlps))
        logits, _ = self.read(pair.clean, self.put_in(patched, receivers))
        return find_metric("logit_gap").function(logits[:, [len(pair.clean) - 1]], [pair]).item()


@pytest.mark.parametrize("through_mlps", [True, False])
@pytest.mark.parametrize("receivers", [[(1, 2)], [(1, 0), (2, 1), (2, 3)]])
def test_several_receivers_are_patched_together_as_the_definition_says(through_mlps, receivers):
    model, task = make_model("gpt2"), make_task((5, 7))
    names = [f"a{layer}.h{head}.q" for layer, head in receivers]
    found = patch_paths(model, task, ["a0.h3"], names, through_mlps=through_mlps)
    bench = op.Bench(model, task)
    wanted = [Naive(model)(pair, (0, 3), receivers, through_mlps) for pair in task.pairs]
    assert found.per_prompt == pytest.approx(np.array(wanted) - bench.base("clean"), abs=1e-9)
    assert found.effect != pytest.approx(0, abs=1e-4)


def test_all_senders_into_the_logits_make_the_whole_effect():
    model, task = make_model("gpt2"), make_task()
    bench, graph = op.Bench(model, task), wiring_of(model).graph
    found = patch_paths(model, task, list(graph.senders), ["logits"], bench=bench)
    assert found.per_prompt == pytest.approx(np.subtract(bench.base("corrupt"), bench.base("clean")), abs=1e-9)


def test_a_head_names_its_three_inputs():
    model, task = make_model("gpt2"), make_task()
    whole = patch_paths(model, task, ["a0.h1"], ["a1.h2"], through_mlps=False)
    parts = patch_paths(model, task, ["a0.h1"], [f"a1.h2.{part}" for part in "qkv"], through_mlps=False)
    one = patch_paths(model, task, ["a0.h1"], ["a1.h2.q"], through_mlps=False)
    assert whole.per_prompt == pytest.approx(parts.per_prompt, abs=1e-12) and whole.effect != pytest.approx(one.effect)
    assert whole.receivers == ("a1.h2",) and whole.interval.low <= whole.effect <= whole.interval.high


def test_the_previous_token_head_acts_on_induction_through_keys():
    program = load("induction")
    bench = program.bench(12)
    effects = {
        part: patch_paths(program.model, bench.task, ["a0.h0"], [f"a1.h0.{part}"], bench=bench).effect for part in "qkv"
    }
    assert effects["k"] < -0.3 and abs(effects["q"]) < 1e-9 and abs(effects["v"]) < 1e-9


def test_hooks_are_gone_afterwards():
    model, task = make_model("gpt2"), make_task()
    token_ids = torch.tensor([list(task.pairs[0].clean)])
    with torch.no_grad():
        before = model.module(input_ids=token_ids).logits
        patch_paths(model, task, ["a0.h1"], ["a1.h2"])
        assert torch.equal(model.module(input_ids=token_ids).logits, before)


class TestMessages:
    @pytest.mark.parametrize("ends", [("a0.h1", "a0.h2.q"), ("m0", "m0"), ("m0", "a0.h0"), ("a2.h0", "a1")])
    def test_ends_without_a_path_are_refused(self, ends):
        model, task = make_model("gpt2"), make_task()
        with pytest.raises(BadOption, match="every receiver reads before every sender writes. Next: a path goes forward"):
            patch_paths(model, task, [ends[0]], [ends[1]])

    def test_unknown_ends_are_named_with_the_nearest(self):
        model, task = make_model("gpt2"), make_task()
        with pytest.raises(BadName, match=r"sender 'a0.h9': the model has no such sender. Nearest: a0.h"):
            patch_paths(model, task, ["a0.h9"], ["logits"])
        with pytest.raises(BadName, match=r"receiver 'a1.h2.x': the model has no such receiver. Nearest: a1.h2"):
            patch_paths(model, task, ["a0.h1"], ["a1.h2.x"])
        with pytest.raises(BadName, match="sender 'logits'"):
            patch_paths(model, task, ["logits"], ["logits"])

    def test_a_path_needs_two_ends_and_goes_forward(self):
        model, task = make_model("gpt2"), make_task()
        with pytest.raises(BadOption, match=r"paths from nothing to logits: nothing is named on one side. Next: name"):
            patch_paths(model, task, [], ["logits"])
        with pytest.raises(BadOption, match="paths from a0.h1 to nothing"):
            patch_paths(model, task, ["a0.h1"], [])
        with pytest.raises(BadOption, match=r"paths from a2.h0 to a1.h0.q: .*Next: a path goes forward; swap its ends"):
            patch_paths(model, task, ["a2.h0"], ["a1.h0.q"])

    def test_an_unknown_ablation_is_refused(self):
        with pytest.raises(BadOption, match="Nearest: resample"):
            patch_paths(make_model("gpt2"), make_task(), ["a0.h1"], ["logits"], ablation="resampled")
