"""An edge circuit as what the page's script draws: boxes, rows and columns, edges strongest first.

Positions across are settled here; how high a row stands depends on which rows have an edge drawn, so the script stacks them.
All numbers that a reader sees are written here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int

from optrode.circuit.edge.graph import End, Graph, site_of
from optrode.circuit.edge.records import EdgeCircuit, EdgeLoss, EdgeScores
from optrode.circuit.interval import LEVEL, draws
from optrode.reports.edges.words import edge_words, effect_interval
from optrode.reports.words import interval, number, short

MOST_DRAWN: Final = 300
MOST_LISTED: Final = 1000
START: Final = 60
WIDE: Final = 740.0
WIDEST: Final = 66.0
NARROWEST: Final = 50.0
AXIS: Final = 34.0
SIDE: Final = 74.0
KINDS: Final = {"embed": "embedding", "head": "attention head", "mlp": "MLP", "logits": "output"}


@dataclass(frozen=True)
class Listed:
    """The strongest edges of a circuit, with what is told of each.

    Attributes:
        edges: [edge] indices, strongest first.
        values: [edge] mean effects.
        low, high: [edge] bootstrap interval over prompts.
    """

    edges: Int[np.ndarray, " listed"]
    values: Float[np.ndarray, " listed"]
    low: Float[np.ndarray, " listed"]
    high: Float[np.ndarray, " listed"]


def listed(circuit: EdgeCircuit, most: int = MOST_LISTED) -> Listed:
    """The strongest edges of a circuit, at most `most`."""
    ranked = circuit.scores.ranked()
    return with_intervals(circuit.scores, ranked[circuit.is_in[ranked]][:most])


def with_intervals(scores: EdgeScores, edges: Int[np.ndarray, " listed"]) -> Listed:
    """Effects of some edges with their 95 % intervals, by bootstrap over the stored prompts."""
    per_prompt = scores.per_prompt[:, edges]
    n = len(per_prompt)
    weights = np.stack([np.bincount(row, minlength=n) for row in draws(n, scores.provenance.random_seed)]) / n
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(weights @ per_prompt, [tail, 100 - tail], axis=0)
    return Listed(edges, per_prompt.mean(0), low, high)


def drawn(circuit: EdgeCircuit, lost: Mapping[str, EdgeLoss]) -> dict[str, Any]:
    """What the script draws and tells; see `edges.js`. `lost` is by edge name."""
    graph, found = circuit.graph, listed(circuit)
    columns = _columns(graph)
    nodes = _Nodes(graph, columns)
    rows = [_edge(found, ix, graph, nodes, lost) for ix in range(len(found.edges))]
    total = float(np.abs(circuit.scores.values[circuit.is_in]).sum())
    return {
        "edges": rows, "nodes": nodes.found, "groups": nodes.groups, "unit": circuit.scores.unit,
        "size": circuit.size, "most": min(MOST_DRAWN, len(rows)), "start": min(START, len(rows)), "total": total,
        "layers": graph.n_layers, "ports": graph.n_kv == graph.n_heads, "parallel": graph.is_parallel,
        "pitch": columns.pitch, "packed": columns.is_packed, "width": columns.width, "side": SIDE if graph.has_mlps else 0,
        "axis": AXIS,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns of heads: one per head where they fit, else those that a row needs, side by side."""

    pitch: float
    is_packed: bool
    width: float


def _columns(graph: Graph) -> _Columns:
    free = WIDE - AXIS - (SIDE if graph.has_mlps else 0)
    pitch = min(WIDEST, free / max(graph.n_heads, 1))
    is_packed = pitch < NARROWEST
    return _Columns(NARROWEST if is_packed else pitch, is_packed, NARROWEST if is_packed else pitch * graph.n_heads)


class _Nodes:
    """Boxes and bars of K/V groups, collected as edges name them."""

    def __init__(self, graph: Graph, columns: _Columns) -> None:
        self.graph = graph
        self.columns = columns
        self.found: list[dict[str, Any]] = []
        self.groups: list[dict[str, Any]] = []
        self._at: dict[str, int] = {}
        self._group_at: dict[str, int] = {}

    def sender(self, sender: int) -> int:
        """The box of a sender."""
        return self._node(self.graph.senders[sender], self.graph.sender_ends[sender])

    def owners(self, receiver: int) -> list[int]:
        """The boxes that a receiver belongs to."""
        end = self.graph.receiver_ends[receiver]
        if end.kind == "logits":
            return [self._node("logits", end)]
        names = self.graph.heads_of(receiver)
        return [self._node(name, self.graph.sender_ends[self.graph.senders.index(name)]) for name in names]

    def group(self, receiver: int) -> int | None:
        """The bar of a K/V group with several heads; None for other receivers."""
        end = self.graph.receiver_ends[receiver]
        if end.kind not in ("k", "v") or self.graph.n_kv == self.graph.n_heads:
            return None
        name = self.graph.receivers[receiver].rsplit(".", 1)[0]
        if name not in self._group_at:
            self._group_at[name] = len(self.groups)
            self.groups.append({"name": name, "layer": end.layer, "heads": self.owners(receiver)})
        return self._group_at[name]

    def _node(self, name: str, end: End) -> int:
        if name not in self._at:
            self._at[name] = len(self.found)
            self.found.append(_box(name, end))
        return self._at[name]


def _box(name: str, end: End) -> dict[str, Any]:
    label = {"head": f"{end.layer}.{end.head}", "mlp": f"MLP {end.layer}"}.get(end.kind, end.kind)
    kind = "mlp" if end.kind == "mlp" else "head" if end.kind == "head" else "end"
    site = "logits" if end.kind == "logits" else site_of(end)
    return {
        "name": name, "label": label, "kind": kind, "what": KINDS.get(end.kind, end.kind), "site": site,
        "layer": end.layer, "head": end.head,
    }  # fmt: skip


def _edge(found: Listed, ix: int, graph: Graph, nodes: _Nodes, lost: Mapping[str, EdgeLoss]) -> dict[str, Any]:
    receiver, sender = (int(end) for end in graph.ends[found.edges[ix]])
    end, name = graph.receiver_ends[receiver], graph.name(int(found.edges[ix]))
    loss = lost.get(name)
    return {
        "name": edge_words(name), "from": nodes.sender(sender), "to": nodes.owners(receiver), "group": nodes.group(receiver),
        "port": end.kind if end.kind in ("q", "k", "v") else "", "into": graph.receivers[receiver],
        "value": float(found.values[ix]), "effect": short(float(found.values[ix])),
        "interval": effect_interval(float(found.low[ix]), float(found.high[ix])),
        "lost": [number(loss.lost, 3), interval(loss.interval, 3)] if loss else None,
    }  # fmt: skip


def edge_rows(found: Listed, graph: Graph) -> list[tuple[str, str, str]]:
    """(name, effect, interval) of listed edges, in words."""
    return [
        (edge_words(graph.name(int(ix))), short(float(value)), effect_interval(float(low), float(high)))
        for ix, value, low, high in zip(found.edges, found.values, found.low, found.high, strict=True)
    ]
