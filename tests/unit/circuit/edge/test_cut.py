"""Edges held cut: what a forward pass and generation give, what is refused, and that nothing stays behind."""

import numpy as np
import pytest
import torch

import optrode as op
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import BadName, BadOption
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.unit.trial.test_run import make_task

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")

FAMILIES = ["gpt2", "llama", "gpt_neox"]
PROMPT = [[5, 9, 2, 40, 17]]
EDGES = {
    "gpt2": ["embed -> a1.h2.k", "a0.h1 -> m0", "m0 -> a2.h0.q", "embed -> logits"],
    "llama": ["embed -> a1.g1.k", "a0.h1 -> m0", "m0 -> a2.h0.q", "a1.h3 -> logits"],
    "gpt_neox": ["embed -> a1.h2.k", "a0.h1 -> m1", "m0 -> a2.h0.q", "a1.h3 -> logits"],
}


def make_model(family="gpt2"):
    return from_source(tiny(family).double())


def logits_of(model, token_ids=PROMPT):
    with torch.no_grad():
        return model.module(input_ids=torch.tensor(token_ids)).logits


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())


def with_cache(model, n, token_ids=PROMPT):
    """Greedy tokens by transformers' own generation."""
    return model.module.generate(torch.tensor(token_ids), max_new_tokens=n, do_sample=False, use_cache=True)[0].tolist()


def without_cache(model, n, token_ids=PROMPT):
    """Greedy tokens, each from a pass over everything before it."""
    found = list(token_ids[0])
    for _ in range(n):
        found.append(int(logits_of(model, [found])[0, -1].argmax()))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_with_a_cache_is_that_without(family):
    model = make_model(family)
    plain = with_cache(model, 8)
    with op.cut(model, EDGES[family]):
        assert with_cache(model, 8) == without_cache(model, 8) != plain
    assert with_cache(model, 8) == plain


@pytest.mark.parametrize("family", FAMILIES)
def test_each_step_of_a_cached_run_has_the_logits_of_the_whole(family):
    model, prompt = make_model(family), torch.tensor(PROMPT)
    with op.cut(model, EDGES[family]), torch.no_grad():
        whole = model.module(input_ids=prompt, use_cache=False).logits
        first = model.module(input_ids=prompt[:, :3], use_cache=True)
        later = model.module(input_ids=prompt[:, 3:], past_key_values=first.past_key_values, use_cache=True)
    assert torch.allclose(torch.cat([first.logits, later.logits], 1), whole, atol=1e-12)
    assert not torch.allclose(whole, logits_of(model), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_edge_has_its_exact_zero_effect(family):
    model, task = make_model(family), make_task((6, 6))
    bench = op.Bench(model, task)
    exact = op.score_edges(model, task, method="exact", ablation="zero", bench=bench)
    for edge in EDGES[family]:
        with op.cut(model, edge):
            values = bench.measured(logits_of(model, [list(pair.clean) for pair in task.pairs])[:, [5]], 0, [0, 1])
        wanted = exact.per_prompt[:, exact.graph.edge(edge)]
        assert np.subtract(values, bench.base("clean")) == pytest.approx(wanted, abs=1e-9)


def test_around_a_circuit_only_the_circuit_runs():
    model, task = make_model("llama"), make_task((6, 6))
    bench = op.Bench(model, task)
    circuit = op.find(model, task, level="edge", method="eap", ablation="zero", size=60, bench=bench)
    wanted = EdgeRuns(bench, wiring_of(model), "zero").measure([circuit.is_in])[0]
    with op.cut(model, circuit):
        logits = logits_of(model, [list(pair.clean) for pair in task.pairs])
    assert bench.measured(logits[:, [5]], 0, [0, 1]) == pytest.approx(wanted, abs=1e-9)


def test_around_a_circuit_with_keys_of_query_heads_the_groups_are_told_apart():
    model, task = make_model("llama"), make_task((6, 6))
    bench = op.Bench(model, task)
    circuit = op.find(model, task, level="edge", method="eap", ablation="zero", size=90, per_query_head=True, bench=bench)
    wanted = EdgeRuns(bench, wiring_of(model, per_query_head=True), "zero").measure([circuit.is_in])[0]
    with op.cut(model, circuit):
        logits = logits_of(model, [list(pair.clean) for pair in task.pairs])
    assert circuit.graph.n_kv == 6 and bench.measured(logits[:, [5]], 0, [0, 1]) == pytest.approx(wanted, abs=1e-9)
    assert torch.equal(logits_of(model), logits_of(make_model("llama")))


def test_cut_to_the_mean_over_prompts_a_receiver_reads_the_mean():
    model = make_model()
    prompts = [[3, 1, 4, 1], [5, 9, 2], [6]]
    outputs = [op.record(model, [prompt], "blocks.1.mlp_out")["blocks.1.mlp_out"][0] for prompt in prompts]
    mean = torch.cat(outputs).mean(0)
    held = op.record(model, PROMPT, ["blocks.2.resid_post", "blocks.1.mlp_out"])
    changed = held["blocks.2.resid_post"] + mean - held["blocks.1.mlp_out"]
    with torch.no_grad():
        wanted = model.module.lm_head(model.module.transformer.ln_f(changed))
    with op.cut(model, "m1 -> logits", to=prompts):
        assert torch.allclose(logits_of(model), wanted, atol=1e-12)
    with op.cut(model, "m1 -> logits", to=prompts[:1]):
        assert not torch.allclose(logits_of(model), wanted, atol=1e-4)


def test_cut_edges_let_gradients_through():
    model = make_model()
    with op.cut(model, "a0.h1 -> m0"):
        model.module(input_ids=torch.tensor(PROMPT)).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.module.parameters())


