"""Induction on repeated random tokens (Olsson et al., arXiv 2209.11895)."""

from collections.abc import Iterator

import torch

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.tasks.build import Plan, checked_task
from optrode.trial.prompts import Pair, Task


def induction(
    model: Model, n: int = 32, random_seed: int = 0, *, length: int = 20, require_accuracy: float = 0.3
) -> Task:
    """Random tokens, repeated: the second half can be predicted only by looking at the first.

    The corrupt prompt has another first half and the same second half. The metric is the mean log-probability of the
    second half's tokens, each predicted from the one before. A prompt counts as done when at least half of these are
    the model's first choice. Marks: repeat (where the second half starts), end.

    Raises:
        BadOption: fewer than two tokens to repeat.
        NoPairs, TaskTooHard: from the check of the task.
    """
    if length < 2:
        raise BadOption(f"task induction with length={length}", "one token gives nothing to predict", next_step="length=20")
    plan = Plan("induction", f"Induction: {length} random tokens, repeated; predict the second half from the first.",
                "logprob", n, random_seed, require_accuracy)  # fmt: skip
    return checked_task(model, plan, _pairs(model, length, torch.Generator().manual_seed(random_seed)))


def _pairs(model: Model, length: int, generator: torch.Generator) -> Iterator[Pair]:
    n_vocab = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    while True:
        first, other = torch.randint(0, n_vocab, (2, length), generator=generator).tolist()
        clean, corrupt = tuple(first + first), tuple(other + first)
        has_text = model.tokenizer is not None
        yield Pair(
            clean=clean, corrupt=corrupt, right=(first[-1],), wrong=(),
            clean_tokens=model.to_str_tokens(clean) if has_text else (),
            corrupt_tokens=model.to_str_tokens(corrupt) if has_text else (),
            marks={"repeat": length, "end": 2 * length - 1},
            targets=tuple((pos, clean[pos + 1]) for pos in range(length, 2 * length - 1)),
        )  # fmt: skip
