"""Comparisons of circuits that were put together by hand, and of graphs that differ."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from optrode.circuit.circuit import Circuit, Interval, NodeScore, Scores
from optrode.circuit.edge.compare import common_edges, compare, correlation
from optrode.circuit.edge.graph import Graph
from optrode.errors import BadOption
from tests.unit.circuit.edge.samples import GRAPHS, PROVENANCE, graphs, make_circuit, make_scores


def circuit_of(graph, edges, effects=None, **changed):
    """The circuit of these edges, which are also the strongest, the first most of all."""
    values = np.zeros(graph.n_edges) if effects is None else np.array(effects, dtype=float)
    for place, name in enumerate(edges):
        values[graph.edge(name)] = -10.0 + place
    return make_circuit(make_scores(graph, values), len(edges), is_in=graph.edges(edges), **changed)


def node_circuit(nodes, effects, **changed):
    scores = Scores(
        "ioi", "logit_gap", "logits", "exact", "resample",
        tuple(NodeScore(name, effect, Interval(0.0, 1.0), (effect,)) for name, effect in effects.items()), None, PROVENANCE,
    )  # fmt: skip
    return replace(Circuit("ioi", nodes, len(effects), 0.0, scores, (), (), PROVENANCE), **changed)


def test_edges_and_nodes_gained_lost_and_shared():
    graph = GRAPHS["plain"]
    a = circuit_of(graph, ["embed -> a0.h0.q", "a0.h0 -> m1", "m1 -> logits"])
    b = circuit_of(graph, ["m1 -> logits", "embed -> a0.h1.v", "a0.h0 -> m1", "a0.h1 -> logits"])
    found = compare(a, b)
    assert found.edges_gained == ("embed -> a0.h1.v", "a0.h1 -> logits") and found.edges_lost == ("embed -> a0.h0.q",)
    assert found.edges_shared == ("m1 -> logits", "a0.h0 -> m1")  # strongest of b first
    assert found.jaccard_edges == 2 / 5
    assert found.nodes_shared == ("embed", "a0.h0", "m1") and found.nodes_gained == ("a0.h1",) and found.nodes_lost == ()
    assert found.jaccard_nodes == 3 / 4
    assert (found.n_scored, found.n_left_out) == (graph.n_edges, (0, 0))
    assert found.notes == ("different sizes: 3 and 4",)
    assert found.a == "ioi in tiny by eap (resample, 3)"


def test_the_other_way_round_gains_what_was_lost():
    a, b = (make_circuit(make_scores(random_seed=seed), 9) for seed in (0, 1))
    there, back = compare(a, b), compare(b, a)
    assert set(there.edges_gained) == set(back.edges_lost) and set(there.edges_shared) == set(back.edges_shared)
    assert there.nodes_gained == back.nodes_lost and there.jaccard_edges == back.jaccard_edges
    assert there.pearson == pytest.approx(back.pearson)


def test_a_circuit_against_itself():
    circuit = make_circuit(make_scores(), 9)
    found = compare(circuit, circuit)
    assert found.edges_gained == found.edges_lost == found.nodes_gained == found.nodes_lost == found.notes == ()
    assert (found.jaccard_edges, found.jaccard_nodes) == (1.0, 1.0)
    assert (found.pearson, found.spearman) == pytest.approx((1.0, 1.0))


def test_correlations_are_those_of_the_effects():
    a, b = make_scores(random_seed=0), make_scores(random_seed=1)
    mixed = replace(b, per_prompt=a.per_prompt + 0.5 * b.per_prompt)
    found = compare(make_circuit(a, 5), make_circuit(mixed, 5))
    assert found.pearson == pytest.approx(np.corrcoef(a.values, mixed.values)[0, 1])
    ranks = [values.argsort().argsort() for values in (a.values, mixed.values)]
    assert found.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    bent = replace(a, per_prompt=np.exp(3 * a.per_prompt))
    found = compare(make_circuit(a, 5), make_circuit(bent, 5))
    assert found.spearman == pytest.approx(1.0) and found.pearson < 0.8


def test_correlation_without_spread_is_none():
    line = np.arange(4.0)
    assert correlation(line, np.ones(4)) is None and correlation(np.zeros(1), np.ones(1)) is None
    assert correlation(line, np.array([0.0, np.nan, 1.0, 2.0])) is None
    assert correlation(1e-200 * line, -1e-300 * line) == pytest.approx(-1.0)


@settings(max_examples=40, deadline=None)
@given(graphs(), graphs())
def test_common_edges_are_those_of_one_name(a, b):
    names_a, names_b = ([graph.name(edge) for edge in range(graph.n_edges)] for graph in (a, b))
    expected = [(ix, names_b.index(name)) for ix, name in enumerate(names_a) if name in names_b]
    assert [tuple(row) for row in common_edges(a, b).tolist()] == expected


def test_graphs_that_differ_are_compared_on_what_both_have():
    deep, shallow = Graph(3, 2, 2), Graph(2, 2, 2)
    shared = ["embed -> m0", "m0 -> m1", "a1.h0 -> logits"]
    a = circuit_of(deep, [*shared, "m2 -> logits", "m1 -> a2.h0.k"], np.arange(deep.n_edges) / 1000)
    b = circuit_of(shallow, shared, np.arange(shallow.n_edges) / 1000)
    found = compare(a, b)
    assert found.edges_shared == tuple(shared) and found.edges_lost == () and found.n_left_out == (2, 0)
    assert found.nodes_lost == () and found.n_scored == len(common_edges(deep, shallow)) < shallow.n_edges + 1
    assert any(note.startswith("different graphs: Graph(n_layers=3") for note in found.notes)


def test_circuits_with_nothing_in_common():
    grouped, single = Graph(2, 4, 2), Graph(2, 4, 4)
    a, b = circuit_of(grouped, ["embed -> a1.g0.k"]), circuit_of(single, ["embed -> a1.h0.q"])
    with pytest.raises(BadOption, match=r"the graphs share \d+ edges, of which a holds 0 and b 1"):
        compare(a, b)
    empty = make_circuit(make_scores(grouped), 0)
    with pytest.raises(BadOption, match="compare circuits that are not empty"):
        compare(empty, empty)


def test_differences_besides_the_circuits_are_noted():
    scores = make_scores()
    a = make_circuit(scores, 4)
    b = make_circuit(replace(scores, ablation="zero", metric="kl"), 4, "signed", task="greater")
    assert compare(a, b).notes == (
        "different tasks: ioi and greater", "different metrics: logit_gap and kl", "different ablations: resample and zero",
        "different selections: absolute and signed",
    )  # fmt: skip


def test_circuits_of_nodes():
    effects = {f"blocks.{layer}.mlp_out": float(layer) for layer in range(4)}
    a = node_circuit(("blocks.3.mlp_out", "blocks.2.mlp_out"), effects)
    b = node_circuit(("blocks.3.mlp_out", "blocks.0.mlp_out"), {name: -effect for name, effect in effects.items()})
    found = compare(a, b)
    assert found.nodes_gained == ("blocks.0.mlp_out",) and found.nodes_lost == ("blocks.2.mlp_out",)
    assert found.nodes_shared == ("blocks.3.mlp_out",) and found.jaccard_nodes == 1 / 3
    assert found.jaccard_edges is None and found.edges_gained == found.edges_lost == found.edges_shared == ()
    assert (found.pearson, found.spearman) == pytest.approx((-1.0, -1.0)) and found.n_scored == 4
    other = node_circuit(("blocks.3.mlp_out",), {"blocks.3.mlp_out": 1.0, "blocks.9.mlp_out": 2.0})
    assert compare(a, other).n_left_out == (1, 0) and compare(a, other).pearson is None
    with pytest.raises(BadOption, match="the models share 0 nodes"):
        compare(a, node_circuit(("blocks.9.mlp_out",), {"blocks.9.mlp_out": 2.0}))


def test_edges_and_nodes_do_not_compare():
    with pytest.raises(BadOption, match="find both at one level, nodes or edges"):
        compare(make_circuit(make_scores(), 3), node_circuit(("m",), {"m": 1.0}))
