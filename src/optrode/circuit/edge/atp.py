"""The two corrections of AtP* (Kramár et al., arXiv 2403.00745) for edges.

"atp-qk" (their section 3.1.1): a saturated softmax hides what a change of q or k does. Here the attention of the receiving
head is computed again with its q (or k) read from the changed stream; only what its output z does further on is linearised:
s(u, h.q) = sum over pos of (z_h with the changed q - z_h) * dm/dz_h. Edges into v, MLPs and logits are as in EAP.

"atp-drop" (GradDrop, their section 3.1.2): direct and indirect effects that cancel hide an edge. Gradients are taken
once for each layer with that layer left out of the backward pass; the score's size is the sum of their absolute values /
(n_layers - 1), its sign that of the plain gradient.
"""

from collections.abc import Iterator
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.contract import Shares
from optrode.circuit.edge.eap import Batch, Shared
from optrode.circuit.edge.senders import Plain
from optrode.circuit.edge.slopes import Point, Slopes, slopes_without
from optrode.circuit.edge.streams import stream_of
from optrode.errors import BadOption
from optrode.site.site import Moment
from optrode.site.tap import tapped
from optrode.trial.blocks import blocks_of, starting_at
from optrode.trial.worlds import read_logits

N_TOKENS: Final = 8192
"""Tokens whose attention is computed again at a time, about."""


def along_drops(batch: Batch, by_pos: bool) -> Iterator[Shared]:
    """EAP with GradDrop.

    Raises:
        BadOption: positions were asked for, or the model has one layer.
    """
    runs = batch.runs
    n_layers = runs.wiring.graph.n_layers
    if by_pos or n_layers < 2:
        found = "absolute values of positions do not add up" if by_pos else f"{runs.bench.model.name} has one layer"
        raise BadOption("method 'atp-drop' for edges", found, next_step="use method 'eap'")
    positions = runs.bench.worlds.positions(batch.group)
    every = slopes_without(runs.wiring, batch.inputs(), positions, batch.metric)
    ablated = batch.ablated
    plain, *parts = (batch.contract(ablated, slopes.sent, slopes, False).per_row for slopes in every)
    runs.bench.worlds.n_passes += 1
    yield Shares(plain.sign() * torch.stack(parts).abs().sum(0) / (n_layers - 1)), 1.0


def with_attention_again(batch: Batch, by_pos: bool) -> Iterator[Shared]:
    """EAP with the attention of receiving heads computed again for changed q and k.

    Raises:
        BadOption: positions were asked for: a changed key acts at later positions.
    """
    if by_pos:
        raise BadOption("method 'atp-qk' by position", "a changed key acts at later positions", next_step="leave by_pos out")
    slopes = batch.slopes(Point(), at_z=True)
    shares = batch.contract(batch.ablated, slopes.sent, slopes, False).per_row
    graph = batch.runs.wiring.graph
    at = 0
    for layer in range(graph.n_layers):
        n_seen, parts = graph.n_before(layer), graph.receivers_of(layer)
        for part in ("q", "k"):
            size = (parts[part].stop - parts[part].start) * n_seen
            shares[:, at : at + size] = _again(batch, slopes, layer, part).flatten(1)
            at += size
        at += (parts["v"].stop - parts["v"].start) * n_seen
        at += graph.n_before(layer, within=True) if graph.has_mlps else 0
    yield Shares(shares), 1.0


@torch.no_grad()
def _again(batch: Batch, slopes: Slopes, layer: int, part: str) -> Float[Tensor, "row receiver sender"]:
    """Scores of every edge into one layer's q (or k)."""
    wiring = batch.runs.wiring
    plain = Plain(slopes.sent, attn_in=slopes.streams, outputs=slopes.outputs)
    stream = stream_of(wiring, batch.ablated, plain)
    n_seen, (n_rows, n_pos, _) = wiring.graph.n_before(layer), slopes.streams[layer].shape
    step = max(1, N_TOKENS // (n_rows * n_pos))
    found = []
    for start in range(0, n_seen, step):
        senders = range(start, min(start + step, n_seen))
        cut = torch.zeros(len(senders), n_seen, dtype=wiring.model.dtype, device=wiring.model.device)
        cut[range(len(senders)), list(senders)] = 1.0
        read = wiring.input_norm(layer)(stream.read(cut, slopes.streams[layer], layer, within=False))
        z = _mixed_again(batch, layer, part, _projected(batch, layer, part, read)).unflatten(0, (n_rows, len(senders)))
        change = z - slopes.sent.z[layer][:, None]
        found.append(torch.einsum("bsthe,bthe->bhs", change, slopes.heads["z"][layer]))
    return _by_receiver(batch, torch.cat(found, 2), part)


def _by_receiver(batch: Batch, by_head: Float[Tensor, "row head sender"], part: str) -> Tensor:
    """A group's key reaches all of its query heads."""
    n_heads, n_kv = by_head.shape[1], batch.runs.wiring.graph.n_kv
    return by_head if part == "q" or n_kv == n_heads else by_head.unflatten(1, (n_kv, -1)).sum(2)


def _projected(
    batch: Batch, layer: int, part: str, normed: Float[Tensor, "row sender pos d_model"]
) -> Float[Tensor, "job pos part_head d_head"]:
    """All heads' q (or all groups' k) of changed streams; a job is a row with one sender changed."""
    weight, bias = batch.runs.wiring.grouped_weights(layer, part)
    found = torch.einsum("btd,hde->bthe", normed.flatten(0, 1), weight)
    return found if bias is None else found + bias


class _Mixed(Exception):
    """Carries the attention's result out of a block that need not go on."""

    def __init__(self, z: Tensor) -> None:
        super().__init__("z")
        self.z = z


def _mixed_again(
    batch: Batch, layer: int, part: str, changed: Float[Tensor, "job pos part_head d_head"]
) -> Float[Tensor, "job pos head d_head"]:
    """The attention's z with a changed q or k, all else as in the clean run.

    The model's own forward pass runs on the repeated prompts, with the blocks before this one stood in for, so that masks
    and angles are its own; it stops once z is there.
    """
    wiring, worlds = batch.runs.wiring, batch.runs.bench.worlds
    walk, rows = worlds.walk("clean", batch.group), list(batch.rows)
    times = len(changed) // len(rows)
    stream = walk.before(layer)[rows].repeat_interleave(times, 0)
    inputs = batch.inputs().repeat_interleave(times, 0)

    def stop(z: Tensor, moment: Moment) -> None:
        raise _Mixed(z)

    taps = [(wiring.site(f"attn.{part}", layer), lambda h, moment: changed), (wiring.site("attn.z", layer), stop)]
    try:
        with starting_at(blocks_of(wiring.model), layer, stream, walk), tapped(wiring.model, taps):
            read_logits(wiring.model, inputs, worlds.positions(batch.group))
    except _Mixed as mixed:
        return mixed.z
    raise AssertionError("the block mixed no values")
