"""The graph of edges: which there are, in which order, and what they are called."""

import numpy as np
import pytest

from optrode.circuit.edge.graph import End, Graph, site_of
from optrode.errors import BadName
from tests.unit.circuit.edge.samples import GRAPHS

COUNTS = {  # (layers, heads): edges, by the formula of Hanna et al.
    (12, 12): 32_491, (24, 14): 179_749, (26, 8): 74_218, (32, 32): 1_592_881, (6, 4): 1_108, (2, 4): 110,
}  # fmt: skip


@pytest.mark.parametrize(("sizes", "n_edges"), COUNTS.items())
def test_models_have_as_many_edges_as_published(sizes, n_edges):
    assert Graph(*sizes, sizes[1]).n_edges == n_edges


def test_programs_have_as_many_edges_as_published():
    wanted = {(4, 1): 77, (2, 1): 23, (1, 1): 8, (2, 2): 46}
    assert {sizes: Graph(*sizes, sizes[1]).n_edges for sizes in wanted} == wanted


def test_a_small_graph_is_what_it_is_written_out():
    graph = Graph(1, 2, 1)
    assert graph.senders == ("embed", "a0.h0", "a0.h1", "m0")
    assert graph.receivers == ("a0.h0.q", "a0.h1.q", "a0.g0.k", "a0.g0.v", "m0", "logits")
    assert [graph.name(ix) for ix in range(graph.n_edges)] == [
        "embed -> a0.h0.q", "embed -> a0.h1.q", "embed -> a0.g0.k", "embed -> a0.g0.v",
        "embed -> m0", "a0.h0 -> m0", "a0.h1 -> m0",
        "embed -> logits", "a0.h0 -> logits", "a0.h1 -> logits", "m0 -> logits",
    ]  # fmt: skip


def test_in_a_parallel_block_no_head_feeds_its_mlp():
    plain, parallel = Graph(2, 3, 3), Graph(2, 3, 3, is_parallel=True)
    missing = {plain.name(ix) for ix in range(plain.n_edges)} - {parallel.name(ix) for ix in range(parallel.n_edges)}
    assert missing == {f"a{layer}.h{head} -> m{layer}" for layer in range(2) for head in range(3)}


def test_other_spellings_are_understood():
    graph = GRAPHS["plain"]
    for other in ("a0.h1->a2.h0<k>", "a0.h1 → a2.h0.k", "  a0.h1   ->  a2.h0<k> "):
        assert graph.edge(other) == graph.edge("a0.h1 -> a2.h0.k")
    assert graph.edge("input->logits") == graph.edge("embed -> logits")
    assert GRAPHS["grouped"].edge("a0.h3->a1.g1<v>") == GRAPHS["grouped"].edge("a0.h3 -> a1.g1.v")


def test_values_as_a_matrix_and_back():
    for graph in GRAPHS.values():
        values = np.arange(2.0 * graph.n_edges).reshape(2, -1)
        matrix = graph.matrix(values, np.nan)
        assert matrix.shape == (2, len(graph.receivers), len(graph.senders))
        np.testing.assert_array_equal(matrix[:, graph.is_edge], values)
        assert np.isnan(matrix[:, ~graph.is_edge]).all()
        assert all(matrix[1, receiver, sender] == values[1, ix] for ix, (receiver, sender) in enumerate(graph.ends))


def test_receivers_of_a_layer_stand_together():
    for graph in GRAPHS.values():
        kinds = [end.kind for end in graph.receiver_ends]
        for layer in range(graph.n_layers):
            for part, at in graph.receivers_of(layer).items():
                assert set(kinds[at]) == {part} and {end.layer for end in graph.receiver_ends[at]} == {layer}
        covered = sum(at.stop - at.start for layer in range(graph.n_layers) for at in graph.receivers_of(layer).values())
        assert covered == len(kinds) - 1


def test_nodes_of_a_circuit_are_both_ends_of_its_edges():
    graph = GRAPHS["grouped"]
    chosen = graph.edges(["embed -> a0.g1.k", "m0 -> a1.h0.q", "a1.h0 -> logits"])
    assert chosen.sum() == 3
    assert graph.nodes_of(chosen) == ("embed", "a0.h2", "a0.h3", "m0", "a1.h0")
    assert graph.heads_of(graph.receivers.index("logits")) == ()
    assert graph.heads_of(graph.receivers.index("m1")) == ("m1",)


def test_senders_are_sites():
    assert [site_of(end) for end in (End("embed", -1), End("head", 3, 2), End("mlp", 4))] == [
        "blocks.0.resid_pre", "blocks.3.attn.z[head=2]", "blocks.4.mlp_out",
    ]  # fmt: skip


REFUSED = {
    "a0.h0": "it has no sender and receiver", "a0.h0 -> m0 -> m1": "it has no sender and receiver",
    "a0.h7 -> logits": "Nearest: ", "a0.h0 -> a1.h7.q": "Nearest: ", "a0.h0 -> a1.g0.k": "Nearest: a1.h0.k",
    "a1.h0 -> m0": "goes forward", "m2 -> m2": "goes forward", "": "no sender and receiver",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_edge_is_refused(name):
    with pytest.raises(BadName, match=REFUSED[name]):
        GRAPHS["plain"].edge(name)
