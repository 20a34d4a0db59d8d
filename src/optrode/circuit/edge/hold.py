"""Run a model with edges ablated: each receiver reads the residual stream with its own choice of senders replaced.

    r_v = stream + sum over senders u of (1 - a_uv) * (ablated u - current u)

a_uv is 1 where the edge is kept and 0 where it is ablated, or anything between; gradients flow through it. `current u` is
what u gives in this very run (`streams.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from optrode.circuit.edge.senders import Sent
from optrode.circuit.edge.streams import Stream, stream_of
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
    is_uniform = keep.dim() == 1 and bool((keep == keep[0]).all())
    return _Taps(wiring, 1 - keep, stream_of(wiring, ablated, is_uniform=is_uniform)).all()


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
    touched: list[bool] = (cut.ne(0) & is_edge).reshape(-1, *is_edge.shape).any(0).any(-1).tolist()
    return touched


def _heard(note: Callable[[Tensor], None]) -> Function:
    def tap(h: Tensor, moment: Moment) -> None:
        note(h)

    return tap
