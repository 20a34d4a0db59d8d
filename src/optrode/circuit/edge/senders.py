"""What the senders of a run gave: per head before the output projection, so that little is stored, and written out on
demand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.wiring import Wiring
from optrode.circuit.nodes import find_ablation
from optrode.site.site import Moment, Site
from optrode.site.tap import Function


@dataclass
class Sent:
    """The outputs of all senders in one run, or what they are replaced with.

    Attributes:
        embed: [row, pos, d_model] what enters the first block.
        z: [layer] of [row, pos, head, d_head].
        mlp: [layer] of [row, pos, d_model]; empty without MLPs.

    In replacements, rows and positions may have length 1: the same everywhere.
    """

    embed: Tensor
    z: list[Tensor]
    mlp: list[Tensor]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Sent":
        """The same with a function applied to every tensor."""
        return Sent(function(self.embed), [function(t) for t in self.z], [function(t) for t in self.mlp])

    def minus(self, other: "Sent") -> "Sent":
        """The difference, tensor by tensor."""
        pairs = zip(self.z, other.z, strict=True), zip(self.mlp, other.mlp, strict=True)
        return Sent(self.embed - other.embed, *([a - b for a, b in pair] for pair in pairs))

    def plus(self, other: "Sent") -> "Sent":
        """The sum, tensor by tensor."""
        return self.minus(other.map(torch.neg))

    def rows(self, rows: Sequence[int] | Tensor) -> "Sent":
        """Some of the rows; what is the same for all rows stays as it is."""
        at = torch.as_tensor(rows, device=self.embed.device)
        return self.map(lambda tensor: tensor if tensor.shape[0] == 1 else tensor[at])


def listening(wiring: Wiring, sent: Sent) -> list[tuple[Site, Function]]:
    """Taps that note every sender's output of a run into an empty `Sent`."""
    layers = range(wiring.graph.n_layers)

    def first(h: Tensor, moment: Moment) -> None:
        sent.embed = h.detach()

    taps: list[tuple[Site, Function]] = [(wiring.site("resid_pre", 0), first)]
    taps += [(wiring.site("attn.z", layer), noted(sent.z)) for layer in layers]
    return taps + [(wiring.site("mlp_out", layer), noted(sent.mlp)) for layer in layers if wiring.graph.has_mlps]


@dataclass
class Plain:
    """A plain run, as far as receivers need it.

    Attributes:
        sent: every sender's output.
        attn_in, mlp_in: [layer] what attention and MLP read of the stream, [row, pos, d_model].
        end: the end of the stream.
        outputs: [layer] the attention's output before its own norm, where it has one; else empty.
    """

    sent: Sent
    attn_in: list[Tensor] = field(default_factory=list)
    mlp_in: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    end: Tensor = field(default_factory=lambda: torch.empty(0))

    def before(self, layer: int, *, within: bool) -> Tensor:
        """The stream before a layer's attention, before its MLP (within), or at the end."""
        if layer == len(self.attn_in):
            return self.end
        return self.mlp_in[layer] if within else self.attn_in[layer]


def watching(wiring: Wiring, plain: Plain) -> list[tuple[Site, Function]]:
    """Taps that note a run into an empty `Plain`."""

    def last(h: Tensor, moment: Moment) -> None:
        plain.end = h.detach()

    taps = listening(wiring, plain.sent)
    for layer in range(wiring.graph.n_layers):
        taps.append((wiring.site("attn_in", layer), noted(plain.attn_in)))
        taps += [(wiring.site("mlp_in", layer), noted(plain.mlp_in))] if wiring.graph.has_mlps else []
        taps += [] if wiring.is_additive else [(wiring.unnormed_write(layer), noted(plain.outputs))]
    return [*taps, (wiring.end(), last)]


def noted(into: list[Tensor]) -> Function:
    """A tap that appends what comes by."""

    def tap(h: Tensor, moment: Moment) -> None:
        into.append(h.detach())

    return tap


def first_change(wiring: Wiring, embed: Float[Tensor, "row pos d_model"]) -> int:
    """The first position at which any row changes, from the change of what enters the first block.

    In a causal model no sender changes before it. The last position where nothing changes at all.
    """
    if not wiring.model.table.is_causal:
        return 0
    hit = embed.detach().ne(0).flatten(2).any(2).any(0)
    return int(hit.int().argmax()) if bool(hit.any()) else embed.shape[1] - 1


def nothing() -> Sent:
    """A `Sent` to be filled by `listening`."""
    return Sent(torch.empty(0), [], [])


def replacement(ablation: str, clean: Sent | None, corrupt: Sent | None) -> Sent:
    """What ablated senders give instead of their own output.

    Args:
        clean, corrupt: the two worlds' runs, as far as the ablation needs them: see `needs`.

    Raises:
        BadOption: there is no such ablation.
    """
    find_ablation(ablation)
    if ablation == "resample":
        assert corrupt is not None
        return corrupt
    assert clean is not None
    return clean.map(torch.zeros_like) if ablation == "zero" else clean.map(lambda t: t.mean(0, keepdim=True))

