"""A model as a row of blocks that its own forward pass calls: what each was called with, and how to leave some out.

The model's forward pass stays in charge. To go on from layer l, the blocks before it are stood in for by functions that
hand over a recorded residual stream; to read logits off a given residual stream, all of them are.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from optrode.model.model import Model


@final
@dataclass
class Walk:
    """One pass of a group of prompts through the blocks.

    Attributes:
        streams: [layer] the residual stream before each block, [batch, pos, d_model].
        calls: [layer] what the block was called with besides the stream, by argument name.
        outputs: [layer] what the block returned besides the stream; None where it returned nothing but the stream.
        end: the residual stream after the last block.
    """

    streams: list[Tensor] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[tuple[Any, ...] | None] = field(default_factory=list)
    end: Tensor | None = None

    def before(self, layer: int) -> Tensor:
        """The residual stream at the input of a block, or after all of them."""
        stream = self.streams[layer] if layer < len(self.streams) else self.end
        assert stream is not None
        return stream


def blocks_of(model: Model) -> tuple[nn.Module, ...]:
    """The blocks in order, a plain sequence's own modules; none where no family file names them."""
    place = model.table.places.get("resid_pre")
    if place is None:
        return tuple(model.module.children()) if type(model.module) is nn.Sequential else ()
    return tuple(model.submodule(place.path.replace("{L}", str(layer))) for layer in range(model.table.n_layers))


@contextmanager
def walking(model: Model) -> Iterator[Walk]:
    """Note how the one pass made inside the context goes through the blocks."""
    walk = Walk()
    with ExitStack() as stack:
        for block in blocks_of(model):
            stack.callback(block.register_forward_pre_hook(_note_call(walk), with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(_note_output(walk)).remove)
        yield walk


def _note_call(walk: Walk) -> Callable[..., None]:
    def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(block.forward).bind(*args, **kwargs)
        named = dict(bound.arguments)
        variadic = [p.name for p in bound.signature.parameters.values() if p.kind is p.VAR_KEYWORD]
        for name in variadic:
            named |= named.pop(name, {})
        first = next(iter(bound.signature.parameters))
        stream = named.pop(first)
        walk.streams.append(stream.detach().clone())
        walk.calls.append(named)

    return hook


def _note_output(walk: Walk) -> Callable[..., None]:
    def hook(block: nn.Module, args: Any, output: Any) -> None:
        walk.outputs.append(tuple(output[1:]) if isinstance(output, tuple) else None)
        walk.end = output[0] if isinstance(output, tuple) else output

    return hook


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`module` computes `forward` inside the context; its hooks still run."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


@contextmanager
def starting_at(blocks: Sequence[nn.Module], layer: int, stream: Tensor, walk: Walk) -> Iterator[None]:
    """Passes made inside the context go on from `stream` at the input of block `layer` (after all, if there is none)."""
    with ExitStack() as stack:
        for ix, block in enumerate(blocks[:layer]):
            stack.enter_context(replaced(block, _stand_in(stream, walk.outputs[ix])))
        yield


def _stand_in(stream: Tensor, rest: tuple[Any, ...] | None) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return stream if rest is None else (stream, *rest)

    return forward


@contextmanager
def reading(module: nn.Module, columns: Sequence[int] | None) -> Iterator[None]:
    """The language-model head computes only these columns of the logits inside the context (all of them for None)."""
    head = columns_head(module)
    if columns is None or head is None:
        yield
        return
    at = torch.tensor(columns, device=head.weight.device)
    weight, bias = head.weight[at], None if head.bias is None else head.bias[at]
    with replaced(head, lambda hidden: nn.functional.linear(hidden, weight, bias)):
        yield


def columns_head(module: nn.Module) -> nn.Linear | None:
    """The head whose columns can be computed one by one, or None."""
    get = getattr(module, "get_output_embeddings", None)
    head = get() if get else None
    return head if type(head) is nn.Linear else None
