"""Names of edges are parsed back, edges are counted by a formula, and any circuit is what its naive twin is."""

from functools import cache

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.wiring import wiring_of
from optrode.nn.transformer import Spec, as_model, build
from optrode.trial.run import Bench
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import VOCAB, make_task

# Strategies draw plain data and the tests build graphs from it: see test_names.py.
shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans())
ends = st.sampled_from(["", " ", "  "])


def graph_of(shape):
    n_layers, n_kv, group, has_mlps, is_parallel = shape
    return Graph(n_layers, n_kv * group, n_kv, has_mlps, is_parallel)


@given(shapes)
def test_every_edge_has_a_name_of_its_own_that_is_parsed_back(shape):
    graph = graph_of(shape)
    names = [graph.name(ix) for ix in range(graph.n_edges)]
    assert [graph.edge(name) for name in names] == list(range(graph.n_edges)) and len(set(names)) == len(names)


@given(shapes, st.integers(0, 10_000), ends, ends, st.sampled_from(["->", "→"]))
def test_spaces_and_arrows_do_not_matter(shape, drawn, before, after, arrow):
    graph = graph_of(shape)
    edge = drawn % graph.n_edges
    sender, receiver = graph.name(edge).split(" -> ")
    angled = receiver[:-2] + f"<{receiver[-1]}>" if receiver[-2:] in (".q", ".k", ".v") else receiver
    assert graph.edge(f"{before}{sender}{before}{arrow}{after}{angled}{after}") == edge


@given(shapes)
def test_edges_are_counted_by_the_formula(shape):
    graph = graph_of(shape)
    n_layers, n_heads, n_kv, n_mlps = graph.n_layers, graph.n_heads, graph.n_kv, int(graph.has_mlps)
    total = 0
    for layer in range(n_layers):
        before = 1 + layer * (n_heads + n_mlps)
        total += (n_heads + 2 * n_kv) * before + n_mlps * (before + (0 if graph.is_parallel else n_heads))
    total += 1 + n_layers * (n_heads + n_mlps)
    assert graph.n_edges == total == len(graph.ends) == int(graph.is_edge.sum())


@given(shapes)
def test_the_graph_is_that_of_a_forward_pass_written_out(shape):
    graph, n_layers = graph_of(shape), shape[0]
    layer = naive.Layer(None, None, None, None, None, None, abs if graph.has_mlps else None)
    net = naive.Net(
        abs, None, (layer,) * n_layers, abs, torch.empty(0), graph.n_heads, graph.n_kv, is_parallel=graph.is_parallel
    )
    assert tuple(net.senders) == graph.senders and tuple(receiver for receiver, _ in net.sights) == graph.receivers
    assert [f"{sender} -> {receiver}" for sender, receiver in net.edges] == [graph.name(ix) for ix in range(graph.n_edges)]


MODELS = st.tuples(
    st.sampled_from(["none", "layer", "rms"]), st.sampled_from(["none", "learned", "rotary"]), st.booleans(), st.booleans(),
    st.sampled_from([0, 7]), st.sampled_from([1, 2]),
)  # fmt: skip
LENGTHS = st.sampled_from([(3,), (4, 4), (3, 5)])


@cache
def model_of(drawn):
    norm, positions, is_causal, is_parallel, d_mlp, n_kv = drawn
    spec = Spec(
        2, 2, 8, vocab=VOCAB, n_ctx=5, n_kv_heads=n_kv, d_head=4, d_mlp=d_mlp, norm=norm, positions=positions,
        is_causal=is_causal, is_parallel=is_parallel,
    )  # fmt: skip
    return as_model(build(spec, 0, torch.float64), "drawn")


@settings(max_examples=25, deadline=None, database=None)
@given(
    MODELS, LENGTHS, st.sampled_from(["resample", "zero", "mean"]), st.integers(0, 2**32 - 1), st.floats(0, 1),
    st.integers(1, 3),
)  # fmt: skip
def test_any_circuit_is_what_its_naive_twin_is(drawn, lengths, ablation, random_seed, share, n_circuits):
    model, task = model_of(drawn), make_task(lengths, random_seed=random_seed % 7)
    runs = EdgeRuns(Bench(model, task), wiring_of(model), ablation)
    rng = np.random.default_rng(random_seed)
    masks = [rng.random(runs.wiring.graph.n_edges) < share for _ in range(n_circuits)]
    wanted = naive.circuits(naive.net_of(model.module), task, masks, ablation=ablation)
    np.testing.assert_allclose(np.array(runs.measure(masks)), wanted, atol=1e-11 * max(1.0, np.abs(wanted).max()))
