"""Prompt pairs, their two worlds, and the task they make up. Records only: no model, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Pair:
    """A clean prompt, a corrupt one of the same length, and the answers.

    Attributes:
        clean, corrupt: token ids, [pos].
        right, wrong: ids of tokens that are right, or wrong, after the last token of the clean prompt.
        clean_tokens, corrupt_tokens, right_tokens, wrong_tokens: the same tokens as text, for people.
        marks: named positions, e.g. {"s2": 9, "end": 13}.
        targets: (position, token id) pairs: what the model should say at positions. Metrics over log-probabilities
            read these; by default the first right answer at the last position.
    """

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    clean_tokens: tuple[str, ...] = ()
    corrupt_tokens: tuple[str, ...] = ()
    right_tokens: tuple[str, ...] = ()
    wrong_tokens: tuple[str, ...] = ()
    marks: Mapping[str, int] = field(default_factory=dict)
    targets: tuple[tuple[int, int], ...] = ()

    def world(self, name: str) -> tuple[int, ...]:
        """Token ids of the "clean" or the "corrupt" prompt."""
        return self.clean if name == "clean" else self.corrupt

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.clean)


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many generated pairs were left out, and why."""

    reason: str
    n: int


@dataclass(frozen=True, slots=True)
class Ability:
    """How well the model does a task.

    Attributes:
        accuracy: share of clean prompts on which it is right.
        clean, corrupt: mean metric in either world.
    """

    accuracy: float
    clean: float
    corrupt: float


@dataclass(frozen=True)
class Task:
    """Prompt pairs with a metric.

    Attributes:
        name: e.g. "ioi".
        description: one sentence for people.
        metric: name of a metric of `trial/metric.py`; higher is better.
        pairs: all of one length, or of several; grids over positions need one length.
        random_seed: what the pairs were drawn with.
        dropped: pairs left out, by reason.
        ability: how well the model does it, once checked.
    """

    name: str
    description: str
    metric: str
    pairs: tuple[Pair, ...]
    random_seed: int = 0
    dropped: tuple[Dropped, ...] = ()
    ability: Ability | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, n: int) -> "Task":
        """The same task with its first `n` pairs only."""
        return replace(self, pairs=self.pairs[:n])

    def half(self, which: int) -> "Task":
        """The even (0) or odd (1) pairs: to find on one half and prove on the other."""
        return replace(self, pairs=self.pairs[which::2])

    @property
    def length(self) -> int | None:
        """The prompts' common number of tokens, or None when they differ."""
        lengths = {pair.length for pair in self.pairs}
        return lengths.pop() if len(lengths) == 1 else None


def groups_by_length(pairs: Sequence[Pair]) -> tuple[tuple[int, ...], ...]:
    """Indices of pairs, grouped by prompt length, so that no pass needs padding; and by where their targets stand."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for ix, pair in enumerate(pairs):
        alike.setdefault((pair.length, *(pos for pos, _ in pair.targets)), []).append(ix)
    return tuple(tuple(group) for group in alike.values())
