"""Attention over packed tokens: each attends to its own trial's tokens and to the keys and values of the plain run.

The model's attention modules compute queries, keys and values themselves, position embeddings included; the function
below takes the place of the one that would mix them (`transformers.AttentionInterface`). Which tokens may see which is
read off the masks that the model made in the plain run, so that windows of any kind are right by construction.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""Each [job, kv_head, pos, d_head], a job being a row of a trial; or [row, ...] for the rows of a group in the plain run."""


@dataclass(frozen=True)
class Rectangle:
    """Some of the tokens: the same rows of one or more trials, which all run the same positions.

    Attributes:
        tokens: where they stand in the pack: trial after trial, in each row after row.
        queries: the positions that they are, ascending.
        group, rows: which prompts they belong to, in each trial.
        n_trials: how many trials.
        first: their keys and values are those of positions `first` onwards; earlier ones come from the plain run.
        own: keys and values from `first` onwards, where not only the queries have any; else they are the tokens' own.
    """

    tokens: slice
    queries: Int[Tensor, " query"]
    group: int
    rows: Int[Tensor, " row"]
    first: int
    n_trials: int = 1
    own: KeysValues | None = None

    @property
    def n_jobs(self) -> int:
        """Rows of all trials."""
        return self.n_trials * len(self.rows)


@dataclass(frozen=True)
class Packing:
    """What one attention module needs to know of a packed call.

    Attributes:
        rectangles: of the tokens; every token is in one.
        plain: [group] keys and values of the plain run.
        masks: [group] its mask, [1, 1 or head, pos, pos], boolean or added to the scores.
        mix: the module's own way to mix values.
        is_fused: whether that is torch's fused one.
    """

    rectangles: Sequence[Rectangle]
    plain: Sequence[KeysValues]
    masks: Sequence[Tensor]
    mix: Mix
    is_fused: bool


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
    for one in packing.rectangles:
        mine = one.tokens
        own = one.own or (by_job(key[0, :, mine], one.n_jobs), by_job(value[0, :, mine], one.n_jobs))
        mask = packing.masks[one.group][:, :, one.queries, : one.first + own[0].shape[2]]
        queries, plain = by_job(query[0, :, mine], one.n_jobs), packing.plain[one.group]
        if packing.is_fused and one.n_trials > 1 and one.first > 0:
            mixed = _sharing(one, queries, own, plain, mask, **options)
        else:
            mixed = packing.mix(module, queries, *_joined(one, own, plain), mask, **options)
        out[0, mine] = mixed.flatten(0, 1)
    return out, None


def by_job(tokens: Float[Tensor, "head token d_head"], n_jobs: int) -> Float[Tensor, "job head pos d_head"]:
    """Tokens of a rectangle, job after job, as jobs."""
    jobs: Tensor = tokens.unflatten(1, (n_jobs, -1)).transpose(0, 1)
    return jobs


def _joined(one: Rectangle, own: KeysValues, plain: KeysValues) -> KeysValues:
    """Keys and values of all positions: a copy of the plain run's for each job, then its own."""
    if one.first == 0:
        return own
    rows = one.rows.repeat(one.n_trials)
    key, value = (torch.cat([part[rows, :, : one.first], mine], 2) for part, mine in zip(plain, own, strict=True))
    return key, value


def _sharing(
    one: Rectangle, query: Tensor, own: KeysValues, plain: KeysValues, mask: Tensor, scaling: float | None = None,
    **options: Any,
) -> Float[Tensor, "job query head d_head"]:  # fmt: skip
    """The same as with `_joined`, with each row's plain keys and values multiplied once for all trials, uncopied."""
    _refuse(options)
    n_kv, width, sizes = own[0].shape[1], query.shape[3], (one.n_trials, len(one.rows))
    by_row = query.unflatten(1, (n_kv, -1)).unflatten(0, sizes).permute(1, 2, 0, 3, 4, 5)  # row kv trial head query d
    queries = by_row.flatten(3, 4)
    keys, values = (part.unflatten(0, sizes).permute(1, 2, 0, 3, 4) for part in own)  # row kv trial pos d
    early = [part[one.rows, :, : one.first] for part in plain]
    shape = by_row.shape[:5]
    parts = (queries.flatten(2, 3) @ early[0].transpose(2, 3), queries @ keys.transpose(3, 4))
    scores = torch.cat([part.view(*shape, -1) for part in parts], -1) * (width**-0.5 if scaling is None else scaling)
    heads = mask[0].unflatten(0, (n_kv, -1))[:, None] if mask.shape[1] > 1 else mask[0]
    scores = scores.masked_fill(~heads, -torch.inf) if mask.dtype == torch.bool else scores + heads
    pattern = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(values.dtype)
    late = pattern[..., one.first :].flatten(3, 4) @ values
    mixed = late + (pattern[..., : one.first].flatten(2, 4) @ early[1]).view_as(late)
    jobs: Tensor = mixed.view(*shape, -1).permute(2, 0, 4, 1, 3, 5).flatten(0, 1).flatten(2, 3)
    return jobs


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
    _refuse(options)
    mixed: Tensor = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    ).transpose(1, 2)
    return mixed


def _refuse(options: Mapping[str, Any]) -> None:
    unknown = [name for name in ("position_bias", "s_aux", "sinks", "softcap") if options.get(name) is not None]
    if unknown:
        raise SiteUnavailable("packed attention", f"torch's fused attention has no {unknown[0]}")
