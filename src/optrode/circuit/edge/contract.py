"""From senders' changes and receivers' gradients to one number per edge, prompt by prompt.

    s(u, v) = sum over pos and feature of (change of u) * dm/dr_v

r_v is what receiver v reads off the residual stream, before its own norm. Changes are written out from what heads gave
before their output projection, gradients taken back from the projections' outputs, for a few rows at a time and one
destination layer at a time, so that memory stays below that of the passes themselves. The sum over positions is one
matrix product of [sender, pos x feature] with [pos x feature, receiver] for each row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from optrode.circuit.edge.senders import Sent, first_change
from optrode.circuit.edge.slopes import PARTS, Slopes
from optrode.circuit.edge.wiring import Norm, Wiring

N_FLOATS: Final = 2**22
"""Numbers that the changes of all senders may take at a time, about: few enough for the processor's caches."""


@dataclass(frozen=True)
class Shares:
    """What each edge adds.

    Attributes:
        per_row: [row, edge], positions summed.
        per_pos: [edge, pos], rows summed, where asked for.
    """

    per_row: Float[Tensor, "row edge"]
    per_pos: Float[Tensor, "edge pos"] | None = None


@torch.no_grad()
def contract(wiring: Wiring, changes: Sent, slopes: Slopes, *, by_pos: bool = False) -> Shares:
    """Every edge's score.

    Args:
        changes: of all senders, ablated minus own, before output projections; rows may not be shared.
        slopes: gradients, and the run that norms are linearised at.
    """
    first = first_change(wiring, changes.embed)
    found = [[_part(wiring, changes, slopes, rows, part, by_pos) for part in parts]
             for rows, parts in _chunks(wiring, changes, first)]  # fmt: skip
    per_row = torch.cat([torch.stack([shares.per_row for shares in of_rows]).sum(0) for of_rows in found])
    if not by_pos:
        return Shares(per_row)
    per_pos = torch.stack([torch.cat([_of_pos(shares) for shares in of_rows], 1) for of_rows in found]).sum(0)
    return Shares(per_row, pad(per_pos, (first, 0)))


def _of_pos(shares: Shares) -> Tensor:
    assert shares.per_pos is not None
    return shares.per_pos


def _chunks(wiring: Wiring, changes: Sent, first: int) -> Iterator[tuple[slice, list[slice]]]:
    """Rows that are taken together, with the positions that are: whole rows as long as they are small."""
    n_rows, n_pos, d_model = changes.embed.shape
    n_tokens = max(1, N_FLOATS // (len(wiring.graph.sender_ends) * d_model))
    some = min(n_pos - first, n_tokens)
    positions = [slice(start, min(start + some, n_pos)) for start in range(first, n_pos, some)]
    size = max(1, n_tokens // some)
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows)), positions


def _part(wiring: Wiring, changes: Sent, slopes: Slopes, rows: slice, positions: slice, by_pos: bool) -> Shares:
    """Shares of some rows' positions."""
    slopes = slopes.part(rows, positions)
    graph, written = wiring.graph, _Written(wiring, changes.map(lambda tensor: tensor[rows, positions]), slopes)
    found = []
    for layer in range(graph.n_layers):
        taken = torch.cat([_taken_back(wiring, slopes, layer, part) for part in PARTS], 1)
        found.append(_products(written.before(layer), taken, by_pos))
        if graph.has_mlps:
            found.append(_products(written.within(layer), slopes.mlp[layer][:, None], by_pos))
    found.append(_products(written.before(graph.n_layers), slopes.end[:, None], by_pos))
    per_pos = torch.cat([pos for _, pos in found if pos is not None]) if by_pos else None
    return Shares(torch.cat([row for row, _ in found], 1), per_pos)


def _products(changes: Tensor, slopes: Tensor, by_pos: bool) -> tuple[Tensor, Tensor | None]:
    """[row, edge] and [edge, pos] products of [row, sender, pos, d_model] with [row, receiver, pos, d_model]."""
    per_row = slopes.flatten(2) @ changes.flatten(2).transpose(1, 2)
    if not by_pos:
        return per_row.flatten(1), None
    per_pos = torch.einsum("bvtd,bstd->vst", slopes, changes)
    return per_row.flatten(1), per_pos.flatten(0, 1)


class _Written:
    """Senders' changes as they stand in the residual stream, [row, sender, pos, d_model], grown layer by layer."""

    def __init__(self, wiring: Wiring, changes: Sent, slopes: Slopes) -> None:
        self.wiring, self.changes, self.slopes = wiring, changes, slopes
        n_rows, n_pos, d_model = changes.embed.shape
        self.buffer = changes.embed.new_empty(n_rows, len(wiring.graph.sender_ends), n_pos, d_model)
        self.buffer[:, 0] = changes.embed
        self.n, self.at = 1, (0, False)

    def before(self, layer: int) -> Tensor:
        """What stands before a layer's attention."""
        if layer > self.at[0]:
            self.within(layer - 1)
            if self.wiring.graph.has_mlps:
                self._add(self.changes.mlp[layer - 1][:, None])
            self._pass(layer - 1, "mlp")
            self.at = (layer, False)
        return self.buffer[:, : self.n]

    def within(self, layer: int) -> Tensor:
        """What stands before a layer's MLP."""
        if self.at == (layer, False):
            self._add(self._heads(layer))
            self._pass(layer, "attn")
            self.at = (layer, True)
        return self.buffer[:, : self.wiring.graph.n_before(layer, within=True)]

    def _add(self, changes: Tensor) -> None:
        self.buffer[:, self.n : self.n + changes.shape[1]] = changes
        self.n += changes.shape[1]

    def _heads(self, layer: int) -> Tensor:
        """Heads' changes; where their sum is normed, each is what its change alone makes of the normed sum."""
        change = self.wiring.write(layer, self.changes.z[layer])
        if self.wiring.is_additive:
            return change
        norm, plain = self.wiring.write_norm(layer, "attn"), self.slopes.outputs[layer][:, None]
        return norm(plain + change) - norm(plain)

    def _pass(self, layer: int, half: str) -> None:
        """Through the norm of the stream itself, to first order."""
        if not self.wiring.model.table.is_post_norm:
            return
        stream = self.slopes.sums[2 * layer + (half == "mlp")][:, None]
        norm = self.wiring.stream_norm(layer, half)
        before = self.buffer[:, : self.n]
        self.buffer[:, : self.n] = _pushed(norm, stream.expand_as(before).contiguous(), before)


def _pushed(norm: Norm, point: Tensor, change: Tensor) -> Tensor:
    """A norm's derivative at a point, applied to a change (forward mode)."""
    pushed: Tensor = torch.func.jvp(norm, (point,), (change,))[1]
    return pushed


def _taken_back(
    wiring: Wiring, slopes: Slopes, layer: int, part: str
) -> Float[Tensor, "row receiver pos d_model"]:
    """Gradients at q, k or v of each head, taken back to the residual stream that it reads."""
    weight, _ = wiring.input_weights(layer, part)
    at_norm = torch.einsum("bthe,hde->bhtd", slopes.heads[part][layer], weight)
    return pulled(wiring.input_norm(layer), slopes.streams[layer][:, None], at_norm)


def pulled(norm: Norm, point: Tensor, slope: Tensor) -> Tensor:
    """A norm's derivative at a point, applied to a gradient of its output (reverse mode); `point` is broadcast."""
    with torch.enable_grad():
        x = point.expand_as(slope).detach().requires_grad_()
        y = norm(x)
        if y is x:
            return slope
        back: Tensor = torch.autograd.grad(y, x, slope)[0]
        return back
