"""Scores, circuits and proofs against exact runs and against cases where the answer is known."""

import random

import numpy as np
import pytest
import torch

import optrode as op
from optrode.circuit.circuit import Interval, NodeScore
from optrode.circuit.gradient import attribute
from optrode.circuit.interval import draws, mean_interval, ratio, ratio_interval
from optrode.circuit.judge import metric_of
from optrode.circuit.look import head_scores, look_at_heads
from optrode.circuit.nodes import ablate, all_nodes, is_head
from optrode.circuit.score import score
from optrode.circuit.verbs import find, prove
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.naive import run_naively
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench
from optrode.trial.trial import Trial
from tests.unit.trial.test_run import make_pair, make_task

FAMILIES = ["llama", "gpt2", "gpt_neox", "phi3"]


def make_model(family="gpt2"):
    return from_source(tiny(family).double())


def test_nodes_are_every_head_and_every_mlp():
    nodes = all_nodes(make_model())
    assert len(nodes) == 3 * (4 + 1) and nodes[0] == "blocks.0.attn.z[head=0]" and nodes[4] == "blocks.0.mlp_out"
    assert sum(map(is_head, nodes)) == 12


def test_heads_of_one_layer_share_a_gate():
    gates = ablate(["blocks.1.attn.z[head=3]", "blocks.1.mlp_out", "blocks.1.attn.z[head=0]"], "zero")
    assert [str(gate.site) for gate in gates] == ["blocks.1.attn.z[head=0|3]", "blocks.1.mlp_out"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ablation", ["resample", "zero", "mean"])
def test_exact_scores_are_naive_runs(family, ablation):
    model, task = make_model(family), make_task()
    scores = score(model, task, method="exact", ablation=ablation)
    base = run_naively(model, task, Trial((), "clean", "logit_gap"))
    for node in scores.nodes[::3]:
        gated = run_naively(model, task, Trial(ablate([node.node], ablation), "clean", "logit_gap"))
        assert node.per_prompt == pytest.approx([g - b for g, b in zip(gated, base, strict=True)], abs=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ablation", ["resample", "zero", "mean"])
def test_attribution_is_the_derivative_of_a_weak_gate(family, ablation):
    model, task, eps = make_model(family), make_task(), 1e-4
    bench = Bench(model, task)
    effects = attribute(bench, all_nodes(model), ablation)
    base = bench.base("clean")
    for node in all_nodes(model)[::4]:
        (gate,) = ablate([node], ablation)
        weak = bench.run(Trial((type(gate)(gate.site, gate.actuator, eps),), "clean", "logit_gap"))
        slope = [(w - b) / eps for w, b in zip(weak, base, strict=True)]
        tolerance = 2e-2 if family in ("llama", "phi3") else 1e-3  # RMS norms round to float32
        assert effects[node].sum(1).tolist() == pytest.approx(slope, rel=tolerance, abs=tolerance)


def test_integrated_gradients_take_more_points_and_agree_better_on_average():
    model = make_model()
    task = make_task((6,) * 8)
    methods = ("exact", "attribution", "ig")
    found = [score(model, task, method=method, n_spot_checks=0).nodes for method in methods]
    exact, one, many = (np.array([node.effect for node in nodes]) for nodes in found)
    assert np.corrcoef(exact, one)[0, 1] > 0.5 and np.corrcoef(exact, many)[0, 1] > 0.5
    assert not np.allclose(one, many)


def test_scores_do_not_depend_on_the_other_prompts():
    model = make_model()
    both, alone = make_task((5, 7, 5)), make_task((5, 7, 5)).take(1)
    wide, narrow = (score(model, task, method="ig", n_spot_checks=0).nodes for task in (both, alone))
    assert [n.per_prompt[0] for n in wide] == pytest.approx([n.per_prompt[0] for n in narrow], abs=1e-10)


def test_spot_checks_are_exact_effects():
    model, task = make_model(), make_task()
    check = score(model, task, method="attribution", n_spot_checks=3).spot_check
    assert len(check.nodes) == 6 and check.is_top == (True,) * 3 + (False,) * 3
    exact = {n.node: n.effect for n in score(model, task, method="exact").nodes}
    assert check.exact == pytest.approx([exact[node] for node in check.nodes], abs=1e-11)


@pytest.fixture(scope="module")
def found():
    model, task = make_model(), make_task((6,) * 6)
    circuit = find(model, task, method="exact", size=5)
    return model, task, circuit, prove(model, task, circuit, n_random=4, n_bootstrap=50)


class TestProof:
    def test_the_whole_model_is_faithful_and_nothing_is_not(self, found):
        model, task, circuit, proof = found
        assert proof.curve[-1].size == circuit.n_all and proof.curve[-1].faithfulness == pytest.approx(1)
        bench = Bench(model, task)
        nodes = all_nodes(model)
        assert np.mean(metric_of(bench, (), nodes, "resample")) == pytest.approx(proof.empty)
        assert np.mean(bench.base("clean")) == pytest.approx(proof.full)

    def test_faithfulness_is_that_of_a_naive_run(self, found):
        model, task, circuit, proof = found
        outside = [node for node in all_nodes(model) if node not in circuit.nodes]
        kept = run_naively(model, task, Trial(ablate(outside, "resample"), "clean", "logit_gap"))
        assert proof.faithfulness == pytest.approx((np.mean(kept) - proof.empty) / (proof.full - proof.empty))
        without = run_naively(model, task, Trial(ablate(circuit.nodes, "resample"), "clean", "logit_gap"))
        assert proof.completeness == pytest.approx((np.mean(without) - proof.empty) / (proof.full - proof.empty))

    def test_minimality_is_what_one_node_loses(self, found):
        model, task, circuit, proof = found
        node = proof.minimality[1]
        outside = [n for n in all_nodes(model) if n not in circuit.nodes or n == node.node]
        without = run_naively(model, task, Trial(ablate(outside, "resample"), "clean", "logit_gap"))
        share = (np.mean(without) - proof.empty) / (proof.full - proof.empty)
        assert node.lost == pytest.approx(proof.faithfulness - share)

    def test_controls_and_intervals_are_there(self, found):
        *_, circuit, proof = found
        assert len(proof.random) == 4 and len(proof.minimality) == circuit.size == proof.size == 5
        assert proof.interval.low <= proof.faithfulness <= proof.interval.high

    def test_the_same_seed_gives_the_same_proof(self, found):
        model, task, circuit, proof = found
        again = prove(model, task, circuit, n_random=4, n_bootstrap=50)
        assert again.random == proof.random and again.interval == proof.interval


def test_only_the_strongest_nodes_are_taken_out_one_by_one(found):
    model, task, circuit, _ = found
    proof = prove(model, task, circuit, n_random=0, n_minimality=2, n_bootstrap=10)
    assert [row.node for row in proof.minimality] == list(circuit.nodes[:2])


def test_a_circuit_grows_until_it_is_faithful():
    model, task = make_model(), make_task((6,) * 6)
    circuit = find(model, task, method="exact", target=0.5)
    proof = prove(model, task, circuit, n_random=0, n_bootstrap=10)
    assert proof.faithfulness >= 0.5 and circuit.target == 0.5
    assert [n.node for n in circuit.scores.ranked()[: circuit.size]] == list(circuit.nodes)


def test_a_planted_head_is_found():
    module = tiny("gpt2").double()
    with torch.no_grad():  # only head 2 of layer 1 may write anything
        for layer, block in enumerate(module.transformer.h):
            block.mlp.c_proj.weight.zero_()
            block.mlp.c_proj.bias.zero_()
            rows = block.attn.c_proj.weight.view(4, 9, 36)
            rows[[h for h in range(4) if (layer, h) != (1, 2)]] = 0
    model, task = from_source(module), make_task((6,) * 6)
    for method in ("exact", "attribution", "ig"):
        circuit = find(model, task, method=method, size=1)
        assert circuit.nodes == ("blocks.1.attn.z[head=2]",), method
    proof = prove(model, task, circuit, n_random=0, n_bootstrap=10)
    assert proof.faithfulness == pytest.approx(1) and proof.completeness == pytest.approx(0, abs=1e-9)


def test_intervals():
    values = np.random.default_rng(0).normal(3, 1, 400).tolist()
    drawn = draws(400, 0)
    interval = mean_interval(values, drawn)
    assert interval.low < 3 < interval.high and interval.high - interval.low == pytest.approx(4 * 0.05, rel=0.2)
    zeros, ones = [0.0] * 400, [1.0] * 400
    assert ratio(values, zeros, ones) == pytest.approx(np.mean(values))
    assert ratio_interval(values, zeros, ones, drawn) == interval


def test_heads_are_seen_where_they_look():
    rng = random.Random(0)
    pairs = tuple(make_pair(rng, 6) for _ in range(3))
    marked = tuple(Pair(p.clean, p.corrupt, p.right, p.wrong, marks={"io": 1, "s1": 2, "s2": 4, "end": 5}) for p in pairs)
    model = make_model()
    bench = Bench(model, Task("toy", "", "logit_gap", marked))
    nodes = ("blocks.1.attn.z[head=2]", "blocks.0.mlp_out")
    (view,) = look_at_heads(bench, [NodeScore(node, -1.0, Interval(-2.0, 0.0), (-1.0,) * 3) for node in nodes])
    pattern = op.record(model, [list(p.clean) for p in marked], "blocks.1.attn.pattern")["pattern", 1][:, 2].mean(0)
    assert view.routes["end -> io"] == pytest.approx(float(pattern[5, 1]))
    assert view.routes["s2 -> s1+1"] == pytest.approx(float(pattern[4, 3]))


def test_pattern_scores_know_a_head_that_always_looks_one_back():
    model = make_model()
    tokens = torch.randint(1, 61, (8,)).tolist()
    pair = Pair(tuple(tokens * 2), tuple(tokens[::-1] + tokens), (1,), (), marks={"repeat": 8, "end": 15})
    scores = head_scores(model, Task("induction", "", "logprob", (pair,)))
    pattern = op.record(model, [tokens * 2], "blocks.2.attn.pattern")["pattern", 2][0, 1]
    expected = np.mean([float(pattern[at, at - 1]) for at in range(8, 15)])
    assert scores.values[scores.kinds.index("previous token")][2][1] == pytest.approx(expected)
