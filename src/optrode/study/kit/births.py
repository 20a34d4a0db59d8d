"""Which attention heads a circuit holds at each checkpoint: heads that are born, that die, and that do not last.

Circuits are of edges, as in Park et al., arXiv 2509.25758: EAP-IG scores of a divergence from the model's own clean run,
the strongest edges up to a fixed number, and of these the ones on a way from the input to the logits. Emergent heads are
those of a later circuit that are not in the first. Scores are kept for every prompt, so that circuits of resampled prompts,
which cost no pass, say what of it is chance of prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Final, final

import numpy as np
from jaxtyping import Float

from optrode.circuit.edge.graph import Graph, site_of
from optrode.circuit.edge.records import EdgeScores
from optrode.circuit.edge.score import score_edges
from optrode.circuit.edge.select import alive, select_values
from optrode.circuit.interval import draws
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.trial.metric import Metric, kl
from optrode.trial.prompts import Task
from optrode.trial.run import Bench

SHARE: Final = 0.04
"""Of all edges: the size of a circuit."""

DIVERGENCE: Final = Metric("divergence", "nats", kl, reads_targets=True, against="clean")
"""Minus KL(clean run || gated run) at the target positions, mean over them."""

Heads = frozenset[str]
"""Site names."""


def scores_of(model: Model, task: Task) -> EdgeScores:
    """EAP-IG scores of every edge, for the divergence at the task's targets."""
    bench = Bench(model, task, DIVERGENCE, shares=False)
    return score_edges(model, task, method="eap-ig", n_checks=0, bench=bench)


def heads_of(scores: EdgeScores, share: float = SHARE) -> Heads:
    """Heads of the circuit of a share of all edges.

    Raises:
        BadOption: a share that is none.
    """
    return _heads(scores.graph, scores.per_prompt.mean(0), share)


def resampled(scores: EdgeScores, share: float = SHARE, *, n: int = 50, random_seed: int = 0) -> tuple[Heads, ...]:
    """Heads of circuits by prompts drawn with replacement: what would be found of the same model with other prompts."""
    rows = draws(len(scores.per_prompt), random_seed, n)
    return tuple(_heads(scores.graph, scores.per_prompt[row].mean(0), share) for row in rows)


def frequencies(sets: Sequence[Heads]) -> dict[str, float]:
    """Share of the sets that hold each head, of those that any holds."""
    every = sorted(frozenset[str]().union(*sets))
    return {head: sum(head in one for one in sets) / len(sets) for head in every}


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
    """Heads of the circuits at checkpoints.

    Attributes:
        steps: of the checkpoints; the first is before training.
        active: the heads at each.

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
        """Heads of the first circuit that are not in that of a checkpoint."""
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


def census(found: Mapping[int, EdgeScores], share: float = SHARE) -> Census:
    """The census of what was scored at checkpoints: step -> scores."""
    steps = tuple(sorted(found))
    return Census(steps, tuple(heads_of(found[step], share) for step in steps))


def _heads(graph: Graph, values: Float[np.ndarray, " edge"], share: float) -> Heads:
    if not 0 < share <= 1:
        raise BadOption(f"share={share:g}", "a circuit is a share of the edges", next_step=f"give {SHARE:g}, say")
    chosen = select_values(values, graph, max(1, round(share * graph.n_edges)))
    touched = set(graph.nodes_of(alive(graph, chosen, "resample")))
    senders = zip(graph.senders, graph.sender_ends, strict=True)
    return frozenset(site_of(end) for name, end in senders if name in touched and end.kind == "head")


def _pairs(sets: Sequence[Heads]) -> list[tuple[Heads, Heads]]:
    if len(sets) < 2:
        raise BadOption(f"overlap of {len(sets)} sets of heads", "overlap is that of pairs", next_step="give 2 or more")
    return [(a, b) for ix, a in enumerate(sets) for b in sets[ix + 1 :]]
