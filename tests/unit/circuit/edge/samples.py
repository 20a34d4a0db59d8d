"""Graphs, scores and circuits of edges that no model was needed for."""

import numpy as np
from hypothesis import strategies as st

from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.records import EdgeCircuit, EdgeScores
from optrode.circuit.edge.select import select
from optrode.provenance import Provenance

PROVENANCE = Provenance("tiny", "0" * 64, 0, {"optrode": "0.1.0"}, "a machine", "a command", "2026-01-01T00:00:00+00:00")
GRAPHS = {
    "plain": Graph(3, 2, 2),
    "grouped": Graph(2, 4, 2),
    "parallel": Graph(3, 2, 1, is_parallel=True),
    "attention only": Graph(2, 3, 3, has_mlps=False),
}


def graphs():
    """Any small graph."""
    return st.builds(
        lambda n_layers, n_kv, group, has_mlps, is_parallel: Graph(n_layers, n_kv * group, n_kv, has_mlps, is_parallel),
        st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.booleans(), st.booleans(),
    )  # fmt: skip


def make_scores(graph=GRAPHS["plain"], values=None, *, n_prompts=6, noise=0.0, random_seed=0, **changed):
    """Scores whose mean is `values` (random by default) when there is no noise."""
    rng = np.random.default_rng(random_seed)
    means = rng.normal(size=graph.n_edges) if values is None else np.asarray(values, dtype=float)
    per_prompt = means + noise * rng.normal(size=(n_prompts, graph.n_edges))
    of = {"task": "ioi", "metric": "logit_gap", "unit": "logits", "method": "eap", "ablation": "resample"}
    return EdgeScores(**({**of, "graph": graph, "per_prompt": per_prompt, "provenance": PROVENANCE} | changed))


def make_circuit(scores, n, how="absolute", **changed):
    of = {"task": scores.task, "is_in": select(scores, n, how), "selection": how, "target": 0.0, "scores": scores}
    return EdgeCircuit(**({**of, "tokens": ("a", " b"), "provenance": PROVENANCE} | changed))
