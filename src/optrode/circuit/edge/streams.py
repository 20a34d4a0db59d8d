"""What receivers read while some of their senders are ablated: added up, shifted as a whole, or walked through norms.

    r_v = stream + sum over senders u of (1 - a_uv) * (ablated u - current u)

Where norms stand on the way (after a half of the block, or on the stream itself) the sum is not additive, and the stream
of each receiver is walked again from the start with its own senders: path patching's direct path, with all else as in
this run.
"""

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.senders import Plain, Sent, first_change
from optrode.circuit.edge.wiring import Wiring


def stream_of(wiring: Wiring, ablated: Sent, plain: Plain | None = None, *, is_uniform: bool = False) -> "Stream":
    """The way a model's receivers read the stream.

    Args:
        plain: a run that is over; else one under way is heard.
        is_uniform: all senders are ablated to one degree for all receivers.
    """
    kind = (_Shifted if is_uniform else _Added) if wiring.is_additive else _Walked
    stream: Stream = kind(wiring, ablated)
    if plain is not None:
        stream.replay(plain)
    return stream


class Stream(ABC):
    """What has been sent so far in a run, and what a receiver reads when some of it is ablated."""

    def __init__(self, wiring: Wiring, ablated: Sent) -> None:
        self.wiring, self.ablated = wiring, ablated

    def replay(self, plain: Plain) -> None:
        """Hear a run that is over."""
        self.embed(plain.sent.embed)
        for layer, z in enumerate(plain.sent.z):
            self.heads(layer, z)
            if plain.outputs:
                self.attn(layer, plain.outputs[layer])
            if plain.sent.mlp:
                self.mlp(layer, plain.sent.mlp[layer])

    @abstractmethod
    def embed(self, h: Tensor) -> None:
        """Note what enters the first block."""

    @abstractmethod
    def heads(self, layer: int, z: Tensor) -> None:
        """Note a layer's heads."""

    @abstractmethod
    def attn(self, layer: int, output: Tensor) -> None:
        """Note the attention's output, before its norm if it has one."""

    @abstractmethod
    def mlp(self, layer: int, output: Tensor) -> None:
        """Note what an MLP adds to the stream."""

    @abstractmethod
    def read(self, cut: Tensor, stream: Tensor, layer: int, *, within: bool) -> Float[Tensor, "row receiver pos d_model"]:
        """The stream as receivers read it.

        Args:
            cut: 1 - a for these receivers and the senders before them.
            stream: the stream of this run at this place.
            layer, within: which place: before a layer's attention, or (within) before its MLP.
        """


@final
class _Added(Stream):
    """The stream is the sum of what is sent: a receiver reads it plus the differences of its ablated senders.

    Positions before the first at which the ablated input differs are left alone: nothing differs there in a causal model.
    """

    def __init__(self, wiring: Wiring, ablated: Sent) -> None:
        super().__init__(wiring, ablated)
        self.first = self.n = 0
        self.total = torch.empty(0)
        self.changes = torch.empty(0)  # [row, sender, pos, d_model]

    def embed(self, h: Tensor) -> None:
        change = self.ablated.embed - h
        self.first = first_change(self.wiring, change)
        n_rows, n_pos, d_model = h[:, self.first :].shape
        n_kept = 0 if torch.is_grad_enabled() else len(self.wiring.graph.sender_ends)
        self.total, self.n = change[:, self.first :] * 0, 0
        self.changes = h.new_empty(n_rows, n_kept, n_pos, d_model)
        self._send(change[:, None, self.first :])

    def heads(self, layer: int, z: Tensor) -> None:
        self._send(self.wiring.write(layer, (self.ablated.z[layer] - z)[:, self.first :]))

    def attn(self, layer: int, output: Tensor) -> None:
        """Heads say it all."""

    def mlp(self, layer: int, output: Tensor) -> None:
        self._send((self.ablated.mlp[layer] - output)[:, None, self.first :])

    def _send(self, change: Tensor) -> None:
        self.total = self.total + change.sum(1)
        if torch.is_grad_enabled():
            self.changes = torch.cat([self.changes, change], 1)
        else:
            self.changes[:, self.n : self.n + change.shape[1]] = change
        self.n += change.shape[1]

    def read(self, cut: Tensor, stream: Tensor, layer: int, *, within: bool) -> Float[Tensor, "row receiver pos d_model"]:
        cut = cut[:, self.first :] if cut.dim() == 4 and cut.shape[1] > 1 else cut
        changed = stream[:, None, self.first :] + self._mixed(cut)
        if not self.first:
            return changed
        same = stream[:, None, : self.first].expand(-1, changed.shape[1], -1, -1)
        return torch.cat([same, changed], 2)

    def _mixed(self, cut: Tensor) -> Float[Tensor, "row receiver pos d_model"]:
        """Sum of the cut changes: one by one, or all less those that are kept, whichever are fewer."""
        n_seen = cut.shape[-1]
        if cut.requires_grad:
            return _mixed(cut, self.changes[:, :n_seen])
        is_cut, is_kept = (side.ne(0).flatten(0, -2).any(0) for side in (cut, 1 - cut))
        if n_seen < self.n or int(is_kept.sum()) >= int(is_cut.sum()):
            return self._some(cut, is_cut)
        if not bool(is_kept.any()):
            return self.total[:, None].expand(-1, cut.shape[-2], -1, -1)
        return self.total[:, None] - self._some(1 - cut, is_kept)

    def _some(self, weights: Tensor, used: Tensor) -> Tensor:
        if 2 * int(used.sum()) > len(used):
            return _mixed(weights, self.changes[:, : len(used)])
        return _mixed(weights[..., used], self.changes[:, : len(used)][:, used])


