"""Information-flow routes: which senders the residual stream that a receiver reads is made of, from one plain run.

With y the stream that the receiver reads and z_j what sender j added to it, the importance of j is

    c_j = max(clip, ||y||_1 - ||z_j - y||_1),    normalised over the senders,

at every position (Ferrando and Voita, arXiv 2403.00824, eqs. 4 and 5): how much closer to y than nothing z_j is. The stream
holds biases too, which no sender wrote. All receivers of a layer's attention read the same stream and get the same
importances, so a circuit must be grown from the logits: select it with "greedy".

Importances are means over positions; into the logits, over the positions whose logits the metric reads. Where norms stand in
the way of what is written (Gemma, OLMo 2, BERT), every part passes through them with their size held.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.records import EdgeScores
from optrode.circuit.edge.senders import Plain, noted, nothing, watching
from optrode.circuit.edge.wiring import Norm, Wiring, wiring_of
from optrode.circuit.heads import linear_part
from optrode.circuit.nodes import find_ablation
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.site.tap import tapped
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress
from optrode.trial.worlds import read_logits

METHOD: Final = "ifr"
N_FLOATS: Final = 2**24
"""Numbers that the parts of the stream may take at a time, unless one row needs more."""

_NOTE: Final = "importances, not effects on the metric: all inputs of a layer's heads score alike; select with greedy"


def route_scores(
    model: Model, task: Task, *, ablation: str = "resample", clip: float = 0.0, by_pos: bool = False,
    per_query_head: bool = False, progress: Progress = no_progress, bench: Bench | None = None,
) -> EdgeScores:  # fmt: skip
    """Importance of every edge in the clean run, negative as the effects of helping edges are: -c_j, between -1 and 0.

    One forward pass. Neither the metric nor the corrupt world is used, but for the positions that the metric reads.

    Args:
        ablation: the one that a circuit of these scores will be measured with.
        clip: smallest importance before normalising: 0, or 1e-5 as in the authors' code.
        by_pos: also give every edge's share at each position (prompts of one length).
        per_query_head: with grouped K/V, every query head has a k and a v input of its own; else a group has.

    Raises:
        BadOption: no such ablation, a clip below 0, positions asked for over prompts of different lengths.
        SiteUnavailable: the model has no heads to score, or norms that cannot be linearised.
    """
    find_ablation(ablation)
    if clip < 0:
        raise BadOption(f"clip={clip:g}", "an importance is at least 0", nearest=("clip=0", "clip=1e-5"))
    if by_pos and task.length is None:
        asked = f"importances by position on {task.name}"
        raise BadOption(asked, "the prompts differ in length", next_step="leave by_pos out")
    started, bench = time.monotonic(), bench or Bench(model, task)
    wiring, passes = wiring_of(model, per_query_head=per_query_head), bench.worlds.n_passes
    per_prompt, per_pos = _importances(wiring, bench, clip, by_pos, progress)
    return EdgeScores(
        task=task.name, metric=bench.metric.name, unit="share of the stream", method=METHOD, ablation=ablation,
        graph=wiring.graph, per_prompt=-per_prompt, per_pos=None if per_pos is None else -per_pos, notes=(_NOTE,),
        settings={"clip": f"{clip:g}"} | ({"per_query_head": "True"} if per_query_head else {}),
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes - passes,
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class _Rows:
    """Some rows of a group, and where importances are averaged: [pos] weights inside the model and at the logits."""

    group: int
    rows: slice
    inside: Float[Tensor, " pos"]
    at_end: Float[Tensor, " pos"]


@torch.no_grad()
def _importances(
    wiring: Wiring, bench: Bench, clip: float, by_pos: bool, progress: Progress
) -> tuple[Float[np.ndarray, "prompt edge"], Float[np.ndarray, "edge pos"] | None]:  # fmt: skip
    """[prompt, edge] importances and, where asked for, [edge, pos] shares of their mean over prompts."""
    found = np.zeros((len(bench.task), wiring.graph.n_edges))
    shares = np.zeros((wiring.graph.n_edges, bench.worlds.length(0))) if by_pos else None
    chunks = list(_chunks(wiring, bench))
    for step, chunk in enumerate(chunks):
        per_row = _weighed(wiring, bench, chunk, clip, by_pos).double().cpu().numpy()
        found[list(bench.worlds.groups[chunk.group][chunk.rows])] = per_row.sum(-1)
        if shares is not None:
            shares += per_row.sum(0) / len(bench.task)
        progress("information flow", step + 1, len(chunks))
    return found, shares


def _chunks(wiring: Wiring, bench: Bench) -> Iterator[_Rows]:
    for group, members in enumerate(bench.worlds.groups):
        n_pos, device = bench.worlds.length(group), wiring.model.device
        read = list(bench.worlds.positions(group))
        inside = torch.full((n_pos,), 1 / n_pos, dtype=wiring.model.dtype, device=device)
        at_end = torch.zeros_like(inside)
        at_end[read] = 1 / len(read)
        size = max(1, N_FLOATS // (len(wiring.graph.sender_ends) * n_pos * wiring.model.table.d_model))
        for start in range(0, len(members), size):
            yield _Rows(group, slice(start, min(start + size, len(members))), inside, at_end)


def _weighed(wiring: Wiring, bench: Bench, chunk: _Rows, clip: float, by_pos: bool) -> Float[Tensor, "row edge pos"]:
    """What each position adds to each edge's importance; all of them together unless `by_pos`."""
    graph, plain, sums = wiring.graph, Plain(nothing()), list[Tensor]()
    taps = watching(wiring, plain)
    taps += [(site, noted(sums)) for layer in range(graph.n_layers) for site in wiring.stream_sums(layer)]
    bench.worlds.n_passes += 1
    with tapped(wiring.model, taps):
        inputs = bench.worlds.inputs("clean", chunk.group)[chunk.rows]
        read_logits(wiring.model, inputs, bench.worlds.positions(chunk.group))

    def flow(parts: Tensor, stream: Tensor, weights: Tensor) -> Tensor:
        at = weights * importance(parts, stream, clip)
        return at if by_pos else at.sum(-1, keepdim=True)

    parts, found = _Parts(wiring, plain, sums), []
    for layer in range(graph.n_layers):
        read = flow(parts.before(layer), plain.before(layer, within=False), chunk.inside)
        found += [read] * (graph.n_heads + 2 * graph.n_kv)
        if graph.has_mlps:
            found.append(flow(parts.within(layer), plain.before(layer, within=True), chunk.inside))
    found.append(flow(parts.before(graph.n_layers), plain.end, chunk.at_end))
    return torch.cat(found, 1)


