"""Exact effects, which the planner packs, against the definition and against whole runs with one edge ablated."""

from dataclasses import replace

import numpy as np
import pytest

from optrode.circuit.edge.exact import exact_effects
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.wiring import wiring_of
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.run import Bench
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import SPECS, far, llama, make_task, model_of, ungrouped_llama
from tests.unit.trial import test_run

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")

FAMILIES = ["gpt2", "gpt_neox", "llama", "phi3", "gemma3_text", "olmo2", "mixtral", "bloom", "bert"]
GROUPED = ["llama", "gemma3_text"]


def runs_of(model, task, ablation="resample", per_query_head=False):
    return EdgeRuns(Bench(model, task), wiring_of(model, per_query_head=per_query_head), ablation)


def one_off(runs, edges):
    """[prompt, edge] effects by whole runs, each with all edges kept but one."""
    every = np.ones(runs.wiring.graph.n_edges, dtype=bool)
    masks = [every & (np.arange(len(every)) != edge) for edge in edges]
    return np.array(runs.measure(masks)).T - np.array(runs.full)[:, None]


@pytest.mark.parametrize("case", SPECS)
def test_effects_are_those_of_the_definition(case):
    model, task = model_of(case), make_task((5, 5))
    runs = runs_of(model, task)
    found = exact_effects(runs, range(runs.wiring.graph.n_edges))
    assert far(found, naive.exact(naive.net_of(model.module), task)) <= 1e-11


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_other_ablations_and_lengths_are_those_of_the_definition(ablation):
    model, task = model_of("layer norm"), make_task((4, 6, 4))
    runs = runs_of(model, task, ablation)
    found = exact_effects(runs, range(runs.wiring.graph.n_edges))
    assert far(found, naive.exact(naive.net_of(model.module), task, ablation=ablation)) <= 1e-11


def some_edges(graph, n):
    """Edges into every kind of receiver, first and last senders among them."""
    step = max(1, graph.n_edges // n)
    return sorted({*range(0, graph.n_edges, step), graph.n_edges - 1})


@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_family_the_planner_gives_the_numbers_of_whole_runs(family):
    overrides = {"experts_implementation": "eager"} if family == "mixtral" else {}
    model = from_source(tiny(family, **overrides).double())
    runs = runs_of(model, test_run.make_task((5, 5)))
    edges = some_edges(runs.wiring.graph, 40)
    tolerance = 1e-10 if family in ("gpt2", "gpt_neox", "bloom", "bert") else 1e-5  # RMS norms round to float32
    assert far(exact_effects(runs, edges), one_off(runs, edges)) <= tolerance


def test_with_norms_in_full_grouped_keys_agree_to_the_last_digits():
    task = make_task((5, 5))
    for per_query_head in (False, True):
        runs = runs_of(llama(), task, per_query_head=per_query_head)
        edges = some_edges(runs.wiring.graph, 40)
        assert far(exact_effects(runs, edges), one_off(runs, edges)) <= 1e-10


def test_by_query_head_effects_are_those_of_the_model_with_keys_written_out():
    task = make_task((5, 4))
    grouped, plain = (runs_of(one, task, per_query_head=True) for one in (llama(), ungrouped_llama()))
    edges = some_edges(grouped.wiring.graph, 60)
    assert grouped.wiring.graph == plain.wiring.graph
    assert far(exact_effects(grouped, edges), exact_effects(plain, edges)) <= 1e-10


def test_columns_stand_in_the_order_asked_for():
    runs = runs_of(model_of("layer norm"), make_task((5, 4, 5)))
    edges = [70, 3, 41, 3, 0]
    found, whole = exact_effects(runs, edges), exact_effects(runs, range(runs.wiring.graph.n_edges))
    np.testing.assert_allclose(found, whole[:, edges], atol=1e-12)


def test_little_memory_changes_nothing(monkeypatch):
    runs = runs_of(model_of("layer norm"), make_task((5, 5)))
    whole = exact_effects(runs, range(20, 40))
    monkeypatch.setattr("optrode.circuit.edge.exact.N_FLOATS", 1)
    np.testing.assert_allclose(exact_effects(runs, range(20, 40)), whole, atol=1e-12)


def test_effects_do_not_depend_on_the_batch():
    model, task = model_of("RMS norm, grouped K/V"), make_task((5,) * 6)
    whole = exact_effects(runs_of(model, task), range(0, 82, 5))
    for start, stop in ((0, 1), (1, 6), (2, 5)):
        part = exact_effects(runs_of(model, replace(task, pairs=task.pairs[start:stop])), range(0, 82, 5))
        assert far(part, whole[start:stop]) <= 1e-10


def test_an_edge_whose_sender_stays_the_same_does_nothing():
    task = make_task((5, 5))
    same = replace(task, pairs=tuple(replace(pair, corrupt=pair.clean) for pair in task.pairs))
    runs = runs_of(model_of("layer norm"), same)
    assert np.abs(exact_effects(runs, range(runs.wiring.graph.n_edges))).max() <= 1e-14


def test_progress_counts_every_effect():
    told = []
    runs = runs_of(model_of("layer norm"), make_task((5, 4)))
    exact_effects(runs, range(10), lambda *step: told.append(step))
    assert told[-1] == ("exact effects", 20, 20) and [step[1] for step in told] == sorted({step[1] for step in told})