@final
class _Shifted(Stream):
    """All senders are ablated to one degree for all receivers: only the sum of their changes is kept."""

    def __init__(self, wiring: Wiring, ablated: Sent) -> None:
        super().__init__(wiring, ablated)
        self.total = self.before_heads = torch.empty(0)

    def embed(self, h: Tensor) -> None:
        self.total = self.before_heads = self.ablated.embed - h

    def heads(self, layer: int, z: Tensor) -> None:
        self.before_heads = self.total
        change = (self.ablated.z[layer] - z).flatten(2) @ self.wiring.output_weights(layer).flatten(0, 1)
        self.total = self.total + change

    def attn(self, layer: int, output: Tensor) -> None:
        """Heads say it all."""

    def mlp(self, layer: int, output: Tensor) -> None:
        self.total = self.total + (self.ablated.mlp[layer] - output)

    def read(self, cut: Tensor, stream: Tensor, layer: int, *, within: bool) -> Float[Tensor, "row receiver pos d_model"]:
        seen = self.before_heads if within and self.wiring.graph.is_parallel else self.total
        return (stream + cut[0, 0] * seen)[:, None]


@final
class _Walked(Stream):
    """Norms stand between senders and receivers: each receiver's stream is walked from the start."""

    def __init__(self, wiring: Wiring, ablated: Sent) -> None:
        super().__init__(wiring, ablated)
        self.start = torch.empty(0)
        self.z: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.mlps: list[Tensor] = []

    def embed(self, h: Tensor) -> None:
        self.start, self.z, self.outputs, self.mlps = h, [], [], []

    def heads(self, layer: int, z: Tensor) -> None:
        self.z.append(z)

    def attn(self, layer: int, output: Tensor) -> None:
        self.outputs.append(output)

    def mlp(self, layer: int, output: Tensor) -> None:
        self.mlps.append(output)

    def read(self, cut: Tensor, stream: Tensor, layer: int, *, within: bool) -> Float[Tensor, "row receiver pos d_model"]:
        walk = self.start[:, None] + _mixed(cut[..., :1], (self.ablated.embed - self.start)[:, None])
        for ix in range(layer):
            walk = self._after_attn(walk, cut, ix)
            walk = self._after_mlp(walk, cut, ix)
        return self._after_attn(walk, cut, layer) if within and not self.wiring.graph.is_parallel else walk

    def _after_attn(self, walk: Tensor, cut: Tensor, layer: int) -> Tensor:
        first = self.wiring.graph.n_before(layer)
        own = cut[..., first : first + self.wiring.graph.n_heads]
        change = self.wiring.write(layer, self.ablated.z[layer] - self.z[layer])
        added = self.wiring.write_norm(layer, "attn")(self.outputs[layer][:, None] + _mixed(own, change))
        return self.wiring.stream_norm(layer, "attn")(walk + added)

    def _after_mlp(self, walk: Tensor, cut: Tensor, layer: int) -> Tensor:
        if not self.wiring.graph.has_mlps:
            return walk
        at = self.wiring.graph.n_before(layer + 1) - 1
        change = (self.ablated.mlp[layer] - self.mlps[layer])[:, None]
        added = self.mlps[layer][:, None] + _mixed(cut[..., at : at + 1], change)
        return self.wiring.stream_norm(layer, "mlp")(walk + added)


def _mixed(cut: Tensor, changes: Float[Tensor, "row sender pos d_model"]) -> Float[Tensor, "row receiver pos d_model"]:
    """Sum of changes for each receiver."""
    if cut.dim() == 4:
        by_pos: Tensor = (cut @ changes.transpose(1, 2)).transpose(1, 2)
        return by_pos
    mixed: Tensor = (cut @ changes.flatten(2)).unflatten(2, changes.shape[2:])
    return mixed
