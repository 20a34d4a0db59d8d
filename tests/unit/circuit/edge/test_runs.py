"""Runs with edges ablated against a forward pass in which every receiver reads a tensor of its own."""

from dataclasses import replace

import numpy as np
import pytest

from optrode.circuit.edge.runs import EdgeRuns, share_of
from optrode.circuit.edge.wiring import wiring_of
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.store.store import Store
from optrode.trial.run import Bench
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import SPECS, Counted, far, llama, make_task, model_of, ungrouped_llama
from tests.unit.trial import test_run

FAMILIES = ["gpt2", "gpt_neox", "llama", "qwen3", "phi3", "gemma2", "gemma3_text", "olmo2", "mixtral", "bloom", "bert"]


def runs_of(model, task, ablation="resample", per_query_head=False, **options):
    return EdgeRuns(Bench(model, task, **options), wiring_of(model, per_query_head=per_query_head), ablation)


def random_masks(graph, n=4, random_seed=0):
    """Circuits of few, half and most edges."""
    rng = np.random.default_rng(random_seed)
    return [rng.random(graph.n_edges) < share for share in np.linspace(0.1, 0.9, n)]


@pytest.mark.parametrize("case", SPECS)
def test_circuits_have_the_metric_of_the_definition(case):
    model, task = model_of(case), make_task((5, 7, 5))
    runs = runs_of(model, task)
    masks = random_masks(runs.wiring.graph)
    wanted = naive.circuits(naive.net_of(model.module), task, masks)
    assert far(runs.measure(masks), wanted) <= 1e-11


@pytest.mark.parametrize("ablation", ["zero", "mean"])
@pytest.mark.parametrize("case", ["layer norm", "RMS norm, grouped K/V", "not causal"])
def test_other_ablations_too(case, ablation):
    model, task = model_of(case), make_task((5, 7, 5))
    runs = runs_of(model, task, ablation)
    masks = random_masks(runs.wiring.graph, 3)
    assert far(runs.measure(masks), naive.circuits(naive.net_of(model.module), task, masks, ablation=ablation)) <= 1e-11


@pytest.mark.parametrize("per_query_head", [False, True])
def test_grouped_keys_are_ablated_by_group_or_by_query_head(per_query_head):
    task = make_task((5, 4))
    runs = runs_of(llama(), task, per_query_head=per_query_head)
    masks = random_masks(runs.wiring.graph, 3)
    wanted = naive.circuits(naive.net_of_llama(llama().module, per_query_head), task, masks)
    assert far(runs.measure(masks), wanted) <= 1e-11


def test_by_query_head_circuits_are_those_of_the_model_with_keys_written_out():
    grouped, plain = (runs_of(one, make_task((5, 4)), per_query_head=True) for one in (llama(), ungrouped_llama()))
    masks = random_masks(grouped.wiring.graph, 3)
    assert far(grouped.measure(masks), plain.measure(masks)) <= 1e-11


@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_family_the_ends_are_the_plain_runs(family):
    overrides = {"experts_implementation": "eager"} if family == "mixtral" else {}
    model = from_source(tiny(family, **overrides).double())
    runs = runs_of(model, test_run.make_task((5, 6, 5)))
    every = np.ones(runs.wiring.graph.n_edges, dtype=bool)
    whole, none = runs.measure([every])[0], runs.measure([~every])[0]
    assert whole == runs.full == runs.bench.base("clean")
    tolerance = 1e-10 if family in ("gpt2", "gpt_neox", "bloom", "bert") else 1e-5  # RMS norms round to float32
    assert far(none, runs.bench.base("corrupt")) <= tolerance
    assert runs.empty == pytest.approx(none, abs=1e-9)


def test_in_full_precision_resampling_every_edge_is_the_corrupt_run():
    for case in SPECS:
        runs = runs_of(model_of(case), make_task((5, 6, 5)))
        assert far(runs.empty, runs.bench.base("corrupt")) <= 1e-11
        every = np.ones(runs.wiring.graph.n_edges, dtype=bool)
        assert runs.measure([every])[0] == runs.bench.base("clean")


def test_company_and_little_memory_change_nothing(monkeypatch):
    model, task = model_of("RMS norm, grouped K/V"), make_task((5, 7, 5, 5))
    runs = runs_of(model, task)
    masks = random_masks(runs.wiring.graph, 7)
    together = runs.measure(masks)
    assert far([runs.measure([mask])[0] for mask in masks], together) <= 1e-11
    assert far(runs_of(model, task, memory_gib=1e-6).measure(masks), together) <= 1e-11
    monkeypatch.setattr("optrode.circuit.edge.runs.N_TOKENS", 1)
    assert far(runs_of(model, task).measure(masks), together) <= 1e-11
    apart = [runs_of(model, replace(task, pairs=(pair,))).measure(masks) for pair in task.pairs]
    assert far(np.concatenate(apart, 1), together) <= 1e-11


def test_masks_by_position_keep_an_edge_where_they_say():
    for case in ("layer norm", "not causal"):
        runs = runs_of(model_of(case), make_task((6, 6)))
        masks = random_masks(runs.wiring.graph, 3)
        everywhere = [np.repeat(mask[:, None], 6, 1) for mask in masks]
        assert far(runs.measure(everywhere), runs.measure(masks)) <= 1e-11
        assert far([runs.measure([mask])[0] for mask in everywhere], runs.measure(masks)) <= 1e-11
    logits = np.ones((runs.wiring.graph.n_edges, 6), dtype=bool)
    into_logits = runs.wiring.graph.ends[:, 0] == len(runs.wiring.graph.receivers) - 1
    logits[into_logits, :5] = False  # the metric reads the last position alone
    assert runs.measure([logits])[0] == pytest.approx(runs.full, abs=1e-12)
    logits[into_logits, 5] = False
    assert runs.measure([logits])[0] == pytest.approx(runs.bench.base("corrupt"), abs=1e-11)


def test_a_store_keeps_circuits_and_tells_them_apart(tmp_path):
    model, task = model_of("layer norm"), make_task((5, 5))
    with Store(tmp_path) as store:
        runs = runs_of(model, task, store=store)
        masks = random_masks(runs.wiring.graph, 3)
        first = runs.measure(masks)
        with Counted(model.module) as count:
            assert runs_of(model, task, store=store).measure(masks[::-1]) == first[::-1]
        assert count.forward == 0
        zeroed = runs_of(model, task, "zero", store=store).measure(masks)
        assert far(zeroed, runs_of(model, task, "zero").measure(masks)) <= 1e-12 and zeroed != first
        other = make_task((5, 5), random_seed=1)
        assert far(runs_of(model, other, store=store).measure(masks), runs_of(model, other).measure(masks)) <= 1e-12


def test_progress_counts_circuits():
    told, runs = [], runs_of(model_of("layer norm"), make_task((8,) * 8))
    runs.measure(random_masks(runs.wiring.graph, 20), lambda *step: told.append(step), "some")
    assert told[0] == ("some", 0, 20) and told[-1] == ("some", 20, 20) and len(told) > 2


def test_faithfulness_is_a_ratio_of_means():
    assert share_of((2.0, 4.0), (0.0, 2.0), (3.0, 7.0)) == pytest.approx(0.5)
