"""How much was computed, and how much was spared."""

from dataclasses import dataclass, fields, replace
from typing import Any, Final, final


@dataclass(frozen=True)
class Work:
    """What running trials took.

    Attributes:
        token_layers: tokens that went through a block, summed over blocks.
        kv_token_layers: tokens of which a block computed keys and values only.
        plain_token_layers: what running every trial in full would have taken, without those kept from before.
        logits: logits computed for trials.
        n_trials: trials asked for.
        n_null: of these, trials whose gates changed nothing, which cost nothing.
        n_kept: of these, trials that a run folder kept from before.
        memory_gib: what recordings and chunks were estimated to take, at most, in GiB.
        plainly: why trials were not packed: reason -> how many.
    """

    token_layers: int = 0
    kv_token_layers: int = 0
    plain_token_layers: int = 0
    logits: int = 0
    n_trials: int = 0
    n_null: int = 0
    n_kept: int = 0
    memory_gib: float = 0.0
    plainly: dict[str, int] | None = None

    @property
    def ratio(self) -> float:
        """How many times less was computed than plainly."""
        return self.plain_token_layers / max(1, self.token_layers)

    def __str__(self) -> str:
        of = f"{self.token_layers} token-layers computed of {self.plain_token_layers} ({self.ratio:.1f} times less)"
        null = f", {self.n_null} of {self.n_trials} trials changed nothing" if self.n_null else ""
        return of + null + (f", {self.n_kept} were kept from before" if self.n_kept else "")


_COUNTS: Final = tuple(field.name for field in fields(Work) if isinstance(field.default, int))


@final
class Tally:
    """Work under way."""

    def __init__(self) -> None:
        self.work = Work()

    def add(self, **more: int) -> None:
        """Add to counts."""
        self.work = replace(self.work, **{name: getattr(self.work, name) + n for name, n in more.items()})

    def plainly(self, reason: str, n: int) -> None:
        """Note trials that could not be packed."""
        held = self.work.plainly or {}
        self.work = replace(self.work, plainly=held | {reason: held.get(reason, 0) + n})

    def needs(self, memory_gib: float) -> None:
        """Note an estimate of memory."""
        self.work = replace(self.work, memory_gib=max(self.work.memory_gib, memory_gib))

    def take(self, more: Work) -> None:
        """Add what was done elsewhere."""
        self.add(**{name: getattr(more, name) for name in _COUNTS})

    def since(self, before: Work) -> Work:
        """What was added after `before` was taken."""
        counts: dict[str, Any] = {name: getattr(self.work, name) - getattr(before, name) for name in _COUNTS}
        return replace(self.work, **counts)
