"""Changes times gradients, written out sender by sender, also where norms stand after a half of a block."""

import numpy as np
import pytest
import torch

from optrode.circuit.edge.exact import exact_effects
from optrode.circuit.edge.hold import holding
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.score import score_edges
from optrode.circuit.edge.wiring import wiring_of
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.run import Bench
from tests.unit.circuit.edge.cases import far
from tests.unit.trial.test_run import make_task

pytestmark = [
    pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),  # torch.func.jvp uses it at its first call
]


def mask_slope(runs, edge, eps):
    """[prompt] slope of the metric when one edge goes, by central differences of shares kept: below 1 and above."""
    graph, model = runs.wiring.graph, runs.wiring.model
    receiver, sender = graph.ends[edge]
    found = []
    for share in (1 - eps, 1 + eps):
        keep = torch.ones(graph.is_edge.shape, dtype=torch.float64)
        keep[receiver, sender] = share
        with torch.no_grad(), holding(runs.wiring, keep, runs.ablated(0)):
            logits = model.module(input_ids=runs.bench.worlds.inputs("clean", 0)).logits[:, -1:]
        found.append(np.array(runs.bench.measured(logits, 0)))
    return (found[0] - found[1]) / (2 * eps)


TOLERANCE = {"gpt2": 1e-6, "gpt_neox": 1e-6, "bert": 1e-6, "bloom": 2e-3}
"""BLOOM's attention rounds to float32. The stream of BERT is normed itself, after each half of a block."""


@pytest.mark.parametrize("family", TOLERANCE)
def test_scores_are_slopes_of_the_metric_as_edges_go(family):
    model = from_source(tiny(family).double())
    runs = EdgeRuns(Bench(model, make_task((5, 5))), wiring_of(model))
    eap = score_edges(model, runs.bench.task, method="eap", n_checks=0).per_prompt
    edges = [*range(0, runs.wiring.graph.n_edges, 47), runs.wiring.graph.n_edges - 1]
    wanted = np.stack([mask_slope(runs, edge, 1e-3 if family == "bloom" else 1e-4) for edge in edges], 1)
    assert np.abs(eap[:, edges] - wanted).max() <= TOLERANCE[family] * np.abs(eap).max()


@pytest.mark.parametrize("family", ["gemma3_text", "olmo2"])
def test_where_outputs_are_normed_edges_into_the_logits_are_nearly_exact(family):
    model = from_source(tiny(family).double())
    runs = EdgeRuns(Bench(model, make_task((5, 5))), wiring_of(model))
    graph = runs.wiring.graph
    into = np.flatnonzero(graph.ends[:, 0] == len(graph.receivers) - 1)
    eap = score_edges(model, runs.bench.task, method="eap", n_checks=0).per_prompt
    exact = exact_effects(runs, into.tolist())
    assert np.corrcoef(eap[:, into].ravel(), exact.ravel())[0, 1] > 0.8


def test_few_rows_at_a_time_change_nothing(monkeypatch):
    for family in ("gpt2", "bert", "gemma3_text"):
        model, task = from_source(tiny(family).double()), make_task((5, 5, 5))
        whole = score_edges(model, task, method="eap", n_checks=0).per_prompt
        with monkeypatch.context() as patch:
            patch.setattr("optrode.circuit.edge.contract.N_FLOATS", 1)
            assert far(score_edges(model, task, method="eap", n_checks=0).per_prompt, whole) <= 1e-6