class TestWhatIsLeftBehind:
    def test_nothing_afterwards(self):
        model = make_model()
        before, n_hooks = logits_of(model), hooks_of(model)
        with op.cut(model, EDGES["gpt2"]):
            assert not torch.equal(logits_of(model), before)
        assert torch.equal(logits_of(model), before) and hooks_of(model) == n_hooks

    def test_nothing_after_an_exception_inside(self):
        model = make_model("llama")
        before, n_hooks = logits_of(model), hooks_of(model)
        with pytest.raises(ZeroDivisionError), op.cut(model, EDGES["llama"]):
            logits_of(model)
            raise ZeroDivisionError
        assert torch.equal(logits_of(model), before) and hooks_of(model) == n_hooks

    def test_nothing_after_a_refusal(self):
        model = make_model()
        before = hooks_of(model)
        with pytest.raises(BadName), op.cut(model, ["a0.h1 -> m0", "a0.h9 -> m0"]):
            pass
        assert hooks_of(model) == before

    def test_nothing_after_a_run_that_fails(self):
        model = make_model()
        before = logits_of(model)
        with pytest.raises(IndexError), op.cut(model, "a0.h1 -> m0"):
            logits_of(model, [[99]])
        assert torch.equal(logits_of(model), before)


class TestMessages:
    def refused(self, error, text, edges, model=None, **options):
        with pytest.raises(error, match=text), op.cut(model or make_model(), edges, **options):
            pass

    def test_no_edge(self):
        self.refused(BadOption, r"cut: no edge is named. Next: name one like a3.h2 -> a5.h1.k", [])

    def test_an_unknown_edge(self):
        self.refused(BadName, "sender 'a0.h9': the model has no such sender. Nearest: a0.h", "a0.h9 -> m0")
        self.refused(BadName, r"receiver 'a1.h2.x': the model has no such receiver. Nearest: a1.h2", "a0.h1 -> a1.h2.x")
        self.refused(BadName, "it has no sender and receiver. Next: write it like a3.h2 -> a5.h1.k", "a0.h1")
        self.refused(BadName, "a2.h0 comes after m0 reads the residual stream. Next: an edge goes forward", "a2.h0 -> m0")

    def test_a_circuit_of_another_model(self):
        small, other = make_model("gpt2"), make_model("llama")
        circuit = op.find(small, make_task((6, 6)), level="edge", method="eap", size=9)
        n_edges = wiring_of(other).graph.n_edges
        text = rf"cut around the circuit of toy: it has {circuit.n_all} edges, .* has {n_edges}. Next: use the model it was"
        self.refused(BadOption, text, circuit, other)

    def test_no_prompt_to_take_the_mean_of(self):
        self.refused(BadOption, 'there is no prompt. Next: give texts, or to="zero"', "a0.h1 -> m0", to=[])
