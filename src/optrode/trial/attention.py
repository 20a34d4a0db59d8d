"""Attention over packed tokens: each attends to its own trial's tokens and to the keys and values of the plain run.

The model's attention modules compute queries, keys and values themselves, position embeddings included; the function
below takes the place of the one that would mix them (`transformers.AttentionInterface`). Which tokens may see which is
read off the masks that the model made in the plain run, so that windows of any kind are right by construction.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from optrode.errors import SiteUnavailable

NAME: Final = "optrode_packed"
REPLACEABLE: Final = ("sdpa", "eager")

Mix = Callable[..., Tensor]
"""(module, query, key, value, mask, **options) -> [row, pos, head, d_head]; the first three are [row, head, pos, d_head]."""

KeysValues = tuple[Tensor, Tensor]
"""Each [row, kv_head, pos, d_head]; the rows of some rectangle, or of a whole group."""


@dataclass(frozen=True)
class Rectangle:
    """Some of the tokens: rows that all run the same positions.

    Attributes:
        tokens: where they stand in the pack, row after row.
        queries: the positions that they are, ascending.
        group, rows: which prompts they belong to.
        first: their keys and values are those of positions `first` onwards; earlier ones come from the plain run.
        own: keys and values from `first` onwards, where not only the queries have any; else they are the tokens' own.
    """

    tokens: slice
    queries: Int[Tensor, " query"]
    group: int
    rows: Int[Tensor, " row"]
    first: int
    own: KeysValues | None = None


@dataclass(frozen=True)
class Packing:
    """What one attention module needs to know of a packed call.

    Attributes:
        rectangles: of the tokens; every token is in one.
        plain: [group] keys and values of the plain run.
        masks: [group] its mask, [1, 1 or head, pos, pos], boolean or added to the scores.
        mix: the module's own way to mix values.
    """

    rectangles: Sequence[Rectangle]
    plain: Sequence[KeysValues | None]
    masks: Sequence[Tensor]
    mix: Mix


@final
class Captured(Exception):
    """Carries keys and values out of a call that needed nothing else."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        super().__init__("keys and values")
        self.key, self.value = key, value


_packings: dict[int, Packing | None] = {}
_own: dict[int, str] = {}
"""id of a module whose attention is packed now -> its own implementation."""


@contextmanager
def packed_attention(modules: Sequence[nn.Module]) -> Iterator[None]:
    """The modules use `attend` inside the context."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    own = [module.config for module in modules]
    try:
        for module in modules:
            _own[id(module)] = _implementation(module)
            probe = copy.copy(module.config)
            object.__setattr__(probe, "_attn_implementation_internal", NAME)
            module.config = probe
        yield
    finally:
        for module, config in zip(modules, own, strict=True):
            module.config = config
            _own.pop(id(module), None)


@contextmanager
def packing_of(module: nn.Module, packing: Packing | None) -> Iterator[None]:
    """What the module's next calls pack; None makes them raise `Captured`."""
    _packings[id(module)] = packing
    try:
        yield
    finally:
        del _packings[id(module)]


def refusal(module: nn.Module) -> str | None:
    """Why a module's attention cannot be packed, or None."""
    chosen = _implementation(module)
    if chosen not in REPLACEABLE:
        return f"the attention of {type(module).__name__} is {chosen!r}, not one of transformers' sdpa or eager"
    return None


def _implementation(module: nn.Module) -> str:
    return str(getattr(getattr(module, "config", None), "_attn_implementation", None))


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The mixed values, [1, token, head, d_head]; query, key and value are [1, head, token, d_head].

    Raises:
        Captured: the call was made for its keys and values.
    """
    packing = _packings[id(module)]
    if packing is None:
        raise Captured(key[0], value[0])
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for rectangle in packing.rectangles:
        mine = rectangle.tokens
        keys, values = _sources(rectangle, packing.plain[rectangle.group], key[0, :, mine], value[0, :, mine])
        mask = packing.masks[rectangle.group][:, :, rectangle.queries, : keys.shape[2]]
        queries = by_row(query[0, :, mine], len(rectangle.rows))
        out[0, mine] = packing.mix(module, queries, keys, values, mask, **options).flatten(0, 1)
    return out, None


def by_row(tokens: Float[Tensor, "head token d_head"], n_rows: int) -> Float[Tensor, "row head pos d_head"]:
    """Tokens of a rectangle, row after row, as rows."""
    rows: Tensor = tokens.unflatten(1, (n_rows, -1)).transpose(0, 1)
    return rows


def _sources(rectangle: Rectangle, plain: KeysValues | None, key: Tensor, value: Tensor) -> KeysValues:
    n_rows = len(rectangle.rows)
    own = rectangle.own or (by_row(key, n_rows), by_row(value, n_rows))
    if rectangle.first == 0 or plain is None:
        return own
    early = [part[rectangle.rows, :, : rectangle.first] for part in plain]
    return torch.cat([early[0], own[0]], 2), torch.cat([early[1], own[1]], 2)


def is_fused(module: nn.Module) -> bool:
    """Whether the module's own way to mix values is torch's fused one."""
    return _own.get(id(module), "sdpa") == "sdpa"


def mixing(module: nn.Module) -> Mix:
    """The module's own way to mix values, so that it rounds as in a plain run: its eager function, or torch's fused one."""
    if not is_fused(module):
        own: Mix = sys.modules[type(module).__module__].eager_attention_forward

        def eagerly(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any) -> Tensor:
            mixed: Tensor = own(module, query, key, value, mask, **options)[0]
            return mixed

        return eagerly
    return _fused


def _fused(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None = None, **options: Any
) -> Tensor:
    unknown = [k for k in ("position_bias", "s_aux", "sinks", "softcap") if options.get(k) is not None]
    if unknown:
        raise SiteUnavailable(f"packed attention of {type(module).__name__}", f"it uses {unknown[0]}")
    mixed: Tensor = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    ).transpose(1, 2)
    return mixed
