"""Gradients of the metric at every receiver's input, from one forward and one backward pass.

Those of q, k and v are kept at the projections' outputs, per head [row, pos, head, d_head], and taken back to the residual
stream later, one layer at a time (`contract.py`): a gradient at each head's own input would take d_model / d_head times the
memory. An MLP's input and the end of the stream are read as a whole, so theirs are kept as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from optrode.circuit.edge.graph import KEYS
from optrode.circuit.edge.hold import edge_taps
from optrode.circuit.edge.senders import Sent, listening, noted, nothing
from optrode.circuit.edge.wiring import Wiring
from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.site.site import Moment, Site
from optrode.site.tap import Function, tapped
from optrode.trial.trial import World
from optrode.trial.worlds import read_logits

PARTS: Final = ("q", *KEYS)
Total = Callable[[Tensor], Tensor]
"""Logits -> [row] metric."""


@dataclass
class Slopes:
    """What one forward and backward pass gave.

    Attributes:
        sent: every sender's output in this run.
        streams: [layer] what the attention read, [row, pos, d_model].
        outputs: [layer] the attention's output before its own norm, where it has one; else empty.
        sums: attention, MLP, attention, ... of each layer: the stream before its own norm, where it has one; else empty.
        heads: "q", "k", "v", and "z" (heads' outputs) -> [layer] of [row, pos, head, d_head].
        mlp: [layer] of [row, pos, d_model], at the MLP's input in the residual stream.
        end: [row, pos, d_model], at the end of the residual stream.
        values: [row] the metric.
    """

    sent: Sent
    streams: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    heads: dict[str, list[Tensor]] = field(default_factory=dict)
    mlp: list[Tensor] = field(default_factory=list)
    end: Tensor = field(default_factory=lambda: torch.empty(0))
    values: Tensor = field(default_factory=lambda: torch.empty(0))

    def later(self, first: int) -> "Slopes":
        """The same from a position on."""
        if not first:
            return self
        streams, outputs, sums, mlp = (
            [tensor[:, first:] for tensor in held] for held in (self.streams, self.outputs, self.sums, self.mlp)
        )
        heads = {kind: [tensor[:, first:] for tensor in held] for kind, held in self.heads.items()}
        sent = self.sent.map(lambda tensor: tensor[:, first:])
        return Slopes(sent, streams, outputs, sums, heads, mlp, self.end[:, first:], self.values)


@dataclass(frozen=True)
class Point:
    """Where gradients are taken.

    Attributes:
        world: whose prompts are read.
        gates: held in the run, bound to their recordings.
        keep: every edge's a, the same for all; below 1 the run has every edge partly ablated.
    """

    gates: tuple[Gate, ...] = ()
    keep: float = 1.0
    world: World = "clean"


def slopes_at(
    wiring: Wiring, inputs: Tensor, positions: Sequence[int], metric: Total, point: Point, ablated: Sent | None = None
) -> Slopes:
    """One forward and one backward pass.

    Args:
        metric: gradients are those of its sum over rows, so each row's are its own.
        ablated: needed where `point.keep` is below 1.
    """
    return next(_slopes(wiring, inputs, positions, metric, point, ablated, (None,)))


def slopes_without(
    wiring: Wiring, inputs: Tensor, positions: Sequence[int], metric: Total
) -> Iterator[Slopes]:
    """One forward pass and 1 + n_layers backward passes: the plain gradients, then those without each layer's own part.

    A backward pass without a layer goes around its attention and its MLP (GradDrop of AtP*, arXiv 2403.00745).
    """
    return _slopes(wiring, inputs, positions, metric, Point(), None, (None, *range(wiring.graph.n_layers)))


def _slopes(
    wiring: Wiring, inputs: Tensor, positions: Sequence[int], metric: Total, point: Point, ablated: Sent | None,
    without: Sequence[int | None],
) -> Iterator[Slopes]:  # fmt: skip
    found, held = Slopes(nothing()), _Held(wiring, drops=len(without) > 1)
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(wiring.widened())
        stack.enter_context(tapped(wiring.model, [(wiring.site("resid_pre", 0), _leaf)]))
        if point.keep < 1:
            assert ablated is not None
            stack.enter_context(tapped(wiring.model, edge_taps(wiring, _uniform(wiring, point.keep, inputs), ablated)))
        stack.enter_context(gates(wiring.model, *point.gates))
        stack.enter_context(tapped(wiring.model, listening(wiring, found.sent) + held.taps(found)))
        values = metric(read_logits(wiring.model, inputs, positions))
        found.values = values.detach()
    for layer in without:
        held.dropped = layer
        is_last = layer == without[-1]
        slopes = torch.autograd.grad(values.sum(), held.tensors, allow_unused=True, retain_graph=not is_last)
        yield held.handed_over(slopes, found)


def _uniform(wiring: Wiring, keep: float, inputs: Tensor) -> Tensor:
    return torch.full((len(wiring.graph.sender_ends),), keep, dtype=wiring.model.dtype, device=inputs.device)


def _leaf(h: Tensor, moment: Moment) -> Tensor:
    """Gradients flow from here on: parameters need none."""
    return h.detach().requires_grad_()


class _Held:
    """Tensors of the run's graph whose gradients are wanted, and where these go.

    Attributes:
        dropped: the layer whose own part the next backward pass leaves out.
    """

    def __init__(self, wiring: Wiring, *, drops: bool) -> None:
        self.wiring, self.drops = wiring, drops
        self.dropped: int | None = None
        self.tensors: list[Tensor] = []
        self.kinds: list[str] = []

    def taps(self, found: Slopes) -> list[tuple[Site, Function]]:
        site, graph = self.wiring.site, self.wiring.graph
        taps: list[tuple[Site, Function]] = []
        for layer in range(graph.n_layers):
            taps.append((site("attn_in", layer), noted(found.streams)))
            taps += [(site(f"attn.{part}", layer), self._keep(part)) for part in PARTS]
            taps.append((site("attn.z", layer), self._keep("z", layer)))
            taps += [] if self.wiring.is_additive else [(self.wiring.unnormed_write(layer), noted(found.outputs))]
            if graph.has_mlps:
                taps.append((site("mlp_in", layer), self._keep("mlp")))
                taps += [(site("mlp_out", layer), self._branch(layer))] if self.drops else []
            taps += [(place, noted(found.sums)) for place in self.wiring.stream_sums(layer)]
        return [*taps, (self.wiring.end(), self._keep("end"))]

    def _keep(self, kind: str, layer: int = -1) -> Function:
        def tap(h: Tensor, moment: Moment) -> Tensor:
            copies = self.wiring.graph.n_heads // h.shape[2] if self.wiring.per_query_head and kind in KEYS else 1
            if not h.requires_grad:  # nothing before it does
                h = h.detach().requires_grad_()
            own = h.repeat_interleave(copies, 2) if copies > 1 else h.view_as(h)  # a branch of its own in the graph
            self.tensors.append(own)
            self.kinds.append(kind)
            return self._dropping(own, layer) if kind == "z" and self.drops else own

        return tap

    def _branch(self, layer: int) -> Function:
        def tap(h: Tensor, moment: Moment) -> Tensor:
            return self._dropping(h, layer)

        return tap

    def _dropping(self, h: Tensor, layer: int) -> Tensor:
        own = h.view_as(h)
        own.register_hook(lambda slope: torch.zeros_like(slope) if self.dropped == layer else slope)
        return own

    def handed_over(self, slopes: Sequence[Tensor | None], found: Slopes) -> Slopes:
        by_kind: dict[str, list[Tensor]] = {kind: [] for kind in (*PARTS, "z", "mlp", "end")}
        for kind, tensor, slope in zip(self.kinds, self.tensors, slopes, strict=True):
            by_kind[kind].append(torch.zeros_like(tensor) if slope is None else slope)
        (end,), mlp = by_kind.pop("end"), by_kind.pop("mlp")
        return replace(found, end=end, mlp=mlp, heads=by_kind)
