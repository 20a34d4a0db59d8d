"""Proofs of edge circuits: every number again from the metric of circuits run by the forward pass written out."""

import numpy as np
import pytest

from optrode.circuit.edge.judge import prove_edges
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.score import score_edges
from optrode.circuit.edge.select import select
from optrode.circuit.verbs import find, prove
from optrode.trial.run import Bench
from optrode.truth.planted import or_gate
from optrode.truth.programs import load
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import llama, make_task, model_of
from tests.unit.circuit.edge.samples import make_circuit

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")

FEW = {"shares": (0.1, 0.5, 1.0), "n_random": 3, "n_minimality": 3, "n_subsets": 3, "n_receivers": 0, "n_bootstrap": 50}
MODEL, TASK = "attention only", make_task((4, 4))


def circuit_of(size=15, ablation="resample"):
    scores = score_edges(model_of(MODEL), TASK, method="eap", ablation=ablation, n_checks=0)
    return make_circuit(scores, size)


@pytest.fixture
def measured(monkeypatch):
    """Every circuit that a proof runs, by stage: [(mask, [prompt] metric)]."""
    found, measure = {}, EdgeRuns.measure

    def noted(self, kept, progress=None, stage="circuits"):
        values = measure(self, kept, progress, stage) if progress else measure(self, kept)
        found.setdefault(stage, []).extend(zip(kept, values, strict=True))
        return values

    monkeypatch.setattr(EdgeRuns, "measure", noted)
    return found


def mean_of(mask, ablation="resample"):
    return naive.circuits(naive.net_of(model_of(MODEL).module), TASK, [mask], ablation=ablation)[0].mean()


@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_faithfulness_is_that_of_written_out_runs(ablation):
    circuit = circuit_of(ablation=ablation)
    proof = prove_edges(model_of(MODEL), TASK, circuit, **FEW)
    every = np.ones(circuit.n_all, dtype=bool)
    full, empty = mean_of(every, ablation), mean_of(~every, ablation)
    assert (proof.full, proof.empty) == pytest.approx((full, empty), abs=1e-11) and proof.ablation == ablation
    for found, mask in ((proof.faithfulness, circuit.is_in), (proof.without, ~circuit.is_in)):
        assert found == pytest.approx((mean_of(mask, ablation) - empty) / (full - empty), abs=1e-10)
    assert proof.size == 15 and proof.n_all == 61 and proof.n_prompts == 2


def test_curves_are_measured_at_shares_of_the_edges_and_end_at_one():
    circuit = circuit_of()
    proof = prove_edges(model_of(MODEL), TASK, circuit, **FEW)
    assert [curve.selection for curve in proof.curves] == ["absolute", "signed"]
    for curve in proof.curves:
        assert [point.size for point in curve.points] == [6, 30, 61] and curve.points[-1].faithfulness == pytest.approx(1.0)
        for point in curve.points:
            mask = select(circuit.scores, point.size, curve.selection)
            share = (mean_of(mask) - proof.empty) / (proof.full - proof.empty)
            assert point.faithfulness == pytest.approx(share, abs=1e-10)
        values = [point.faithfulness for point in curve.points]
        areas = [(0.4, values[0], values[1]), (0.5, values[1], values[2])]
        assert curve.cpr == pytest.approx(sum(width * (a + b) / 2 for width, a, b in areas))
        assert curve.cmd == pytest.approx(sum(width * (abs(1 - a) + abs(1 - b)) / 2 for width, a, b in areas))


def test_random_circuits_have_as_many_edges_into_each_kind_of_receiver(measured):
    circuit = circuit_of()
    proof = prove_edges(model_of(MODEL), TASK, circuit, **FEW)
    graph = circuit.graph
    kinds = np.array([graph.receiver_ends[receiver].kind for receiver in graph.ends[:, 0]])
    drawn = measured["proof: random circuits"]
    assert len(drawn) == 3 == len(proof.random) and len({mask.tobytes() for mask, _ in drawn}) == 3
    for (mask, values), share in zip(drawn, proof.random, strict=True):
        assert all(mask[kinds == kind].sum() == circuit.is_in[kinds == kind].sum() for kind in ("q", "k", "v", "logits"))
        assert share == pytest.approx((np.mean(values) - proof.empty) / (proof.full - proof.empty))


