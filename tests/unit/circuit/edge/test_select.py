"""Selections against written-out definitions; what cannot matter, against ways through the chosen edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.select import ORDERS, alive, ranking, receivers_into, select
from optrode.errors import BadOption
from tests.unit.circuit.edge.samples import GRAPHS, graphs, make_scores

HOW = list(ORDERS)


def names(graph, chosen):
    return {graph.name(int(edge)) for edge in np.flatnonzero(chosen)}


def test_absolute_takes_the_largest_and_signed_those_that_help():
    graph = Graph(1, 1, 1)
    effects = np.zeros(graph.n_edges)
    for name, effect in {"embed -> m0": 3.0, "m0 -> logits": -2.0, "a0.h0 -> logits": -1.0, "embed -> logits": 0.5}.items():
        effects[graph.edge(name)] = effect
    scores = make_scores(graph, effects)
    assert names(graph, select(scores, 2)) == {"embed -> m0", "m0 -> logits"}
    assert names(graph, select(scores, 2, "signed")) == {"m0 -> logits", "a0.h0 -> logits"}
    assert names(graph, select(scores, 2, "greedy")) == {"m0 -> logits", "embed -> m0"}
    assert names(graph, select(scores, 3, "greedy")) == {"m0 -> logits", "embed -> m0", "a0.h0 -> logits"}


def test_greedy_never_takes_an_edge_into_a_node_that_is_not_there():
    graph = Graph(2, 1, 1)
    effects = np.full(graph.n_edges, 1e-3)
    effects[graph.edge("embed -> m0")] = 9.0  # the strongest by far, but m0 is not read until the third edge
    effects[graph.edge("m1 -> logits")], effects[graph.edge("m0 -> m1")] = 0.1, 0.05
    assert "embed -> m0" not in names(graph, select(make_scores(graph, effects), 2, "greedy"))
    assert names(graph, select(make_scores(graph, effects), 3, "greedy")) == {"m1 -> logits", "m0 -> m1", "embed -> m0"}


def naive_greedy(values, graph, n):
    nodes, chosen = {"logits"}, []
    for _ in range(n):
        open_edges = [
            edge for edge, (receiver, _) in enumerate(graph.ends)
            if edge not in chosen and nodes & set(graph.heads_of(int(receiver)) or ("logits",))
        ]  # fmt: skip
        chosen.append(max(open_edges, key=lambda edge: (abs(values[edge]), -edge)))
        nodes.add(graph.senders[graph.ends[chosen[-1]][1]])
    return chosen


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(0, 99), st.booleans())
def test_greedy_is_its_definition(graph, seed, has_ties):
    values = np.random.default_rng(seed).normal(size=graph.n_edges)
    values = values.round() if has_ties else values
    n = min(graph.n_edges, 12)
    assert ranking(values, graph, "greedy", n).tolist() == naive_greedy(values, graph, n)


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from(HOW), st.integers(0, 99))
def test_a_larger_circuit_holds_the_smaller(graph, how, seed):
    scores = make_scores(graph, np.random.default_rng(seed).integers(-3, 4, graph.n_edges))
    order = ranking(scores.values, graph, how)
    assert sorted(order.tolist()) == list(range(graph.n_edges))
    for n in range(graph.n_edges + 1):
        assert np.flatnonzero(select(scores, n, how)).tolist() == sorted(order[:n].tolist())


@pytest.mark.parametrize("how", ["absolute", "signed"])
def test_ties_go_to_the_edge_that_is_counted_first(how):
    graph = GRAPHS["plain"]
    assert np.flatnonzero(select(make_scores(graph, -np.ones(graph.n_edges)), 7, how)).tolist() == list(range(7))


def test_the_order_does_not_depend_on_scale_or_precision():
    scores = make_scores(GRAPHS["grouped"])
    for how in HOW:
        halved = ranking(scores.values * 0.5, scores.graph, how)
        single = ranking(scores.values.astype(np.float32), scores.graph, how)
        assert ranking(scores.values, scores.graph, how).tolist() == halved.tolist() == single.tolist()


def test_a_k_input_of_a_group_feeds_all_its_heads():
    graph = GRAPHS["grouped"]
    inputs = zip(graph.senders, receivers_into(graph), strict=True)
    fed = {name: [graph.receivers[receiver] for receiver in found] for name, found in inputs}
    assert fed["embed"] == [] and fed["m1"] == ["m1"]
    assert fed["a1.h2"] == ["a1.h2.q", "a1.g1.k", "a1.g1.v"] and fed["a1.h1"] == ["a1.h1.q", "a1.g0.k", "a1.g0.v"]


BAD = {
    "no such selection. Nearest: signed": {"how": "sined"},
    "n=99: the graph has 11 edges. Nearest: n=11": {"n": 99},
    "n=-1: the graph has 11 edges. Nearest: n=0": {"n": -1},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_selections(message):
    with pytest.raises(BadOption, match=message):
        select(make_scores(Graph(1, 2, 1)), **({"n": 2} | BAD[message]))


def test_scores_that_are_not_finite():
    graph = GRAPHS["plain"]
    values = np.zeros(graph.n_edges)
    values[[graph.edge("a0.h1 -> m1"), graph.edge("m2 -> logits")]] = np.nan, np.inf
    with pytest.raises(BadOption, match="2 effects are not finite, the first that of a0.h1 -> m1"):
        select(make_scores(graph, values), 3)
    with pytest.raises(BadOption, match=f"5 effects for the {graph.n_edges} edges"):
        ranking(np.zeros(5), graph)


def test_edges_that_lead_nowhere_are_not_alive():
    graph = GRAPHS["plain"]
    through = graph.edges(["embed -> a0.h0.v", "a0.h0 -> m1", "m1 -> logits"])
    ends = graph.edges(["embed -> a0.h1.q", "a0.h1 -> a2.h0.k"])  # a2.h0 is read by nobody
    starts = graph.edges(["m0 -> m1", "a1.h1 -> logits"])  # m0 and a1.h1 read nothing
    for ablation, expected in {"resample": through, "zero": through | starts, "mean": through | starts}.items():
        assert names(graph, alive(graph, through | ends | starts, ablation)) == names(graph, expected)
    assert names(graph, alive(graph, ends | starts, "resample")) == set()


def test_a_group_is_reached_through_any_of_its_heads():
    graph = GRAPHS["grouped"]
    chosen = graph.edges(["embed -> a0.g1.k", "a0.h2 -> a1.h0.q", "a0.h3 -> a1.g0.v", "a1.h1 -> logits"])
    expected = {"embed -> a0.g1.k", "a0.h3 -> a1.g0.v", "a1.h1 -> logits"}  # a1.h0 is not read, h1 of its group is
    assert names(graph, alive(graph, chosen, "resample")) == expected
    chosen |= graph.edges(["a0.h1 -> logits"])  # h1 is of the group that nothing reaches
    assert names(graph, alive(graph, chosen, "resample")) == expected
    assert names(graph, alive(graph, chosen, "optimal")) == expected | {"a0.h1 -> logits"}


def ways(graph, chosen):
    """Edges on some way from embed to the logits, and edges from which the logits are reached, by walking every way."""
    edges = [(graph.senders[s], r, edge) for edge, (r, s) in enumerate(graph.ends) if chosen[edge]]
    on_way, reaching = set(), set()

    def walk(node, taken, is_from_embed):
        for sender, receiver, edge in edges:
            if sender != node:
                continue
            if graph.receivers[receiver] == "logits":
                reaching.update((*taken, edge))
                on_way.update((*taken, edge) if is_from_embed else ())
            for following in graph.heads_of(int(receiver)):
                walk(following, (*taken, edge), is_from_embed)

    for node in graph.senders:
        walk(node, (), node == "embed")
    return on_way, reaching


@settings(max_examples=80, deadline=None)
@given(graphs(), st.integers(0, 999), st.integers(1, 14))
def test_alive_edges_are_those_on_a_way(graph, seed, n):
    chosen = np.zeros(graph.n_edges, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(graph.n_edges)[:n]] = True
    on_way, reaching = ways(graph, chosen)
    assert set(np.flatnonzero(alive(graph, chosen, "resample")).tolist()) == on_way
    assert set(np.flatnonzero(alive(graph, chosen, "zero")).tolist()) == reaching
    for ablation in ("resample", "zero"):
        once = alive(graph, chosen, ablation)
        assert (alive(graph, once, ablation) == once).all() and not (once & ~chosen).any()


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_the_whole_model_is_alive(graph):
    every = np.ones(graph.n_edges, dtype=bool)
    assert alive(graph, every, "resample").all() and not alive(graph, ~every, "resample").any()


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_greedy_circuits_always_reach_the_logits(graph):
    for n in range(1, graph.n_edges, 3):
        chosen = select(make_scores(graph), n, "greedy")
        assert (alive(graph, chosen, "zero") == chosen).all()


def test_an_ablation_that_is_not_known():
    graph = GRAPHS["plain"]
    with pytest.raises(BadOption, match="no such ablation. Nearest: resample"):
        alive(graph, np.ones(graph.n_edges, dtype=bool), "resampel")
