"""Which edges make up a circuit of a given size, and which of them can matter. No model, no torch."""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.records import EdgeScores
from optrode.errors import BadOption, nearest

How = Literal["absolute", "signed", "greedy", "rms"]


def select(scores: EdgeScores, n: int, how: str = "absolute") -> Bool[np.ndarray, " edge"]:
    """[edge] true for the `n` edges of a circuit.

    Args:
        n: number of edges, 0 up to every edge.
        how: "absolute" takes the largest effects, of either sign (what CMD is measured with);
            "signed" takes the edges that help the task most (what CPR is measured with; MIB, arXiv 2504.13151);
            "greedy" starts at the logits and adds the largest effect among the edges into what is already there, so
            that every edge has a way to the logits;
            "rms" takes the largest root mean square of effects over prompts: edges that help on some prompts and hinder on
            others cancel in the mean, and may still be needed.

    Ties go to the edge that is counted first, so that a circuit of n + 1 edges holds the one of n.

    Raises:
        BadOption: no such selection, a size out of range, or scores that are not finite.
    """
    return select_values(strengths(scores.per_prompt, how), scores.graph, n, how)


def strengths(per_prompt: Float[np.ndarray, "prompt edge"], how: str) -> Float[np.ndarray, " edge"]:
    """What a selection ranks edges by: the mean over prompts, or the root mean square."""
    if how == "rms":
        return np.asarray(np.sqrt(np.square(per_prompt).mean(0)))
    return np.asarray(per_prompt.mean(0))


def select_values(
    values: Float[np.ndarray, " edge"], graph: Graph, n: int, how: str = "absolute"
) -> Bool[np.ndarray, " edge"]:
    """As `select`, from the effects alone.

    Raises:
        BadOption: as `select`; or not one effect for each edge of the graph.
    """
    if not 0 <= n <= graph.n_edges:
        raise BadOption(f"n={n}", f"the graph has {graph.n_edges} edges", nearest=(f"n={max(0, min(n, graph.n_edges))}",))
    chosen = np.zeros(graph.n_edges, dtype=bool)
    chosen[ranking(values, graph, how, n)] = True
    return chosen


def ranking(
    values: Float[np.ndarray, " edge"], graph: Graph, how: str = "absolute", n: int | None = None
) -> Int[np.ndarray, " chosen"]:
    """The first `n` edges (all by default) in the order in which a growing circuit takes them.

    Raises:
        BadOption: no such selection, not one effect for each edge of the graph, or effects that are not finite.
    """
    if how not in ORDERS:
        raise BadOption(f"selection {how!r}", "no such selection", nearest=nearest(how, ORDERS) or tuple(ORDERS))
    if len(values) != graph.n_edges:
        raise BadOption(
            "selection of edges", f"{len(values)} effects for the {graph.n_edges} edges of the graph",
            next_step="give the effects and the graph of one EdgeScores",
        )  # fmt: skip
    broken = np.flatnonzero(~np.isfinite(values))
    if len(broken):
        found = f"{len(broken)} effects are not finite, the first that of {graph.name(int(broken[0]))}"
        raise BadOption("selection of edges", found, next_step="score in a wider dtype, or find the prompt that overflows")
    return ORDERS[how](values, graph, n)


def _by_size(values: Float[np.ndarray, " edge"], graph: Graph, n: int | None) -> Int[np.ndarray, " chosen"]:
    return np.argsort(-np.abs(values), kind="stable")[:n]


def _by_help(values: Float[np.ndarray, " edge"], graph: Graph, n: int | None) -> Int[np.ndarray, " chosen"]:
    return np.argsort(values, kind="stable")[:n]


def _by_growth(values: Float[np.ndarray, " edge"], graph: Graph, n: int | None) -> Int[np.ndarray, " chosen"]:
    return np.fromiter(islice(_grow(np.abs(values), graph), n), dtype=np.int64)


ORDERS: Final[dict[str, Callable[..., Int[np.ndarray, " chosen"]]]] = {
    "absolute": _by_size, "signed": _by_help, "greedy": _by_growth, "rms": _by_size,
}  # fmt: skip


