"""From scores to circuits: sizes, selections, searches, and the verbs in front of them."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import optrode as op
from optrode.circuit.circuit import Circuit
from optrode.circuit.edge.acdc import acdc
from optrode.circuit.edge.curve import FINE, sizes_of
from optrode.circuit.edge.prune import prune
from optrode.circuit.edge.records import EdgeCircuit
from optrode.circuit.edge.runs import EdgeRuns, share_of
from optrode.circuit.edge.score import score_edges
from optrode.circuit.edge.select import select
from optrode.circuit.edge.wiring import wiring_of
from optrode.circuit.verbs import find, level_of
from optrode.errors import BadOption
from optrode.trial.run import Bench
from optrode.truth.programs import load
from tests.unit.circuit.edge.cases import llama, make_task, model_of

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")

MODEL, TASK = "attention only", make_task((4, 4))


def edges(**options):
    return find(model_of(MODEL), TASK, level="edge", **({"n_checks": 0} | options))


@pytest.mark.parametrize("selection", ["absolute", "signed", "greedy"])
def test_a_size_takes_the_strongest(selection):
    circuit = edges(method="eap", size=9, selection=selection)
    scores = score_edges(model_of(MODEL), TASK, method="eap", n_checks=0)
    np.testing.assert_array_equal(circuit.is_in, select(scores, 9, selection))
    np.testing.assert_array_equal(circuit.scores.per_prompt, scores.per_prompt)
    assert (circuit.size, circuit.n_all, circuit.selection, circuit.target) == (9, 61, selection, 0.0)
    assert set(circuit.edges) == {circuit.graph.name(int(ix)) for ix in np.flatnonzero(circuit.is_in)}


@pytest.mark.parametrize("target", [0.5, 0.9])
def test_without_a_size_it_is_the_smallest_of_the_ladder_that_reaches_the_target_twice(target):
    circuit = edges(method="eap", target=target)
    runs = EdgeRuns(Bench(model_of(MODEL), TASK), wiring_of(model_of(MODEL)))
    ladder = sorted(set(sizes_of(61, FINE[:-1])))
    shares = [share_of(runs.measure([select(circuit.scores, n)])[0], runs.empty, runs.full) for n in ladder]
    pairs = [n for n, a, b in zip(ladder, shares, shares[1:], strict=False) if a >= target and b >= target]
    last = [ladder[-1]] if shares[-1] >= target else [61]
    assert circuit.size == [*pairs, *last][0] and circuit.target == target


def test_acdc_chooses_its_own_size():
    runs = EdgeRuns(Bench(model_of(MODEL), TASK), wiring_of(model_of(MODEL)))
    circuit = find(model_of(MODEL), TASK, method="acdc", tau=0.05)
    kept, gains = acdc(runs, 0.05)
    np.testing.assert_array_equal(circuit.is_in, kept)
    np.testing.assert_allclose(circuit.scores.per_prompt, -gains, atol=1e-12)
    assert circuit.selection == "acdc" == circuit.scores.method and circuit.scores.settings == {"tau": "0.05"}


def test_candidates_are_the_strongest_by_integrated_gradients():
    circuit = find(model_of(MODEL), TASK, method="acdc", tau=0.0, candidates=8)
    strongest = select(score_edges(model_of(MODEL), TASK, n_checks=0), 8)
    assert not (circuit.is_in & ~strongest).any() and circuit.size <= 8


def test_pruning_keeps_the_size_asked_for(monkeypatch):
    monkeypatch.setattr("optrode.circuit.edge.find.prune", partial(prune, n_steps=2))
    circuit = find(model_of(MODEL), TASK, method="pruning", size=7)
    assert circuit.size == 7 and circuit.selection == "pruning"


def test_searches_by_query_head_keep_to_it():
    circuit = find(llama(), make_task((4, 4)), method="acdc", tau=1e9, candidates=3, per_query_head=True)
    assert circuit.graph.n_kv == 6


def test_searches_by_query_head_can_be_proven():
    task = make_task((4, 4))
    circuit = find(llama(), task, method="acdc", tau=1e9, candidates=3, per_query_head=True)
    op.prove(llama(), task, circuit, shares=(0.5, 1.0), n_random=0, n_minimality=0, n_subsets=0, n_receivers=0)


def test_true_edges_of_a_program_are_found_by_scores_and_searches():
    program = load("xproportion")
    for options in ({"method": "exact", "size": 3}, {"method": "eap", "size": 3}, {"method": "acdc", "tau": 1e-6}):
        bench = program.bench(6)
        circuit = find(bench.model, bench.task, level="edge", bench=bench, **options)
        assert set(circuit.edges) == set(program.edges())


def test_verbs_work_at_the_level_of_the_method():
    assert [level_of(method) for method in ("", "exact", "ig", "eap", "acdc", "pruning", "nonsense")] == [
        "node", "node", "node", "edge", "edge", "edge", "node",
    ]  # fmt: skip
    model = model_of(MODEL)
    assert isinstance(op.find(model, TASK, method="eap", size=3, n_checks=0), EdgeCircuit)
    assert isinstance(op.find(model, TASK, method="exact", level="edge", size=3), EdgeCircuit)
    assert isinstance(op.find(model, TASK, method="exact"), Circuit)
    assert op.find(model, TASK, level="edge", size=3, n_checks=0).scores.method == "eap-ig"


def test_scores_found_before_are_chosen_from_again():
    model = model_of(MODEL)
    scores = score_edges(model, TASK, method="eap", ablation="zero", n_checks=0)
    circuit = find(model, TASK, scores=scores, size=6, selection="signed")
    assert circuit.scores is scores and circuit.size == 6 and (circuit.is_in == select(scores, 6, "signed")).all()
    again = find(model, TASK, scores=scores)
    assert again.size == find(model, TASK, method="eap", ablation="zero", n_checks=0).size
    with pytest.raises(BadOption, match="n_checks belongs to scoring"):
        find(model, TASK, scores=scores, n_checks=3)
    with pytest.raises(BadOption, match="the task is other"):
        find(model, replace(TASK, name="other"), scores=scores)
    searched = find(model, TASK, method="acdc", tau=1e9, candidates=3).scores
    with pytest.raises(BadOption, match="a search has no scores to choose from again"):
        find(model, TASK, scores=searched)
