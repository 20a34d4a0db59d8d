"""Shares of edges kept, gradients through them, and no trace of the runs."""

import numpy as np
import pytest
import torch

from optrode.circuit.edge.hold import holding
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.score import score_edges
from optrode.circuit.edge.wiring import wiring_of
from optrode.trial.metric import Metric
from optrode.trial.run import Bench
from tests.messages.conftest import state_of
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import llama, make_task, model_of

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")
CASES = ["layer norm", "RMS norm, grouped K/V", "parallel", "attention only"]


def set_up(case, lengths=(5, 5)):
    model, task = model_of(case), make_task(lengths)
    runs, net = EdgeRuns(Bench(model, task), wiring_of(model)), naive.net_of(model.module)
    return model, runs, naive.Group(net, task.pairs)


def random_keep(graph, *lead, random_seed=0):
    generator = torch.Generator().manual_seed(random_seed)
    return torch.rand(*lead, *graph.is_edge.shape, generator=generator, dtype=torch.float64)


def logits_of(model, runs, keep):
    with holding(runs.wiring, keep, runs.ablated(0)):
        return model.module(runs.bench.worlds.inputs("clean", 0)).logits


@pytest.mark.parametrize("case", CASES)
def test_edges_may_be_kept_to_any_degree(case):
    model, runs, group = set_up(case)
    shared, by_row = random_keep(runs.wiring.graph), random_keep(runs.wiring.graph, 2)
    for keep in (shared, by_row):
        wanted = group.run(keep=keep.expand(2, *keep.shape[-2:]), ablated=group.ablated()).logits
        torch.testing.assert_close(logits_of(model, runs, keep), wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_gradients_flow_through_shares_to_every_edge(case):
    model, runs, group = set_up(case)
    keep = random_keep(runs.wiring.graph, 2).requires_grad_()
    other = keep.detach().clone().requires_grad_()
    weights = torch.linspace(-1, 1, 19, dtype=torch.float64)
    with torch.enable_grad():
        (found,) = torch.autograd.grad((logits_of(model, runs, keep) @ weights).sum(), keep)
        run = group.run(keep=other, ablated=group.ablated())
        (wanted,) = torch.autograd.grad((run.logits @ weights).sum(), other)
    torch.testing.assert_close(found, wanted, atol=1e-11, rtol=1e-11)
    assert not found[:, ~torch.from_numpy(runs.wiring.graph.is_edge)].any()


def test_entries_that_are_no_edge_are_not_looked_at():
    model, runs, _ = set_up("parallel")
    keep, is_edge = random_keep(runs.wiring.graph), torch.from_numpy(runs.wiring.graph.is_edge)
    with torch.no_grad():
        assert torch.equal(logits_of(model, runs, keep), logits_of(model, runs, torch.where(is_edge, keep, 0.123)))


def by_sender_and_written_out(by_sender, case):
    model, runs, _ = set_up(case)
    keep = by_sender(runs.wiring.graph)
    with torch.no_grad():
        return logits_of(model, runs, keep), logits_of(model, runs, keep.expand(runs.wiring.graph.is_edge.shape))


@pytest.mark.parametrize("case", CASES)
def test_one_share_for_all_edges_is_the_same_for_each(case):
    found = by_sender_and_written_out(lambda graph: torch.full((len(graph.senders),), 0.3, dtype=torch.float64), case)
    torch.testing.assert_close(*found, atol=1e-12, rtol=1e-12)


def test_one_share_for_each_sender_is_the_same_for_all_receivers():
    found = by_sender_and_written_out(lambda graph: random_keep(graph)[0], "layer norm")
    torch.testing.assert_close(*found, atol=1e-12, rtol=1e-12)


def test_shares_may_differ_by_position():
    model, runs, group = set_up("layer norm")
    graph = runs.wiring.graph
    keep = torch.ones(1, 5, *graph.is_edge.shape, dtype=torch.float64)
    edge = graph.edge("a0.h1 -> logits")
    receiver, sender = graph.ends[edge]
    keep[0, 2, receiver, sender] = 0.0
    with torch.no_grad():
        found, plain = logits_of(model, runs, keep), group.run().logits
        whole = logits_of(model, runs, keep[0, 2])
    same = [0, 1, 3, 4]
    torch.testing.assert_close(found[:, same], plain[:, same], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found[:, 2], whole[:, 2], atol=1e-12, rtol=1e-12)


class Broke(Exception):
    """A metric's own."""


def failing(after):
    """A metric that raises at its n-th call."""
    calls = []

    def function(logits, pairs):
        calls.append(1)
        if len(calls) > after:
            raise Broke
        return logits[:, -1, 0]

    return Metric("failing", "logits", function)


METHODS = ["exact", "eap", "eap-ig", "clean-corrupted", "eap-ig-activations", "mask-ig", "atp-qk", "atp-drop"]


def unlike_defaults(model):
    """Training mode here, no gradients there, and a hook of the caller's own."""
    module = model.module
    module.eval()
    norm = dict(module.named_modules())["blocks.0.ln1" if hasattr(module, "blocks") else "model.layers.0.input_layernorm"]
    norm.train()
    for ix, parameter in enumerate(module.parameters()):
        parameter.requires_grad_(ix % 2 == 0)
    hook = norm.register_forward_hook(lambda *args: None)

    def back():
        hook.remove()
        module.eval().requires_grad_(True)

    return back


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after", [None, 0, 1])
def test_nothing_stays_of_a_run_that_ends_or_breaks(method, after):
    model, task = model_of("layer norm"), make_task((4, 5, 4))
    options = {"n_steps": 2} if "ig" in method else {}
    back = unlike_defaults(model)
    try:
        before, weights = state_of(model.module), {n: p.clone() for n, p in model.module.named_parameters()}
        bench = Bench(model, task, "logit_gap" if after is None else failing(after))
        if after is None:
            score_edges(model, task, method=method, n_checks=2, bench=bench, **options)
        else:
            with pytest.raises(Broke):
                score_edges(model, task, method=method, n_checks=2, bench=bench, **options)
        assert state_of(model.module) == before
        assert all(torch.equal(p, weights[n]) and p.grad is None for n, p in model.module.named_parameters())
    finally:
        back()


@pytest.mark.parametrize("after", [None, 0, 1])
def test_grouped_attention_is_as_before(after):
    model, task = llama(), make_task((4, 4))
    groups = [layer.self_attn.num_key_value_groups for layer in model.module.model.layers]
    before = state_of(model.module)
    metric = "logit_gap" if after is None else failing(after)
    runs = EdgeRuns(Bench(model, task, metric), wiring_of(model, per_query_head=True))
    for method in ("eap", "clean-corrupted"):
        try:
            score_edges(model, task, method=method, n_checks=0, per_query_head=True, bench=runs.bench)
            runs.measure([np.zeros(runs.wiring.graph.n_edges, dtype=bool)])
            assert after is None
        except Broke:
            assert after is not None
        assert groups == [layer.self_attn.num_key_value_groups for layer in model.module.model.layers] == [3, 3, 3]
        assert state_of(model.module) == before
