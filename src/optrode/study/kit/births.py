"""Which attention heads a task needs at each checkpoint: heads that are born, that die, and that do not last.

A head is active where ablating it alone, by its output in the corrupt run, loses at least a share of what the model gets
from the clean prompt over the corrupt one: measured exactly, one run a head. Emergent heads are those that are active at a
later checkpoint and were not at the first (Park et al., arXiv 2509.25758, who take them from circuits of edges). What each
prompt loses is kept, so that resampled prompts, which cost no pass, say what of it is chance of prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Final, final

import numpy as np
from jaxtyping import Float

from optrode.circuit.interval import draws
from optrode.circuit.nodes import is_head
from optrode.circuit.score import score
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.trial.prompts import Task
from optrode.trial.run import Bench

SHARE: Final = 0.1
"""Of the gap between clean and corrupt prompts, from which on a head is active."""

Heads = frozenset[str]
"""Site names."""


@final
@dataclass(frozen=True, eq=False)
class Losses:
    """What ablating each head loses, prompt by prompt.

    Attributes:
        heads: site names.
        per_prompt: [prompt, head] metric lost, in its unit.
        gaps: [prompt] metric of the clean prompt less that of the corrupt one.
    """

    heads: tuple[str, ...]
    per_prompt: Float[np.ndarray, "prompt head"]
    gaps: Float[np.ndarray, " prompt"]

    def shares(self) -> dict[str, float]:
        """Mean loss of each head over the mean gap: 1 is as bad as the corrupt prompt. All are 0 where there is no gap."""
        return dict(zip(self.heads, self._shares(np.arange(len(self.gaps))).tolist(), strict=True))

    def active(self, share: float = SHARE) -> Heads:
        """Heads that lose at least this share."""
        return frozenset(head for head, found in self.shares().items() if found >= share)

    def resampled(self, share: float = SHARE, *, n: int = 50, random_seed: int = 0) -> tuple[Heads, ...]:
        """Active heads by prompts drawn with replacement: what would be found of the same model with other prompts."""
        shares = [self._shares(rows) for rows in draws(len(self.gaps), random_seed, n)]
        return tuple(frozenset(h for h, found in zip(self.heads, one, strict=True) if found >= share) for one in shares)

    def _shares(self, rows: np.ndarray) -> Float[np.ndarray, " head"]:
        gap = float(self.gaps[rows].mean())
        lost = self.per_prompt[rows].mean(0)
        return lost / gap if gap > 0 else np.zeros_like(lost)


def losses_of(model: Model, task: Task) -> Losses:
    """Ablate every head alone, and measure the task's metric."""
    bench = Bench(model, task, shares=False)
    nodes = [one for one in score(model, task, method="exact", bench=bench).nodes if is_head(one.node)]
    gaps = np.subtract(bench.base("clean"), bench.base("corrupt"))
    return Losses(tuple(one.node for one in nodes), -np.array([one.per_prompt for one in nodes]).T, gaps)


def mean_jaccard(sets: Sequence[Heads]) -> float:
    """Mean overlap over pairs; of resampled sets, the floor below which circuits differ by more than chance of prompts.

    Raises:
        BadOption: fewer than two sets.
    """
    return float(np.mean([jaccard(a, b) for a, b in _pairs(sets)]))


def mean_births(sets: Sequence[Heads]) -> float:
    """Mean number of heads of one set that are not in another; of resampled sets, births by chance of prompts.

    Raises:
        BadOption: fewer than two sets.
    """
    return float(np.mean([(len(a - b) + len(b - a)) / 2 for a, b in _pairs(sets)]))


def jaccard(a: Heads, b: Heads) -> float:
    """|A and B| / |A or B|; 1 where both are empty."""
    either = a | b
    return len(a & b) / len(either) if either else 1.0


@final
@dataclass(frozen=True)
class Census:
    """Active heads at checkpoints.

    Attributes:
        steps: of the checkpoints; the first is before training.
        active: at each.

    Raises:
        BadOption: no checkpoint, or not one set for each.
    """

    steps: tuple[int, ...]
    active: tuple[Heads, ...]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.active) or not self.steps:
            found = f"{len(self.steps)} steps and {len(self.active)} sets of heads"
            raise BadOption("census of heads", found, next_step="give each checkpoint its set, one at least")

    def born(self, at: int = -1) -> Heads:
        """Emergent heads at a checkpoint, counted in checkpoints."""
        return self.active[at] - self.active[0]

    def died(self, at: int = -1) -> Heads:
        """Heads that were active at the first checkpoint and are not at this one."""
        return self.active[0] - self.active[at]

    def n_born(self) -> tuple[int, ...]:
        """Emergent heads at each checkpoint."""
        return tuple(len(self.born(at)) for at in range(len(self.steps)))

    def ever_born(self) -> Heads:
        """Heads that were emergent at some checkpoint."""
        return frozenset[str]().union(*(self.born(at) for at in range(len(self.steps))))

    def pruned_share(self) -> float:
        """Share of the heads that were ever emergent and are not at the end; NaN where there never was one."""
        ever = self.ever_born()
        return len(ever - self.active[-1]) / len(ever) if ever else nan


def census(found: Mapping[int, Losses], share: float = SHARE) -> Census:
    """The census of what was measured at checkpoints: step -> losses."""
    steps = tuple(sorted(found))
    return Census(steps, tuple(found[step].active(share) for step in steps))


def _pairs(sets: Sequence[Heads]) -> list[tuple[Heads, Heads]]:
    if len(sets) < 2:
        raise BadOption(f"overlap of {len(sets)} sets of heads", "overlap is that of pairs", next_step="give 2 or more")
    return [(a, b) for ix, a in enumerate(sets) for b in sets[ix + 1 :]]