def importance(
    parts: Float[Tensor, "row sender pos d_model"], stream: Float[Tensor, "row pos d_model"], clip: float = 0.0
) -> Float[Tensor, "row sender pos"]:  # fmt: skip
    """Normalised importance of each part for the stream; 0 for all where no part is closer to it than nothing."""
    y = stream[:, None]
    closer = (y.abs().sum(-1) - (parts - y).abs().sum(-1)).clamp(min=clip)
    total = closer.sum(1, keepdim=True)
    return torch.where(total > 0, closer / total, torch.zeros_like(closer))


@final
class _Parts:
    """What each sender's output is in the residual stream, [row, sender, pos, d_model], grown layer by layer."""

    def __init__(self, wiring: Wiring, plain: Plain, sums: list[Tensor]) -> None:
        self.wiring, self.plain, self.sums = wiring, plain, sums
        n_rows, n_pos, d_model = plain.sent.embed.shape
        self.buffer = plain.sent.embed.new_empty(n_rows, len(wiring.graph.sender_ends), n_pos, d_model)
        self.buffer[:, 0] = plain.sent.embed
        self.n, self.layer = 1, 0

    def before(self, layer: int) -> Tensor:
        """What stands before a layer's attention."""
        while self.layer < layer:
            self._add_layer(self.layer)
        return self.buffer[:, : self.n]

    def within(self, layer: int) -> Tensor:
        """What stands before a layer's MLP; to be asked for once, after `before`."""
        self._add_heads(layer)
        return self.buffer[:, : self.wiring.graph.n_before(layer, within=True)]

    def _add_layer(self, layer: int) -> None:
        graph = self.wiring.graph
        if self.n == graph.n_before(layer):
            self._add_heads(layer)
        if graph.has_mlps:
            self._add(self.plain.sent.mlp[layer][:, None])
        self._pass(layer, "mlp")
        self.layer = layer + 1

    def _add_heads(self, layer: int) -> None:
        written = self.wiring.write(layer, self.plain.sent.z[layer])
        if self.plain.outputs:
            written = held(self.wiring, self.wiring.write_norm(layer, "attn"), self.plain.outputs[layer], written)
        self._add(written)
        self._pass(layer, "attn")

    def _add(self, parts: Tensor) -> None:
        self.buffer[:, self.n : self.n + parts.shape[1]] = parts
        self.n += parts.shape[1]

    def _pass(self, layer: int, half: str) -> None:
        """Through the norm of the stream itself."""
        if self.sums:
            at = self.sums[2 * layer + (half == "mlp")]
            norm = self.wiring.stream_norm(layer, half)
            self.buffer[:, : self.n] = held(self.wiring, norm, at, self.buffer[:, : self.n])


def held(
    wiring: Wiring, norm: Norm, at: Float[Tensor, "row pos d_model"], parts: Float[Tensor, "row part pos d_model"]
) -> Float[Tensor, "row part pos d_model"]:  # fmt: skip
    """Parts of `at` as the norm of `at` lets them through: with its size held, they add up to its output less its bias."""
    linear = linear_part(norm, wiring)
    if linear.gain is None:
        return parts
    whole, given = linear.through(at), norm(at) - norm(torch.zeros_like(at))
    scale = (given * whole).sum(-1, keepdim=True) / whole.square().sum(-1, keepdim=True)
    return linear.through(parts) * scale[:, None]
