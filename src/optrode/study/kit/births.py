"""Which attention heads a task needs at each checkpoint: heads that are born, that die, and that do not last.

A head is active where ablating it alone loses at least a share of what the whole model gets from the clean prompt over the
corrupt one (resample ablation, exactly, one run a head). Emergent heads are those that are active after training went on and
were not before (Park et al., arXiv 2509.25758, whose circuits are of edges).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float

from optrode.circuit.interval import draws
from optrode.circuit.nodes import is_head
from optrode.circuit.score import score
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.trial.metric import Metric
from optrode.trial.prompts import Task
from optrode.trial.run import Bench

SHARE: Final = 0.1
Heads = frozenset[str]


@final
@dataclass(frozen=True, eq=False)
class Costs:
    """What ablating each head costs, prompt by prompt.

    Attributes:
        heads: site names.
        per_prompt: [prompt, head] metric lost, in its unit.
        gaps: [prompt] metric of the clean prompt less that of the corrupt one.
    """

    heads: tuple[str, ...]
    per_prompt: Float[np.ndarray, "prompt head"]
    gaps: Float[np.ndarray, " prompt"]

    def shares(self) -> Float[np.ndarray, " head"]:
        """Mean cost of each head over the mean gap; 1 is as bad as the corrupt prompt."""
        return _shares(self.per_prompt.mean(0), float(self.gaps.mean()))

    def active(self, share: float = SHARE) -> Heads:
        """Heads that cost at least this share."""
        return _at_least(self.heads, self.shares(), share)


def costs_of(model: Model, task: Task, metric: str | Metric | None = None) -> Costs:
    """Ablate every head alone, by its output in the corrupt run.

    Args:
        metric: the task's own by default.
    """
    bench = Bench(model, task, metric, shares=False)
    nodes = [one for one in score(model, task, method="exact", bench=bench).nodes if is_head(one.node)]
    lost = -np.array([one.per_prompt for one in nodes]).T
    return Costs(tuple(one.node for one in nodes), lost, np.subtract(bench.base("clean"), bench.base("corrupt")))


def resampled(costs: Costs, share: float = SHARE, *, n: int = 50, random_seed: int = 0) -> tuple[Heads, ...]:
    """Active heads by prompts drawn with replacement: what would be found of the same model with other prompts."""
    rows = draws(len(costs.gaps), random_seed, n)
    return tuple(
        _at_least(costs.heads, _shares(costs.per_prompt[row].mean(0), float(costs.gaps[row].mean())), share) for row in rows
    )


def mean_jaccard(sets: Sequence[Heads]) -> float:
    """Mean overlap over pairs; of resampled sets, the floor below which circuits differ by more than chance of prompts."""
    pairs = _pairs(sets)
    return float(np.mean([jaccard(a, b) for a, b in pairs]))


def mean_births(sets: Sequence[Heads]) -> float:
    """Mean number of heads of one set that are not in the other, over ordered pairs: births by chance of prompts alone."""
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
        """Heads of the start that are not active at a checkpoint."""
        return self.active[0] - self.active[at]

    def n_born(self) -> tuple[int, ...]:
        """Emergent heads at each checkpoint."""
        return tuple(len(self.born(at)) for at in range(len(self.steps)))

    def ever_born(self) -> Heads:
        """Heads that were emergent at some checkpoint."""
        return frozenset().union(*(self.born(at) for at in range(len(self.steps))))

    def pruned_share(self) -> float:
        """Share of the heads that were ever emergent and are not at the end; NaN where there never was one."""
        ever = self.ever_born()
        return len(ever - self.active[-1]) / len(ever) if ever else float("nan")


def census(found: dict[int, Costs], share: float = SHARE) -> Census:
    """The census of what was measured at checkpoints: step -> costs."""
    steps = tuple(sorted(found))
    return Census(steps, tuple(found[step].active(share) for step in steps))


def _shares(lost: Float[np.ndarray, " head"], gap: float) -> Float[np.ndarray, " head"]:
    """Nothing is active in a model to which both worlds are the same."""
    return lost / gap if gap > 0 else np.zeros_like(lost)


def _at_least(heads: tuple[str, ...], shares: Float[np.ndarray, " head"], share: float) -> Heads:
    return frozenset(head for head, found in zip(heads, shares, strict=True) if found >= share)


def _pairs(sets: Sequence[Heads]) -> list[tuple[Heads, Heads]]:
    if len(sets) < 2:
        raise BadOption(f"overlap of {len(sets)} sets of heads", "overlap is that of pairs", next_step="give 2 or more")
    return [(a, b) for ix, a in enumerate(sets) for b in sets[ix + 1 :]]
