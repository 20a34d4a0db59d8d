"""When a gate is open: g in the formula, as a schedule over training steps, or decided by what the pass shows.

Both are data. What they need to remember, the step at which a measure passed the threshold or what was decided at the
prompt, is kept by whoever holds the gate (`gate/held.py`, `gate/deciding.py`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from optrode.errors import BadGate


class Openness(ABC):
    """g[row, pos], decided from what a pass shows. Kinds: `gate/conditions.py`, `gate/rules.py`.

    Attributes:
        hold: for how many tokens more it stays as open as it was.
    """

    hold: int = 0

    @abstractmethod
    def __str__(self) -> str:
        """The condition as it prints, with every argument that matters."""

    @abstractmethod
    def decide(self, desk: "Desk") -> Float[Tensor, "rows columns"]:
        """G at the pass's rows and columns (one column where it is the same for all), before it is held on."""

    @property
    def parts(self) -> "tuple[Openness, ...]":
        """Conditions that it is made of."""
        return ()


@runtime_checkable
class Desk(Protocol):
    """Where conditions find what they are decided from (`gate/deciding.py`)."""

    def value(self, openness: Openness) -> Float[Tensor, "rows columns"]:
        """G of another condition."""
        ...

    def observed(self, openness: Openness) -> Float[Tensor, "rows columns"]:
        """What a condition reads in this pass, in the mode in which it reads."""
        ...

    def recorded(self, values: Float[Tensor, "rows pos"]) -> Float[Tensor, "rows columns"]:
        """Values by row and position, at the pass's columns."""
        ...


@final
@dataclass(frozen=True)
class Schedule:
    """Openness over training steps, counted from 0: the first optimiser step.

    Attributes:
        start: first step at which the gate is open.
        until: first step at which it is closed again; None for never.
        ramp: over so many steps from `start` on, openness rises in equal parts from 0 (at the step before) to 1.
        every: open in each so-many-th step only, counted from `start`.
        measure: name of a measure that must pass a threshold first; steps then count from there. Once passed, it stays so.
        above, below: the threshold, exclusive.
    """

    start: int = 0
    until: int | None = None
    ramp: int = 0
    every: int = 1
    measure: str | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        asked = f"schedule {self}"
        if self.start < 0 or self.ramp < 0 or self.every < 1:
            found = "start and ramp count steps from 0, every from 1"
            raise BadGate(asked, found, next_step="give op.when(start=0, ramp=0, every=1) or more")
        if self.until is not None and self.until <= self.start:
            found = f"it ends at step {self.until}, before it starts at {self.start}"
            raise BadGate(asked, found, next_step="give an `until` above `start`")
        self._check_threshold(asked)

    def _check_threshold(self, asked: str) -> None:
        given = [bound for bound in (self.above, self.below) if bound is not None]
        if len(given) > 1 or bool(given) != (self.measure is not None):
            found = "a threshold is one measure and one bound"
            raise BadGate(asked, found, next_step='write op.when(measure="loss", below=0.5)')
        if given and not math.isfinite(given[0]):
            raise BadGate(asked, f"its threshold {given[0]} is not a finite number", next_step="give a finite one")

    def __str__(self) -> str:
        parts = [f"from step {self.start}"] if self.start else []
        parts += [f"until step {self.until}"] if self.until is not None else []
        parts += [f"rising over {self.ramp} steps"] if self.ramp else []
        parts += [f"every {self.every} steps"] if self.every > 1 else []
        if self.measure is not None:
            parts.append(f"once {self.measure} is {self._bound()}")
        return " ".join(parts) or "always"

    def _bound(self) -> str:
        bounds = {"above": self.above, "below": self.below}
        return " and ".join(f"{side} {bound:g}" for side, bound in bounds.items() if bound is not None) or "waited for"

    def is_passed(self, measures: Mapping[str, float]) -> bool:
        """Whether the threshold, if there is one, is passed by these measures."""
        value = measures.get(self.measure) if self.measure is not None else 0.0
        if value is None or self.measure is None:
            return self.measure is None
        return value > self.above if self.above is not None else self.below is not None and value < self.below

    def openness(self, step: int) -> float:
        """Openness in [0, 1] at a step, counted from where the threshold was passed if there is one."""
        since = step - self.start
        if since < 0 or self.until is not None and step >= self.until or since % self.every:
            return 0.0
        return min(1.0, (since + 1) / self.ramp) if self.ramp else 1.0


def when(
    start: int = 0, until: int | None = None, *, ramp: int = 0, every: int = 1, measure: str | None = None,
    above: float | None = None, below: float | None = None,
) -> Schedule:  # fmt: skip
    """A schedule for a gate's `when`: `op.zero("blocks.0.attn.z[head=3]", when=op.when(until=1000))`; see `Schedule`.

    Raises:
        BadGate: steps that never come, or a threshold without a measure.
    """
    return Schedule(start, until, ramp, every, measure, above, below)
