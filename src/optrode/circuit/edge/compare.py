"""What one circuit has and another has not, across checkpoints, models of one shape, methods, prompts. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from optrode.circuit.circuit import Circuit
from optrode.circuit.edge.auroc import mid_ranks
from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.records import EdgeCircuit
from optrode.errors import BadOption


@dataclass(frozen=True)
class Comparison:
    """Circuit b against circuit a. Where there are no edges (circuits of nodes), what is said of edges is empty or None.

    Attributes:
        a, b: which circuits, in words.
        nodes_gained, nodes_lost, nodes_shared: of b only, of a only, of both; in the order of the computation, or
            strongest first for circuits of nodes.
        edges_gained, edges_lost, edges_shared: the same of edges, strongest first (shared ones as in b).
        jaccard_nodes, jaccard_edges: |A and B| / |A or B|.
        pearson, spearman: correlation of the effects of all edges (or nodes) that both models have, chosen or not; None
            where one side has no spread.
        n_scored: how many these are.
        n_left_out: edges (or nodes) of a, and of b, that the other model does not have at all; counted nowhere above.
        notes: in what, besides the circuits, the two differ.
    """

    a: str
    b: str
    nodes_gained: tuple[str, ...]
    nodes_lost: tuple[str, ...]
    nodes_shared: tuple[str, ...]
    edges_gained: tuple[str, ...]
    edges_lost: tuple[str, ...]
    edges_shared: tuple[str, ...]
    jaccard_nodes: float
    jaccard_edges: float | None
    pearson: float | None
    spearman: float | None
    n_scored: int
    n_left_out: tuple[int, int]
    notes: tuple[str, ...]


class _Sets(NamedTuple):
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    shared: tuple[str, ...]
    jaccard: float


def compare(a: EdgeCircuit | Circuit, b: EdgeCircuit | Circuit) -> Comparison:
    """Compare two circuits of edges, or two of nodes. What both models have is matched by name.

    Raises:
        BadOption: one circuit is of edges and the other of nodes, or one has nothing that the other's model has.
    """
    if isinstance(a, EdgeCircuit) and isinstance(b, EdgeCircuit):
        return _compare_edges(a, b)
    if isinstance(a, Circuit) and isinstance(b, Circuit):
        return _compare_nodes(a, b)
    found = "a circuit of edges and a circuit of nodes have no names in common"
    raise BadOption("comparison of circuits", found, next_step="find both at one level, nodes or edges")


def _compare_edges(a: EdgeCircuit, b: EdgeCircuit) -> Comparison:
    at = common_edges(a.graph, b.graph)
    in_both = {a.graph.name(int(edge)) for edge in at[a.is_in[at[:, 0]] | b.is_in[at[:, 1]], 0]}
    of_a, of_b = ([edge for edge in circuit.edges if edge in in_both] for circuit in (a, b))
    _check_overlap(a, b, len(of_a), len(of_b), f"the graphs share {len(at)} edges")
    nodes = set(a.graph.senders) & set(b.graph.senders)
    node_sets = _sets(*([node for node in circuit.nodes if node in nodes] for circuit in (a, b)))
    left_out = (a.size - len(of_a), b.size - len(of_b))
    return _comparison(a, b, node_sets, _sets(of_a, of_b), a.scores.values[at[:, 0]], b.scores.values[at[:, 1]], left_out)


def _compare_nodes(a: Circuit, b: Circuit) -> Comparison:
    effects_a, effects_b = ({score.node: score.effect for score in circuit.scores.nodes} for circuit in (a, b))
    both = [node for node in effects_a if node in effects_b]
    of_a, of_b = ([node for node in circuit.nodes if node in effects_a and node in effects_b] for circuit in (a, b))
    _check_overlap(a, b, len(of_a), len(of_b), f"the models share {len(both)} nodes")
    values_a, values_b = (np.array([effects[node] for node in both]) for effects in (effects_a, effects_b))
    left_out = (a.size - len(of_a), b.size - len(of_b))
    return _comparison(a, b, _sets(of_a, of_b), None, values_a, values_b, left_out)


def _comparison(
    a: EdgeCircuit | Circuit, b: EdgeCircuit | Circuit, nodes: _Sets, edges: _Sets | None,
    effects_a: Float[np.ndarray, " both"], effects_b: Float[np.ndarray, " both"], left_out: tuple[int, int],
) -> Comparison:  # fmt: skip
    return Comparison(
        a=_in_words(a), b=_in_words(b),
        nodes_gained=nodes.gained, nodes_lost=nodes.lost, nodes_shared=nodes.shared,
        edges_gained=edges.gained if edges else (), edges_lost=edges.lost if edges else (),
        edges_shared=edges.shared if edges else (),
        jaccard_nodes=nodes.jaccard, jaccard_edges=edges.jaccard if edges else None,
        pearson=correlation(effects_a, effects_b), spearman=correlation(mid_ranks(effects_a), mid_ranks(effects_b)),
        n_scored=len(effects_a), n_left_out=left_out, notes=_notes(a, b),
    )  # fmt: skip


def _check_overlap(a: EdgeCircuit | Circuit, b: EdgeCircuit | Circuit, n_a: int, n_b: int, found: str) -> None:
    if not n_a or not n_b:
        found = f"{found}, of which a holds {n_a} and b {n_b}"
        step = "compare circuits that are not empty, of models whose parts have the same names"
        raise BadOption(f"comparison of {_in_words(a)} with {_in_words(b)}", found, next_step=step)


def _sets(a: Sequence[str], b: Sequence[str]) -> _Sets:
    in_a, in_b = set(a), set(b)
    return _Sets(
        gained=tuple(name for name in b if name not in in_a), lost=tuple(name for name in a if name not in in_b),
        shared=tuple(name for name in b if name in in_a), jaccard=len(in_a & in_b) / len(in_a | in_b),
    )  # fmt: skip


def common_edges(a: Graph, b: Graph) -> Int[np.ndarray, "both 2"]:
    """(edge of a, edge of b) for every edge that has the same name in both graphs, in the order of a."""
    receivers, senders = _places(a.receivers, b.receivers), _places(a.senders, b.senders)
    at_b = np.stack([receivers[a.ends[:, 0]], senders[a.ends[:, 1]]], axis=1)
    first = np.cumsum(b.n_seen) - b.n_seen
    is_common = (at_b >= 0).all(1) & (at_b[:, 1] < b.n_seen[at_b[:, 0]])
    found = np.flatnonzero(is_common)
    return np.stack([found, first[at_b[found, 0]] + at_b[found, 1]], axis=1)


def _places(names: Sequence[str], known: Sequence[str]) -> Int[np.ndarray, " name"]:
    """[name] index among known ones, -1 where it is not known."""
    index = {name: ix for ix, name in enumerate(known)}
    return np.array([index.get(name, -1) for name in names])


def correlation(a: Float[np.ndarray, " both"], b: Float[np.ndarray, " both"]) -> float | None:
    """Pearson's r; None where one side has no spread or is not finite."""
    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    a, b = a - a.mean(), b - b.mean()
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # else squares of very small effects underflow
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _in_words(circuit: EdgeCircuit | Circuit) -> str:
    scores = circuit.scores
    return f"{circuit.task} in {circuit.provenance.model} by {scores.method} ({scores.ablation}, {circuit.size})"


def _notes(a: EdgeCircuit | Circuit, b: EdgeCircuit | Circuit) -> tuple[str, ...]:
    of = [
        ("tasks", a.task, b.task),
        ("metrics", a.scores.metric, b.scores.metric),
        ("ablations", a.scores.ablation, b.scores.ablation),
        ("sizes", a.size, b.size),
    ]
    if isinstance(a, EdgeCircuit) and isinstance(b, EdgeCircuit):
        of += [("selections", a.selection, b.selection), ("graphs", a.graph, b.graph)]
    return tuple(f"different {what}: {first} and {second}" for what, first, second in of if first != second)
