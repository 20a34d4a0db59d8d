"""Gradients of the metric at every receiver's input, from one forward and one backward pass.

Those of q, k and v are kept at the projections' outputs, per head [row, pos, head, d_head], and taken back to the residual
stream later, one layer at a time (`contract.py`): a gradient at each head's own input would take d_model / d_head times the
memory. An MLP's input and the end of the stream are read as a whole, so theirs are kept as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

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
        heads: "q", "k", "v", and where asked for "z" (heads' outputs) -> [layer] of [row, pos, head, d_head].
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

    def part(self, rows: slice, positions: slice) -> "Slopes":
        """Some of the rows and positions."""
        streams, outputs, sums, mlp = (
            [tensor[rows, positions] for tensor in held] for held in (self.streams, self.outputs, self.sums, self.mlp)
        )
        heads = {kind: [tensor[rows, positions] for tensor in held] for kind, held in self.heads.items()}
        sent = self.sent.map(lambda tensor: tensor[rows, positions])
        return Slopes(sent, streams, outputs, sums, heads, mlp, self.end[rows, positions], self.values)


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
    wiring: Wiring, inputs: Tensor, positions: Sequence[int], metric: Total, point: Point, ablated: Sent | None = None,
    *, at_z: bool = False,
) -> Slopes:  # fmt: skip
    """One forward and one backward pass.

    Args:
        metric: gradients are those of its sum over rows, so each row's are its own.
        ablated: needed where `point.keep` is below 1.
        at_z: also keep gradients at heads' outputs.
    """
    return next(_slopes(wiring, inputs, positions, metric, point, ablated, _Held(wiring, at_z=at_z), (None,)))


def slopes_without(
    wiring: Wiring, inputs: Tensor, positions: Sequence[int], metric: Total
) -> Iterator[Slopes]:
    """One forward pass and 1 + n_layers backward passes: the plain gradients, then those without each layer's own part.

    A backward pass without a layer goes around its attention and its MLP (GradDrop of AtP*, arXiv 2403.00745).
    """
    held = _Held(wiring, drops=True)
    return _slopes(wiring, inputs, positions, metric, Point(), None, held, (None, *range(wiring.graph.n_layers)))


def _slopes(
    wiring: Wiring, inputs: Tensor, positions: Sequence[int], metric: Total, point: Point, ablated: Sent | None,
    held: "_Held", without: Sequence[int | None],
) -> Iterator[Slopes]:  # fmt: skip
    found = Slopes(nothing())
    with ExitStack() as stack:
        for context in (torch.enable_grad(), _frozen(wiring.model.module), wiring.widened()):
            stack.enter_context(context)
        stack.enter_context(tapped(wiring.model, [(wiring.site("resid_pre", 0), held.start)]))
        if point.keep < 1:
            assert ablated is not None
            stack.enter_context(tapped(wiring.model, edge_taps(wiring, _uniform(wiring, point.keep, inputs), ablated)))
        stack.enter_context(gates(wiring.model, *point.gates))
        stack.enter_context(tapped(wiring.model, listening(wiring, found.sent) + held.taps(found)))
        values = metric(read_logits(wiring.model, inputs, positions))
        found.values = values.detach()
    for layer in without:
        held.dropped = layer
        torch.autograd.grad(values.sum(), held.leaves, allow_unused=True, retain_graph=layer != without[-1])
        yield held.handed_over(found)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Parameters need no gradient inside the context, so that nothing is kept for theirs."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _uniform(wiring: Wiring, keep: float, inputs: Tensor) -> Tensor:
    return torch.full((len(wiring.graph.sender_ends),), keep, dtype=wiring.model.dtype, device=inputs.device)


class _Held:
    """The run's tensors whose gradients are wanted, and these.

    Attributes:
        drops: backward passes may leave out a layer's own part, that of `dropped`.
        leaves: where the graph begins: at the first block's input, and wherever a gate holds a constant.
    """

    def __init__(self, wiring: Wiring, *, drops: bool = False, at_z: bool = False) -> None:
        self.wiring, self.drops, self.at_z = wiring, drops, at_z
        self.dropped: int | None = None
        self.leaves: list[Tensor] = []
        self.kept: list[tuple[str, Tensor]] = []
        self.slopes: dict[int, Tensor] = {}

    def start(self, h: Tensor, moment: Moment) -> Tensor:
        """A tap at the first block's input: gradients flow from here on."""
        return self._leaf(h)

    def _leaf(self, h: Tensor) -> Tensor:
        self.leaves.append(h.detach().requires_grad_())
        return self.leaves[-1]

    def taps(self, found: Slopes) -> list[tuple[Site, Function]]:
        site, graph = self.wiring.site, self.wiring.graph
        taps: list[tuple[Site, Function]] = []
        for layer in range(graph.n_layers):
            taps.append((site("attn_in", layer), noted(found.streams)))
            taps += [(site(f"attn.{part}", layer), self._keep(part)) for part in PARTS]
            taps += [(site("attn.z", layer), self._keep("z"))] if self.at_z else []
            taps += [(site("attn.z", layer), self._branch(layer))] if self.drops else []
            taps += [] if self.wiring.is_additive else [(self.wiring.unnormed_write(layer), noted(found.outputs))]
            if graph.has_mlps:
                taps.append((site("mlp_in", layer), self._keep("mlp")))
                taps += [(site("mlp_out", layer), self._branch(layer))] if self.drops else []
            taps += [(place, noted(found.sums)) for place in self.wiring.stream_sums(layer)]
        return [*taps, (self.wiring.end(), self._keep("end"))]

    def _keep(self, kind: str) -> Function:
        def tap(h: Tensor, moment: Moment) -> Tensor:
            copies = self.wiring.graph.n_heads // h.shape[2] if self.wiring.per_query_head and kind in KEYS else 1
            h = h if h.requires_grad else self._leaf(h)
            own = h.repeat_interleave(copies, 2) if copies > 1 else h.view_as(h)  # a branch of its own in the graph
            own.register_hook(partial(self._note, len(self.kept)))
            self.kept.append((kind, own.detach()))
            return own

        return tap

    def _note(self, ix: int, slope: Tensor) -> None:
        """Keep a gradient: by itself, as q, k and v may come as parts of one tensor."""
        self.slopes[ix] = slope.clone(memory_format=torch.contiguous_format)

    def _branch(self, layer: int) -> Function:
        def tap(h: Tensor, moment: Moment) -> Tensor:
            own = h.view_as(h)
            own.register_hook(lambda slope: torch.zeros_like(slope) if self.dropped == layer else slope)
            return own

        return tap

    def handed_over(self, found: Slopes) -> Slopes:
        """The gradients of one backward pass."""
        by_kind: dict[str, list[Tensor]] = {kind: [] for kind in (*PARTS, "z", "mlp", "end")}
        for ix, (kind, tensor) in enumerate(self.kept):
            slope = self.slopes.pop(ix, None)
            by_kind[kind].append(torch.zeros_like(tensor) if slope is None else slope)
        (end,), mlp = by_kind.pop("end"), by_kind.pop("mlp")
        return replace(found, end=end, mlp=mlp, heads=by_kind)
