"""Attention with its scores and pattern within reach, for the layers that are asked for them.

Everywhere else the model keeps its own attention. A layer's attention module is given, for the duration of one call,
a copy of its config that names the function below; the module's own config object comes back right after.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from optrode.errors import SiteUnavailable

NAME: Final = "optrode_probe"
REPLACEABLE: Final = ("sdpa", "eager", NAME)
Stage = Callable[[Tensor], Tensor]

_stages: dict[int, list[tuple[str, Stage]]] = {}


@contextmanager
def probed_attention(module: nn.Module, stage: str, function: Stage) -> Iterator[None]:
    """Run `function` on the scores ("scores") or pattern ("pattern") of one attention module.

    Raises:
        SiteUnavailable: the module does not choose its attention through transformers' attention interface, or uses
            one (flash, flex) whose masks this function cannot read.
    """
    _refuse_unknown(module, stage)
    _register()
    stages = _stages.setdefault(id(module), [])
    entry = (stage, function)
    stages.append(entry)
    handles = _switch(module) if len(stages) == 1 else []
    try:
        yield
    finally:
        stages.remove(entry)
        if not stages:
            del _stages[id(module)]
        for handle in handles:
            handle.remove()


def _refuse_unknown(module: nn.Module, stage: str) -> None:
    chosen = getattr(getattr(module, "config", None), "_attn_implementation", None)
    if chosen not in REPLACEABLE:
        raise SiteUnavailable(
            f"attention {stage} of {type(module).__name__}",
            f"its attention implementation is {chosen!r}, which never forms them",
            next_step='load the model with attn_implementation="sdpa" or "eager"',
        )


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def _switch(module: nn.Module) -> list[Any]:
    """Hooks that put the probe's config in place for each call and the module's own back after it."""
    own: list[Any] = []

    def enter(called: nn.Module, args: Any) -> None:
        own.append(called.config)
        probe = copy.copy(called.config)
        object.__setattr__(probe, "_attn_implementation_internal", NAME)
        called.config = probe

    def leave(called: nn.Module, args: Any, output: Any) -> None:
        if own:
            called.config = own.pop()

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, softcap: float | None = None,
    is_causal: bool | None = None, **other: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """softmax(scale * q k^T + mask) v, with the module's stages applied to scores and pattern.

    Shapes: query [batch, head, pos, d_head]; key, value [batch, kv_head, src, d_head]; scores and pattern
    [batch, head, pos, src]. Scores carry -inf where attention is masked; a gate cannot open what the mask closes.

    Raises:
        SiteUnavailable: the layer passes an attention bias or sink that this function does not know.
    """
    unknown = [k for k in ("position_bias", "s_aux", "sinks") if other.get(k) is not None]
    if unknown:
        raise SiteUnavailable(f"attention of {type(module).__name__}", f"it uses {unknown[0]}, which is not supported")
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    bias, closed = _mask(module, scores, attention_mask, is_causal)
    scores = _apply(module, "scores", (scores + bias).masked_fill(closed, -torch.inf))
    scores = scores.masked_fill(closed, torch.finfo(scores.dtype).min)
    pattern = torch.softmax(scores, dim=-1, dtype=torch.float32 if scores.dtype != torch.float64 else None).to(query.dtype)
    pattern = _apply(module, "pattern", pattern)
    dropped = nn.functional.dropout(pattern, p=dropout, training=module.training)
    return (dropped @ value).transpose(1, 2).contiguous(), pattern


def _mask(
    module: nn.Module, scores: Tensor, attention_mask: Tensor | None, is_causal: bool | None
) -> tuple[Tensor, Tensor]:
    """(additive bias, closed entries) from a boolean mask, an additive one, or none."""
    zero = scores.new_zeros(())
    n_pos, n_src = scores.shape[-2:]
    if attention_mask is None:
        causal = n_pos > 1 and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
        closed = torch.ones(n_pos, n_src, dtype=torch.bool, device=scores.device).triu(1 + n_src - n_pos)
        return zero, closed if causal else torch.zeros_like(closed)
    attention_mask = attention_mask[..., :n_src]
    if attention_mask.dtype == torch.bool:
        return zero, ~attention_mask
    return attention_mask.clamp(min=torch.finfo(scores.dtype).min / 2), attention_mask < torch.finfo(scores.dtype).min / 4


def _apply(module: nn.Module, stage: str, tensor: Tensor) -> Tensor:
    for name, function in list(_stages.get(id(module), ())):
        if name == stage:
            tensor = function(tensor)
    return tensor
