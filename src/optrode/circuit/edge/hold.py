"""Run a model with edges ablated: each receiver reads the residual stream with its own choice of senders replaced.

    r_v = stream + sum over senders u of (1 - a_uv) * (ablated u - current u)

a_uv is 1 where the edge is kept and 0 where it is ablated, or anything between; gradients flow through it. `current u` is
what u gives in this very run. Where norms stand on the way (after a half of the block, or on the stream itself) the sum is
not additive, and the stream of each receiver is walked again with its own senders (`_Walked`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.senders import Plain, Sent, first_change
from optrode.circuit.edge.wiring import Wiring
from optrode.site.site import Moment, Site
from optrode.site.tap import Function, tapped

Keep = Tensor
"""a: [receiver, sender] for all rows, [row, receiver, sender], or [row or 1, pos, receiver, sender]; or [sender] for all
receivers, which then read one stream."""


@contextmanager
def holding(wiring: Wiring, keep: Keep, ablated: Sent) -> Iterator[None]:
    """Runs made inside the context have edges ablated; afterwards the model is as before.

    Args:
        keep: see `Keep`; entries that are no edge are not looked at.
        ablated: what senders give where an edge is ablated, for the rows of these runs.
    """
    with wiring.widened(), tapped(wiring.model, edge_taps(wiring, keep, ablated)):
        yield


def edge_taps(wiring: Wiring, keep: Keep, ablated: Sent) -> list[tuple[Site, Function]]:
    """The taps that ablate edges, in the order of the computation."""
    is_uniform = keep.dim() == 1 and wiring.is_additive and bool((keep == keep[0]).all())
    return _Taps(wiring, 1 - keep, _Shifted(wiring, ablated) if is_uniform else stream_of(wiring, ablated)).all()


def stream_of(wiring: Wiring, ablated: Sent, plain: Plain | None = None) -> "Stream":
    """The way a model's receivers read the stream; of a run under way, or of one that is over."""
    stream: Stream = _Added(wiring, ablated) if wiring.is_additive else _Walked(wiring, ablated)
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


@final
class _Taps:
    """Where senders are heard and receivers answered, for one way of cutting edges."""

    def __init__(self, wiring: Wiring, cut: Tensor, stream: Stream) -> None:
        self.wiring, self.graph, self.cut, self.stream = wiring, wiring.graph, cut, stream
        self.answers: dict[str, tuple[list[int], Tensor]] = {}
        self.is_cut = _touched(cut, torch.as_tensor(self.graph.is_edge, device=cut.device))

    def all(self) -> list[tuple[Site, Function]]:
        site, n_layers = self.wiring.site, self.graph.n_layers
        taps = [(site("resid_pre", 0), _heard(self.stream.embed))]
        for layer in range(n_layers):
            taps += self._attention(layer) + (self._mlp(layer) if self.graph.has_mlps else [])
        last = len(self.graph.receiver_ends) - 1
        return [*taps, (self.wiring.end(), self._whole(n_layers, last, within=False))]

    def _attention(self, layer: int) -> list[tuple[Site, Function]]:
        site, heard = self.wiring.site, self.stream
        first = self.graph.receivers_of(layer)["q"].start
        is_one = self.cut.dim() == 1
        taps = [(site("attn_in", layer), self._whole(layer, first, within=False) if is_one else self._asked(layer))]
        taps += [] if is_one else [(site(f"attn.{part}", layer), self._answer(part)) for part in ("q", "k", "v")]
        taps.append((site("attn.z", layer), _heard(lambda z: heard.heads(layer, z))))
        if self.wiring.is_additive:
            return taps
        return [*taps, (self.wiring.unnormed_write(layer), _heard(lambda output: heard.attn(layer, output)))]

    def _mlp(self, layer: int) -> list[tuple[Site, Function]]:
        at = self.graph.receivers_of(layer)["mlp"].start
        heard = _heard(lambda output: self.stream.mlp(layer, output))
        return [
            (self.wiring.site("mlp_in", layer), self._whole(layer, at, within=True)),
            (self.wiring.site("mlp_out", layer), heard),
        ]

    def _asked(self, layer: int) -> Function:
        """At the attention's input: what each q, k and v becomes."""

        def tap(h: Tensor, moment: Moment) -> None:
            norm = self.wiring.input_norm(layer)
            for part, where in self._parts(layer):
                own = [ix - where.start for ix in range(where.start, where.stop) if self.is_cut[ix]]
                if own:
                    cut = self._cut([where.start + ix for ix in own], self.graph.n_before(layer))
                    normed = norm(self.stream.read(cut, h, layer, within=False))
                    self.answers[part] = (own, self.wiring.project(layer, part, normed, own))

        return tap

    def _parts(self, layer: int) -> list[tuple[str, slice]]:
        return [(part, where) for part, where in self.graph.receivers_of(layer).items() if part != "mlp"]

    def _answer(self, part: str) -> Function:
        def tap(h: Tensor, moment: Moment) -> Tensor | None:
            copies = self.graph.n_heads // h.shape[2] if self.wiring.per_query_head else 1
            wide = h.repeat_interleave(copies, 2) if copies > 1 else h
            if part not in self.answers:
                return wide if copies > 1 else None
            own, answer = self.answers.pop(part)
            return answer if len(own) == wide.shape[2] else wide.index_copy(2, torch.tensor(own, device=h.device), answer)

        return tap

    def _whole(self, layer: int, receiver: int, *, within: bool) -> Function:
        """At a receiver that reads the stream by itself."""

        def tap(h: Tensor, moment: Moment) -> Tensor | None:
            if not self.is_cut[receiver]:
                return None
            cut = self._cut([receiver], int(self.graph.n_seen[receiver]))
            return self.stream.read(cut, h, layer, within=within)[:, 0]

        return tap

    def _cut(self, receivers: list[int], n_seen: int) -> Tensor:
        return self.cut[None, :n_seen] if self.cut.dim() == 1 else self.cut[..., receivers, :n_seen]


def _touched(cut: Tensor, is_edge: Tensor) -> list[bool]:
    """[receiver] whether any edge into it is cut for any row."""
    if cut.requires_grad or cut.dim() == 1:
        return [True] * len(is_edge)
    return (cut.ne(0) & is_edge).flatten(0, -3).any(0).any(-1).tolist() if cut.dim() > 2 else (
        cut.ne(0) & is_edge).any(-1).tolist()


def _heard(note: Callable[[Tensor], None]) -> Function:
    def tap(h: Tensor, moment: Moment) -> None:
        note(h)

    return tap
