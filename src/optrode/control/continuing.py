"""Greedy or sampled continuations as token ids, and the logits of given ones as a cached generation would compute them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.gate.conditions import PerRow
from optrode.gate.gate import Gate
from optrode.gate.place import gates as held
from optrode.gate.trace import Trace
from optrode.model.model import Model

Rows = Sequence[Sequence[int]]


@final
@dataclass(frozen=True)
class Continuation:
    """What was generated after one prompt.

    Attributes:
        prompt_ids: the prompt's tokens.
        ids: new tokens, the end token included where it came.
        text: the new text, without special tokens.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str


@torch.no_grad()
def continuations(
    model: Model, prompts: Sequence[str], gates: Sequence[Gate] = (), *, n_tokens: int = 48, random_seed: int | None = None,
    batch_size: int = 16,
) -> tuple[Continuation, ...]:  # fmt: skip
    """Continue prompts with gates held, rows padded on the left.

    Args:
        n_tokens: most new tokens of each.
        batch_size: prompts continued together; all of them where a gate is for some rows only.
        random_seed: sample from the model's distribution with this seed; None for greedy.

    Raises:
        Everything that `gates` raises.
    """
    found: list[Continuation] = []
    size = max(1, len(prompts)) if _is_by_row(gates) else batch_size
    with _holding(model, gates):
        for start in range(0, len(prompts), size):
            rows = [model.to_tokens(prompt)[0].tolist() for prompt in prompts[start : start + size]]
            found += _generate(model, rows, n_tokens, None if random_seed is None else random_seed * 1000 + start)
    return tuple(found)


@torch.no_grad()
def traced(model: Model, prompt: str, gates: Sequence[Gate], n_tokens: int) -> tuple[Continuation, Trace]:
    """Continue one prompt greedily, and tell how far each gate was open at each token."""
    with held(model, *gates, trace=True) as keeper:
        (said,) = _generate(model, [model.to_tokens(prompt)[0].tolist()], n_tokens, None)
        return said, keeper.trace


def _is_by_row(gates: Sequence[Gate]) -> bool:
    return any(gate.rows is not None or isinstance(gate.openness, PerRow) for gate in gates)


def _holding(model: Model, gates: Sequence[Gate]) -> AbstractContextManager[Any]:
    return held(model, *gates) if gates else nullcontext()


def _generate(model: Model, rows: Rows, n_tokens: int, seed: int | None) -> list[Continuation]:
    token_ids, mask = _left_padded(model, rows)
    pad = int(getattr(model.tokenizer, "pad_token_id", None) or 0)
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        out = model.module.generate(  # type: ignore[operator]
            input_ids=token_ids, attention_mask=mask, max_new_tokens=n_tokens, do_sample=seed is not None,
            pad_token_id=pad,
        )  # fmt: skip
    ends = _end_ids(model)
    new = [_cut(row[token_ids.shape[1] :].tolist(), ends) for row in out]
    texts = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in new]
    return [Continuation(tuple(r), tuple(i), str(t)) for r, i, t in zip(rows, new, texts, strict=True)]


def _end_ids(model: Model) -> frozenset[int]:
    end: Any = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
    return frozenset([end] if isinstance(end, int) else end or ())


def _cut(ids: list[int], ends: frozenset[int]) -> list[int]:
    """Tokens up to and with the first end."""
    at = next((ix for ix, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: at + 1]


def _left_padded(model: Model, rows: Rows) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    return ids, mask


@torch.no_grad()
def forced_logits(
    model: Model, continued: Sequence[Continuation], gates: Sequence[Gate] = ()
) -> Float[Tensor, "batch new vocabulary"]:
    """The logits that predict each token of given continuations, computed as in generation: the prompts first, then the new
    tokens over their K/V cache, so that gates with scope "prompt" or "generated" act as they do there.

    Rows are padded on the right; what stands at padding means nothing.
    """
    prompt_ids, mask = _left_padded(model, [one.prompt_ids for one in continued])
    n_new = max(len(one.ids) for one in continued)
    new = torch.tensor([[*one.ids, *[0] * (n_new - len(one.ids))] for one in continued], device=model.device)
    real = torch.tensor([[1] * len(one.ids) + [0] * (n_new - len(one.ids)) for one in continued], device=model.device)
    whole = torch.cat([mask, real], 1)
    places = (whole.cumsum(1) - 1).clamp(min=0)
    one_by_one = any(gate.openness is not None for gate in gates)
    chunks = [prompt_ids, *new.split(1 if one_by_one else n_new, dim=1)]
    cache, end, found = None, 0, []
    with _holding(model, gates):
        for chunk in chunks:
            start, end = end, end + chunk.shape[1]
            out = model.module(
                input_ids=chunk, attention_mask=whole[:, :end], position_ids=places[:, start:end], past_key_values=cache,
                use_cache=True,
            )  # fmt: skip
            cache = out.past_key_values
            found.append(out.logits if start else out.logits[:, -1:])
    logits: Tensor = torch.cat(found, 1)[:, :-1]
    return logits