def _grow(strength: Float[np.ndarray, " edge"], graph: Graph) -> Iterator[int]:
    """Edges in the order of greedy growth. The heap holds one edge per open receiver, its strongest that is left."""
    ends = graph.ends
    order = np.lexsort((-strength, ends[:, 0])).tolist()  # receiver by receiver, as edges are counted; strongest first
    stops = np.cumsum(graph.n_seen).tolist()
    inputs = receivers_into(graph)
    is_open = [False] * len(stops)
    heap: list[tuple[float, int, int]] = []  # (-strength, edge, its place in `order`)

    def offer(place: int) -> None:
        heappush(heap, (-float(strength[order[place]]), order[place], place))

    def open_receiver(receiver: int) -> None:
        is_open[receiver] = True
        offer(stops[receiver] - int(graph.n_seen[receiver]))

    open_receiver(len(stops) - 1)
    while heap:
        _, edge, place = heappop(heap)
        yield edge
        receiver, sender = ends[edge].tolist()
        if place + 1 < stops[receiver]:
            offer(place + 1)
        for fed in inputs[sender]:
            if not is_open[fed]:
                open_receiver(fed)


def receivers_into(graph: Graph) -> tuple[tuple[int, ...], ...]:
    """[sender] the receivers that feed it: a head's q, k and v (its K/V group's), an MLP's input; none for `embed`."""
    index = {name: ix for ix, name in enumerate(graph.senders)}
    found: list[list[int]] = [[] for _ in index]
    for receiver in range(len(graph.receivers)):
        for node in graph.heads_of(receiver):
            found[index[node]].append(receiver)
    return tuple(map(tuple, found))


def alive(graph: Graph, chosen: Bool[np.ndarray, " edge"], ablation: str) -> Bool[np.ndarray, " edge"]:
    """[edge] the chosen edges that can matter to the metric; the circuit without the others behaves exactly the same.

    An edge matters only if its receiver's node (a head is one node with three inputs; a k or v input of a K/V group
    belongs to all heads of the group) has a way to the logits within the chosen edges. When what is outside is resampled,
    its sender also needs a way from `embed`: a node that gets nothing but the corrupt run's values gives the corrupt run's
    output, which is what its ablation gives as well. Under other ablations it need not.

    Args:
        chosen: the edges of the circuit.
        ablation: what happens to edges outside: "resample", "zero", "mean" or "optimal".

    Raises:
        BadOption: no such ablation.
    """
    if ablation not in ABLATIONS:
        raise BadOption(f"ablation {ablation!r}", "no such ablation", nearest=nearest(ablation, ABLATIONS) or ABLATIONS)
    matrix = np.zeros(graph.is_edge.shape, dtype=bool)
    matrix[graph.is_edge] = chosen
    kept = matrix & _reaches_logits(graph, matrix)[:, None]
    if ablation == "resample":
        kept &= _reached_by_embed(graph, matrix)
    return np.asarray(kept[graph.is_edge])


ABLATIONS: Final = ("resample", "zero", "mean", "optimal")


def _reached_by_embed(graph: Graph, matrix: Bool[np.ndarray, "receiver sender"]) -> Bool[np.ndarray, " sender"]:
    """[sender] whether chosen edges lead to it from `embed`."""
    reached = np.zeros(matrix.shape[1], dtype=bool)
    reached[0] = True
    for layer in range(graph.n_layers):
        heads = slice(graph.n_before(layer), graph.n_before(layer) + graph.n_heads)
        for part, at in graph.receivers_of(layer).items():  # q, k and v stand before the MLP, which may read the heads
            is_fed = np.any(matrix[at] & reached, axis=1)
            if part == "mlp":
                reached[heads.stop] = is_fed[0]
            else:
                reached[heads] |= np.repeat(is_fed, graph.n_heads // len(is_fed))
    return reached


def _reaches_logits(graph: Graph, matrix: Bool[np.ndarray, "receiver sender"]) -> Bool[np.ndarray, " receiver"]:
    """[receiver] whether chosen edges lead from its node to the logits."""
    useful = np.zeros(matrix.shape[0], dtype=bool)
    useful[-1] = True
    needed = matrix[-1].copy()  # [sender] whether some useful receiver reads it
    for layer in reversed(range(graph.n_layers)):
        heads = slice(graph.n_before(layer), graph.n_before(layer) + graph.n_heads)
        for part, at in reversed(graph.receivers_of(layer).items()):
            n = at.stop - at.start
            useful[at] = needed[heads.stop] if part == "mlp" else needed[heads].reshape(n, -1).any(1)
            needed |= matrix[at][useful[at]].any(0)
    return useful
