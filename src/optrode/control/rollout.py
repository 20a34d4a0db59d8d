"""What a model writes with gates held, and what it would have thought of every token without them.

The gated distributions are those that each token was chosen from, taken from the generation itself, so that scopes and
openness are what they were; the plain ones come from one pass over the finished texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float64
from torch import Tensor

from optrode.errors import BadOption
from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.model.generation import generation
from optrode.model.model import Model

Prompt = str | tuple[int, ...]

_STEP = 16
"""Prompts that are continued together."""


@final
@dataclass(frozen=True, eq=False)
class Rollout:
    """Greedy answers under gates.

    Attributes:
        prompts, answers: token ids; an answer ends with the token that ended it.
        kl: of each answer, float64 [token] KL(gated || plain) of the distributions that the token was chosen from, in nats.
        nll: of each answer, float64 [token] negative log-likelihood of the token without gates, in nats.
    """

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    kl: tuple[Tensor, ...]
    nll: tuple[Tensor, ...]

    @property
    def mean_nll(self) -> float:
        """Per token, in nats; all tokens count the same."""
        return float(torch.cat(self.nll).mean())

    @property
    def repeated(self) -> tuple[float, ...]:
        """Of each answer the share of its bigrams that it had before; 0 for fewer than two tokens."""
        pairs = [tuple(zip(answer, answer[1:], strict=False)) for answer in self.answers]
        return tuple(1 - len(set(one)) / len(one) if one else 0.0 for one in pairs)


@torch.no_grad()
def roll_out(model: Model, prompts: Sequence[Prompt], held: Sequence[Gate] = (), n_tokens: int = 20) -> Rollout:
    """Continue prompts greedily with gates held.

    Args:
        prompts: texts or token ids.
        n_tokens: at most; an answer that ends earlier is shorter.

    Raises:
        BadOption: no prompt, an empty one, or fewer than one token.
        GateError: as `op.gates`.
    """
    if n_tokens < 1:
        raise BadOption(f"n_tokens={n_tokens}", "an answer has at least one token", nearest=("n_tokens=20",))
    if isinstance(prompts, str) or not prompts:
        raise BadOption("prompts to continue", "there is no sequence of prompts", next_step="give at least one, in a list")
    encoded = [encode(model, prompt) for prompt in prompts]
    answers: list[tuple[int, ...]] = []
    kl: list[Tensor] = []
    nll: list[Tensor] = []
    for at in range(0, len(encoded), _STEP):
        part = encoded[at : at + _STEP]
        new, logits = _greedy(model, part, held, n_tokens)
        plain = _plain_logits(model, part, new)
        answers += new
        kl += [_kl(gated, own) for gated, own in zip(logits, plain, strict=True)]
        nll += [_nll(own, row) for own, row in zip(plain, new, strict=True)]
    return Rollout(tuple(encoded), tuple(answers), tuple(kl), tuple(nll))


@torch.no_grad()
def sampled(
    model: Model, prompt: Prompt, n: int, max_new_tokens: int, temperature: float, random_seed: int
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """A prompt's token ids, and `n` answers drawn at a temperature; the caller's random state is left alone.

    Raises:
        BadOption: a temperature that is not positive.
    """
    if not temperature > 0:
        found = "sampling needs a positive one"
        raise BadOption(f"temperature={temperature}", found, nearest=("temperature=1.0",))
    ids = encode(model, prompt)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed)
        options = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0, "num_return_sequences": n}
        out = _generate(model, [ids], max_new_tokens, options)
    ends = _ends(model)
    return ids, tuple(_until_end(row[len(ids) :].tolist(), ends) for row in out.sequences)


def encode(model: Model, prompt: Prompt) -> tuple[int, ...]:
    """A prompt's token ids."""
    return tuple(model.batch(prompt).token_ids[0].tolist())


def _generate(
    model: Model, rows: Sequence[tuple[int, ...]], max_new_tokens: int, options: Mapping[str, Any]
) -> Any:
    """The output of a generation from rows that are padded on the left."""
    width, pad = max(map(len, rows)), getattr(model.tokenizer, "pad_token_id", None) or 0
    token_ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    with generation([len(row) for row in rows]):
        return model.module.generate(  # type: ignore[operator]
            input_ids=token_ids, attention_mask=mask, max_new_tokens=max_new_tokens, pad_token_id=pad,
            return_dict_in_generate=True, **options,
        )  # fmt: skip


def _greedy(
    model: Model, rows: Sequence[tuple[int, ...]], held: Sequence[Gate], n_tokens: int
) -> tuple[list[tuple[int, ...]], list[Tensor]]:
    """Answers, and the logits [token, vocab] that their tokens were chosen from."""
    with gates(model, *held):
        out = _generate(model, rows, n_tokens, {"do_sample": False, "output_logits": True})
    width, ends = max(map(len, rows)), _ends(model)
    answers = [_until_end(row[width:].tolist(), ends) for row in out.sequences]
    logits = torch.stack(out.logits, dim=1)
    return answers, [row[: len(answer)] for row, answer in zip(logits, answers, strict=True)]


def _plain_logits(model: Model, rows: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """[token, vocab] logits that the model without gates would choose each answer's tokens from."""
    batch = model.batch([[*row, *answer] for row, answer in zip(rows, answers, strict=True)])
    logits = model.module(**batch.arguments()).logits
    starts = [len(row) - 1 for row in rows]
    return [one[at : at + len(new)] for one, at, new in zip(logits, starts, answers, strict=True)]


def _kl(gated: Tensor, plain: Tensor) -> Float64[Tensor, " token"]:
    found, own = gated.double().log_softmax(-1), plain.double().log_softmax(-1)
    return (found.exp() * (found - own)).sum(-1).cpu()


def _nll(plain: Tensor, answer: tuple[int, ...]) -> Float64[Tensor, " token"]:
    chosen = torch.tensor(answer, device=plain.device)[:, None]
    return -plain.double().log_softmax(-1).gather(-1, chosen)[:, 0].cpu()


def _ends(model: Model) -> frozenset[int]:
    """Tokens that end an answer."""
    found = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
    return frozenset() if found is None else frozenset([found] if isinstance(found, int) else found)


def _until_end(row: Sequence[int], ends: frozenset[int]) -> tuple[int, ...]:
    at = next((ix for ix, token in enumerate(row) if token in ends), len(row) - 1)
    return tuple(row[: at + 1])