def test_completeness_takes_subsets_from_the_circuit_and_from_the_model(measured):
    circuit = circuit_of()
    proof = prove_edges(model_of(MODEL), TASK, circuit, **FEW)
    drawn = measured["proof: completeness"]
    assert len(drawn) == 6
    masks = [mask for mask, _ in drawn]
    for outside, inside, gap in zip(masks[::2], masks[1::2], proof.completeness, strict=True):
        taken = ~outside
        assert 1 <= taken.sum() < 15 and not (taken & ~circuit.is_in).any()
        np.testing.assert_array_equal(inside, circuit.is_in & ~taken)
        wanted = abs(mean_of(outside) - mean_of(inside)) / abs(proof.full - proof.empty)
        assert gap == pytest.approx(wanted, abs=1e-10)


def test_minimality_takes_the_strongest_edges_out_one_by_one():
    circuit = circuit_of()
    proof = prove_edges(model_of(MODEL), TASK, circuit, **FEW)
    assert tuple(loss.edge for loss in proof.minimality) == circuit.edges[:3]
    for loss in proof.minimality:
        left = circuit.is_in & ~circuit.graph.edges([loss.edge])
        wanted = (mean_of(circuit.is_in) - mean_of(left)) / (proof.full - proof.empty)
        assert loss.lost == pytest.approx(wanted, abs=1e-10)


def test_the_whole_model_is_its_own_circuit():
    circuit = circuit_of(61)
    proof = prove_edges(model_of(MODEL), TASK, circuit, **FEW)
    assert proof.faithfulness == 1.0 and proof.without == pytest.approx(0.0, abs=1e-12)
    assert proof.random == pytest.approx((1.0,) * 3) and max(proof.completeness) == pytest.approx(0.0, abs=1e-12)
    assert (proof.interval.low, proof.interval.high) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("size", [0, 1])
def test_circuits_of_no_edge_or_one_are_judged_too(size):
    proof = prove_edges(model_of(MODEL), TASK, circuit_of(size), **FEW)
    assert proof.size == size and proof.completeness == () and len(proof.minimality) == size
    if not size:
        assert proof.faithfulness == pytest.approx(0.0, abs=1e-12) and proof.random == pytest.approx((0.0,) * 3, abs=1e-12)


def test_controls_can_be_left_out():
    none = {"n_random": 0, "n_minimality": 0, "n_subsets": 0, "n_receivers": 0, "n_bootstrap": 20}
    proof = prove_edges(model_of(MODEL), TASK, circuit_of(), shares=(0.5, 1.0), **none)
    assert proof.random == proof.completeness == proof.minimality == proof.redundancy == ()


def test_circuits_by_query_head_are_proven_by_query_head():
    task = make_task((4, 4))
    circuit = find(llama(), task, level="edge", method="eap", size=40, n_checks=0, per_query_head=True)
    proof = prove(llama(), task, circuit, **FEW)
    net = naive.net_of_llama(llama().module, True)
    every = np.ones(circuit.n_all, dtype=bool)
    full, empty, inside = naive.circuits(net, task, [every, ~every, circuit.is_in]).mean(1)
    assert proof.faithfulness == pytest.approx((inside - empty) / (full - empty), abs=1e-10)


def test_the_true_edges_of_a_program_are_faithful_complete_and_minimal():
    program = load("xproportion")
    bench = program.bench(6)
    exact = score_edges(bench.model, bench.task, method="exact", bench=bench)
    proof = prove_edges(bench.model, bench.task, make_circuit(exact, 3), **FEW, bench=bench)
    assert {loss.edge for loss in proof.minimality} == set(program.edges())
    assert proof.faithfulness == pytest.approx(1.0) and proof.without == pytest.approx(0.0, abs=1e-9)
    assert max(proof.completeness) <= 1e-9 and all(loss.lost > 0.1 for loss in proof.minimality)


def test_the_proof_of_the_or_gate_says_that_it_is_redundant():
    planted = or_gate(6)
    circuit = find(planted.model, planted.task, level="edge", method="exact", size=5)
    proof = prove(planted.model, planted.task, circuit, **(FEW | {"n_receivers": 4}))
    assert [one.receiver for one in proof.redundancy if one.is_redundant] == ["m0"]


def test_a_proof_counts_its_own_passes():
    model, used = model_of(MODEL), Bench(model_of(MODEL), TASK)
    circuit = circuit_of()
    wanted = prove_edges(model, TASK, circuit, **FEW).provenance.n_passes
    score_edges(model, TASK, method="mask-ig", n_checks=0, bench=used)
    assert prove_edges(model, TASK, circuit, **FEW, bench=used).provenance.n_passes <= wanted
