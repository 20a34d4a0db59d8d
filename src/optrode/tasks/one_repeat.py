"""Induction at one token: random tokens, repeated up to the last but one; the next token is the last."""

from collections.abc import Iterator

import torch

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.tasks.build import Plan, checked_task
from optrode.trial.prompts import Pair, Task


def single_induction(
    model: Model, n: int = 32, random_seed: int = 0, *, length: int = 10, require_accuracy: float = 0.7
) -> Task:
    """Random tokens ... A B, repeated up to A: the next token is B, which only the earlier A B says.

    The corrupt prompt has another token in the place of the earlier A, and is otherwise the same: what differs is whether
    there is something to look up. The metric is the logit of B less the mean logit of the other tokens of the prompt. Where
    `induction` asks for a whole sequence, with all of it changed in the corrupt prompt, this asks for one step.
    Marks: first (the earlier A), next (B), end (A again).

    Args:
        length: of the sequence; a prompt has 2 * length - 1 tokens.

    Raises:
        BadOption: fewer than four tokens.
        NoPairs, TaskTooHard: from the check of the task.
    """
    if length < 4:
        found = "A B and others to choose from take four tokens"
        raise BadOption(f"task single_induction with length={length}", found, next_step="length=10")
    plan = Plan("single_induction", f"Induction at one token: {length} random tokens, repeated up to the last but one.",
                "logit_gap", n, random_seed, require_accuracy)  # fmt: skip
    return checked_task(model, plan, _pairs(model, length, torch.Generator().manual_seed(random_seed)))


def _pairs(model: Model, length: int, generator: torch.Generator) -> Iterator[Pair]:
    n_vocab = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    while True:
        drawn = tuple(torch.randint(0, n_vocab, (length + 1,), generator=generator).tolist())
        *others, first, answer, instead = drawn
        if len(set(drawn)) < length + 1:
            continue
        again = (*others, first)
        clean, corrupt = (*again, answer, *again), (*others, instead, answer, *again)
        marks = {"first": length - 2, "next": length - 1, "end": 2 * length - 2}
        yield _pair(model, clean, corrupt, answer, tuple(others), marks)


def _pair(
    model: Model, clean: tuple[int, ...], corrupt: tuple[int, ...], answer: int, wrong: tuple[int, ...],
    marks: dict[str, int],
) -> Pair:  # fmt: skip
    def text(ids: tuple[int, ...]) -> tuple[str, ...]:
        return model.to_str_tokens(ids) if model.tokenizer is not None else ()

    return Pair(
        clean=clean, corrupt=corrupt, right=(answer,), wrong=wrong, clean_tokens=text(clean), corrupt_tokens=text(corrupt),
        right_tokens=text((answer,)), wrong_tokens=text(wrong), marks=marks,
    )  # fmt: skip
