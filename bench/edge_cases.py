"""What the benchmark of edge attribution runs, and what is wanted of it. Standard library only."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

RANDOM_SEED: Final = 0
"""Of the weights and of the prompts."""

N_PROMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """The model's sizes."""

    n_layers: int = 12
    n_heads: int = 12
    d_model: int = 768
    vocabulary: int = 50_257


@dataclass(frozen=True, slots=True)
class Case:
    """Prompts of one length.

    Attributes:
        length: tokens of each prompt.
        same: how many tokens at the beginning are the same in the clean and the corrupt prompt.
    """

    length: int
    same: int = 0

    @property
    def name(self) -> str:
        """For tables: which positions differ."""
        return "all" if not self.same else "second half"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how often.

    Attributes:
        rounds: (tokens of a prompt, rounds); short passes vary more from round to round, and cost less.
    """

    shape: Shape
    rounds: tuple[tuple[int, int], ...]

    @property
    def cases(self) -> list[Case]:
        """Every length with all positions differing, then with the second half."""
        return [Case(length, same) for length, _ in self.rounds for same in (0, length // 2)]


FULL: Final = Plan(Shape(), ((14, 5), (128, 3)))
QUICK: Final = Plan(Shape(2, 2, 32, 97), ((6, 2), (10, 2)))
"""Of a trial run; each process runs its first case before its memory is measured."""

PLAIN: Final = {
    "training": "logits at all positions, gradients of all parameters: what a step of training costs",
    "lean": "logits after the last token only, gradients of activations only: the least that any gradient method costs",
}
"""Forward + backward passes of the plain module, on the clean prompts, against which methods are held."""

METHODS: Final = {"eap": "EAP", "eap-ig": "EAP-IG, 5 steps"}
"""Of Optrode, as users call them."""

Turn = tuple[str, int | None]
"""A contender, and how many tokens are the same in both worlds: None for plain passes, which read clean prompts only."""

CONTENDERS: Final = (*PLAIN, *METHODS)
N_STEPS: Final = {"eap": 1, "eap-ig": 5}
"""Points that gradients are taken at."""

PASSES: Final = {"training": (1, 1), "lean": (1, 1), "eap": (2, 1), "eap-ig": (6, 5)}
"""Forward and backward passes that each needs, all prompts in one batch."""

TIMES: Final = {"eap": 3.0, "eap-ig": 12.0}
"""A method may take this many times as long as a plain forward + backward."""

MEMORY: Final = 2.0
"""The same for the memory that it adds at its peak."""

LEAST_AGREEMENT: Final = 1e-3
"""Scores may differ from the definition, written out with plain hooks in float32, by this share of the largest score."""

EARLIER: Final = ((14, "eap", 30, 3.7), (14, "eap-ig", 92, None), (128, "eap", 187, 9.7))
"""(tokens, method, seconds, GB) of the published implementation, measured earlier on another machine of two cores."""


def prompts(case: Case, vocabulary: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Clean and corrupt token ids, drawn so that they differ at every position from `case.same` on.

    Cases of one length have the same clean prompts.
    """
    drawn = random.Random(RANDOM_SEED + case.length)
    found = []
    for _ in range(N_PROMPTS):
        clean = [drawn.randrange(vocabulary) for _ in range(case.length)]
        shifts = [drawn.randrange(1, vocabulary) for _ in range(case.length)]
        corrupt = [(token + shift) % vocabulary for token, shift in zip(clean, shifts, strict=True)]
        found.append((tuple(clean), (*clean[: case.same], *corrupt[case.same :])))
    return found


def order(turns: Sequence[Turn], number: int) -> list[Turn]:
    """Who comes when in a round: rotated by two, so that reversing every other time does not undo it."""
    first = 2 * number % len(turns)
    turned = [*turns[first:], *turns[:first]]
    return turned[::-1] if number % 2 else turned
