"""Hold edges cut during anything: forward passes, generation, training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.hold import holding
from optrode.circuit.edge.records import EdgeCircuit
from optrode.circuit.edge.runs import Mask
from optrode.circuit.edge.senders import Sent, listening, nothing
from optrode.circuit.edge.wiring import Wiring, wiring_of
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.site.recording import run
from optrode.site.tap import tapped


@contextmanager
def cut(model: Model, edges: str | Sequence[str] | EdgeCircuit, *, to: Any = "zero") -> Iterator[None]:
    """Cut edges: the receiver, and nobody else, gets something else than what the sender gives.

    Everything is checked before the first hook is placed; when the context ends, the model is as it was.

    Args:
        edges: names like "a3.h2 -> a5.h1.k", or a circuit, of which everything outside is cut.
        to: "zero", or prompts (texts or token ids): each sender's mean output over them and their positions.

    Raises:
        BadName: no such edge.
        BadOption: no edge is named, or the circuit is of another model.
        SiteUnavailable: the model has no heads to tell apart.
    """
    wiring = wiring_of(model, per_query_head=isinstance(edges, EdgeCircuit) and edges.scores.per_query_head)
    kept = _kept(wiring.graph, edges, model.name)
    constants = _zeros(wiring) if isinstance(to, str) and to == "zero" else _means(wiring, to)
    keep = torch.from_numpy(wiring.graph.matrix(kept.astype(np.float64))).to(model.device, model.dtype)
    with holding(wiring, keep, constants):
        yield


def _kept(graph: Graph, edges: str | Sequence[str] | EdgeCircuit, name: str) -> Mask:
    if isinstance(edges, EdgeCircuit):
        if edges.graph != graph:
            found = f"it has {edges.n_all} edges, {name} has {graph.n_edges}"
            raise BadOption(f"cut around the circuit of {edges.task}", found, next_step="use the model it was found in")
        return edges.is_in
    names = [edges] if isinstance(edges, str) else list(edges)
    if not names:
        raise BadOption("cut", "no edge is named", next_step="name one like a3.h2 -> a5.h1.k")
    return ~graph.edges(names)


def _zeros(wiring: Wiring) -> Sent:
    table, device, dtype = wiring.model.table, wiring.model.device, wiring.model.dtype
    layers = range(wiring.graph.n_layers)

    def zero(*shape: int) -> Tensor:
        return torch.zeros(1, 1, *shape, device=device, dtype=dtype)

    mlp = [zero(table.d_model) for _ in layers] if wiring.graph.has_mlps else []
    return Sent(zero(table.d_model), [zero(table.n_heads, table.d_head) for _ in layers], mlp)


@torch.no_grad()
def _means(wiring: Wiring, prompts: Any) -> Sent:
    """Each sender's mean output over all tokens of some prompts, one prompt at a time: none is padded."""
    token_ids = [prompts] if isinstance(prompts, str) else list(prompts)
    if not token_ids:
        raise BadOption("cut to the mean over prompts", "there is no prompt", next_step='give texts, or to="zero"')
    totals, n_tokens = None, 0
    for prompt in token_ids:
        sent = nothing()
        with tapped(wiring.model, listening(wiring, sent)):
            run(wiring.model, [prompt])
        n_tokens += sent.embed.shape[1]
        summed = sent.map(lambda tensor: tensor.sum((0, 1), keepdim=True))
        totals = summed if totals is None else totals.plus(summed)
    assert totals is not None
    return totals.map(lambda tensor: tensor / n_tokens)
