"""Planted models behave as they are written: redundant heads, and a model in which everything adds up."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.trial.metric import find_metric
from optrode.trial.run import Bench
from optrode.truth.planted import linear, or_gate
from tests.unit.truth.naive import exact_effects, graph_of, run_with, writes_of


def joint_effect(planted, edges):
    """Mean effect of edges into one kind of receiver each, all taken at once: as the sum of changes at the first block."""
    module, task = planted.model.module, planted.task
    clean, corrupt = (torch.tensor([pair.world(world) for pair in task.pairs]) for world in ("clean", "corrupt"))
    with torch.no_grad():
        (before, logits), (after, _) = writes_of(module, clean), writes_of(module, corrupt)
        graph = graph_of(planted.model)
        ends = {graph.ends[graph.edge(edge)][0] for edge in edges}
        assert len(ends) == 1
        change = sum(after[edge.split(" -> ")[0]] - before[edge.split(" -> ")[0]] for edge in edges)
        found = run_with(module, clean, graph.receiver_ends[ends.pop()], change)
    metric = find_metric(task.metric)
    return float((metric.function(found, task.pairs) - metric.function(logits, task.pairs)).mean())


def test_the_gate_says_whether_the_first_token_is_yes():
    planted = or_gate()
    bench = Bench(planted.model, planted.task)
    assert len(planted.task) == 24 == len({pair.clean for pair in planted.task.pairs})
    assert bench.base("clean") == pytest.approx([0.51] * 24, abs=1e-12)  # min(1 + 1, 1) and the leak of .01, less .5
    assert bench.base("corrupt") == pytest.approx([-0.5] * 24, abs=1e-12)
    assert bench.accuracy("clean") == 1.0


def test_either_copy_can_go_but_not_both():
    planted = or_gate()
    effects = exact_effects(planted.model, planted.task, find_metric("logit_gap"))
    full = -1.01
    assert {edge for edge, effect in effects.items() if abs(effect) > 1e-9} == set(planted.edges)
    for edge in (*planted.redundant[0], *planted.redundant[1]):
        assert effects[edge] == pytest.approx(-0.01, abs=1e-12)
    assert effects["m0 -> logits"] == pytest.approx(full)
    joint = joint_effect(planted, planted.redundant[1])
    assert joint == pytest.approx(full)
    assert joint / sum(effects[edge] for edge in planted.redundant[1]) > 1.5


def test_without_a_leak_a_single_copy_is_worth_nothing():
    planted = or_gate(leak=0.0)
    effects = exact_effects(planted.model, planted.task, find_metric("logit_gap"))
    assert all(effects[edge] == 0 for group in planted.redundant for edge in group)


def test_first_order_effects_are_exact_in_the_linear_model():
    planted = linear(4)
    module, task, metric = planted.model.module, planted.task, find_metric("logit_gap")
    graph = graph_of(planted.model)
    exact = exact_effects(planted.model, task, metric)
    clean, corrupt = (torch.tensor([pair.world(world) for pair in task.pairs]) for world in ("clean", "corrupt"))
    with torch.no_grad():
        (before, _), (after, _) = writes_of(module, clean), writes_of(module, corrupt)
    for edge, (receiver, sender) in enumerate(graph.ends):
        end, name = graph.receiver_ends[receiver], graph.senders[sender]
        nudge = torch.zeros_like(before[name], requires_grad=True)
        metric.function(run_with(module, clean, end, nudge), task.pairs).sum().backward()
        first = (nudge.grad * (after[name] - before[name])).sum((1, 2)).mean()
        assert float(first) == pytest.approx(exact[graph.name(edge)], abs=1e-12)
    moved = [name for name, effect in exact.items() if abs(effect) > 1e-6]
    assert all(name.endswith((".v", "logits")) for name in moved) and len(moved) == 1 * 2 + 3 * 2 + 5 * 2 + 7


def test_attention_of_the_linear_model_is_even():
    import optrode as op

    planted = linear(2)
    pattern = op.record(planted.model, [list(planted.task.pairs[0].clean)], "blocks.1.attn.pattern")["blocks.1.attn.pattern"]
    expected = torch.ones(8, 8, dtype=torch.float64).tril() / torch.arange(1, 9)[:, None]
    torch.testing.assert_close(pattern, expected.expand(1, 2, 8, 8))


def test_too_few_or_too_many_pairs_are_refused():
    with pytest.raises(BadOption, match="or_gate with n=217: there are 1 to 216 different pairs"):
        or_gate(217)
    with pytest.raises(BadOption, match="linear with n=0"):
        linear(0)
