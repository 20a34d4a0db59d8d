"""Two sets of texts that differ in one thing: what directions, maps and probes are found from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from optrode.errors import BadOption, BadPairs


@final
@dataclass(frozen=True)
class Answered:
    """A prompt with its answer, of which only the answer is read.

    Attributes:
        token_ids: of both.
        start: position of the answer's first token.
    """

    token_ids: tuple[int, ...]
    start: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < len(self.token_ids):
            found = f"there are {len(self.token_ids)} tokens"
            raise BadPairs(f"an answer from position {self.start}", found, next_step="give an answer of at least one token")


Sample = str | tuple[int, ...] | Answered
"""A text, its token ids, or a prompt with an answer."""


@final
@dataclass(frozen=True)
class Contrast:
    """Texts that show something, and texts that do not. Where a method takes pairs, the i-th of both belong together.

    Attributes:
        positive, negative: texts or token ids; lists are kept as tuples.

    Raises:
        BadPairs: a set is empty or holds a text without tokens, or both sets are the same.
    """

    positive: tuple[Sample, ...]
    negative: tuple[Sample, ...]

    def __post_init__(self) -> None:
        for name, texts in (("positive", self.positive), ("negative", self.negative)):
            asked = f"the {name} texts of a contrast"
            if isinstance(texts, str):
                raise BadPairs(asked, "this is one text, not several", next_step=f"write {name}=[text]")
            object.__setattr__(self, name, tuple(tuple(text) if isinstance(text, list) else text for text in texts))
            if not texts:
                raise BadPairs(asked, "there is none", next_step="give at least one on either side")
            if any(not text for text in texts):
                raise BadPairs(asked, "one of them is empty", next_step="leave it out, or give it a text")
        if set(self.positive) == set(self.negative):
            found = "both sides are the same texts"
            raise BadPairs("a contrast", found, next_step="give texts that differ in what is looked for")

    @classmethod
    def filled(cls, templates: Sequence[str], positive: Sequence[str], negative: Sequence[str]) -> "Contrast":
        """Every template filled with every word, so that both sides have the same texts around the words.

        Such texts are alike: judge what is found from them on other templates and words (`judged`).

        Args:
            templates: texts with one `{}`.
            positive, negative: words, as many on either side; the i-th fill the same templates.

        Raises:
            BadPairs: a template without `{}`, or sides of unequal length.
        """
        for template in templates:
            if template.count("{}") != 1:
                raise BadPairs(f"template {template!r}", "it has not one {}", next_step="mark where the word goes with {}")
        if len(positive) != len(negative):
            found = f"{len(positive)} positive and {len(negative)} negative words"
            raise BadPairs("a contrast from templates", found, next_step="give as many on either side")
        sides = [tuple(t.replace("{}", word) for t in templates for word in words) for words in (positive, negative)]
        return cls(*sides)

    @property
    def is_paired(self) -> bool:
        """Whether both sides have as many texts, so that they can be taken as pairs."""
        return len(self.positive) == len(self.negative)

    def check_paired(self, asked: str) -> None:
        """Refuse sides of unequal length.

        Raises:
            BadPairs: they are.
        """
        if not self.is_paired:
            found = f"{len(self.positive)} positive and {len(self.negative)} negative texts"
            raise BadPairs(asked, found, next_step="give pairs: the i-th positive and the i-th negative belong together")

    def swapped(self) -> "Contrast":
        """With the sides exchanged."""
        return Contrast(self.negative, self.positive)

    def shuffled(self, random_seed: int = 0) -> "Contrast":
        """The control of no information: half of the texts (rounded down) change sides.

        Raises:
            BadPairs: a side has one text only.
        """
        n_moved = min(len(self.positive), len(self.negative)) // 2
        if n_moved == 0:
            raise BadPairs("shuffled labels", "a side has one text", next_step="give at least two on either side")
        generator = torch.Generator().manual_seed(random_seed)
        sides = [_drawn(texts, n_moved, generator) for texts in (self.positive, self.negative)]
        (left, kept_left), (right, kept_right) = sides
        return Contrast(right + kept_left, left + kept_right)

    def split(self, held_out: float, random_seed: int = 0) -> tuple["Contrast", "Contrast | None"]:
        """What to find a direction from, and what to judge it on; None where nothing is held out.

        Pairs stay together. Of each side `held_out` of the texts, rounded, and at least one are held out.

        Raises:
            BadOption: not a share in [0, 1).
            BadPairs: there is nothing left to find a direction from.
        """
        if not 0 <= held_out < 1:
            raise BadOption(f"held_out={held_out}", "a share in [0, 1) of the texts", nearest=("0.25",))
        if held_out == 0:
            return self, None
        generator = torch.Generator().manual_seed(random_seed)
        order = torch.randperm(len(self.positive), generator=generator).tolist()
        other = order if self.is_paired else torch.randperm(len(self.negative), generator=generator).tolist()
        fitted, held = zip(_parted(self.positive, order, held_out), _parted(self.negative, other, held_out), strict=True)
        if not all(fitted):
            found = f"{len(self.positive)} positive and {len(self.negative)} negative texts"
            step = "give at least two on either side, or held_out=0.0"
            raise BadPairs(f"held_out={held_out} of a contrast", found, next_step=step)
        return Contrast(*fitted), Contrast(*held)


def _drawn(
    texts: tuple[Sample, ...], n: int, generator: torch.Generator
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """`n` of the texts, and the others."""
    order = torch.randperm(len(texts), generator=generator).tolist()
    return tuple(texts[ix] for ix in order[:n]), tuple(texts[ix] for ix in order[n:])


def _parted(
    texts: tuple[Sample, ...], order: Sequence[int], held_out: float
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Those to keep and those held out, each in the order given by the caller."""
    n_held = max(1, round(held_out * len(texts)))
    held = set(order[:n_held])
    kept = tuple(text for ix, text in enumerate(texts) if ix not in held)
    return kept, tuple(texts[ix] for ix in sorted(held))
