"""In-context classifiers in training: a bench of items, label sets and rows to measure on, and plans of training runs.

As Singh et al., arXiv 2404.07129, but for the learning rate: 3e-4, at which circuits form in 15,000 sequences where the
paper's 1e-5 takes 300,000.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.study.kit import icl
from optrode.train.plan import Measure, Plan, Stop, adam, evenly

N_BATCH: Final = 32
"""Sequences of an update."""
RATE: Final = 3e-4


@final
@dataclass(frozen=True, eq=False)
class Bench:
    """What runs of one random seed share.

    Attributes:
        seen, unseen: what is trained on, and the same with label sets that are left out.
        rows, unseen_rows: drawn from them once, to measure on.
        n_heads: of each layer; the width of a head is 8.
        random_seed: of the weights and batches.
    """

    words: icl.Vocabulary
    seen: icl.Pool
    unseen: icl.Pool
    rows: icl.Sequences
    unseen_rows: icl.Sequences
    n_heads: int
    random_seed: int

    def make(self, random_seed: int) -> Model:
        """An untrained network."""
        return icl.network(self.words, random_seed, n_heads=self.n_heads, d_model=8 * self.n_heads)

    def batch(self, index: int, generator: torch.Generator) -> icl.Sequences:
        """A batch to train on."""
        return icl.draw(self.words, self.seen, N_BATCH, generator)

    def plan(
        self, name: str, held: Sequence[Gate] = (), n_steps: int = 1000, *, every: int = 10, below: float | None = None,
        measures: Mapping[str, Callable[[Model], Any]] | None = None, **changes: Any,
    ) -> Plan:  # fmt: skip
        """A training run that measures the loss on seen and unseen label sets.

        Args:
            every: steps between measurements.
            below: stop when the loss on seen sets is below it.
            measures: further ones, by name.
        """
        own = {"seen": _loss_on(self.rows), "unseen": _loss_on(self.unseen_rows)} | dict(measures or {})
        plan = Plan(
            name, self.make, self.batch, icl.loss, n_steps, optimizer=adam(RATE), gates=tuple(held),
            measures={key: Measure(function) for key, function in own.items()}, measure_at=evenly(n_steps, every),
            stop=None if below is None else Stop("seen", below=below), random_seed=self.random_seed,
        )  # fmt: skip
        return replace(plan, **changes)


def bench(
    features: Float[Tensor, "item width"], random_seed: int, *, n_classes: int | None = None, n_labels: int = 5,
    n_exemplars: int = 1, n_rows: int = 256, n_heads: int = 8,
) -> Bench:  # fmt: skip
    """A bench over items.

    Args:
        n_classes: classes to train on, the first of all; all by default.
        n_rows: sequences to measure on.
    """
    words = icl.Vocabulary(features, n_labels, n_exemplars)
    seen_sets, unseen_sets = icl.label_sets(n_labels)
    seen = icl.Pool(range(words.n_classes if n_classes is None else n_classes), seen_sets)
    unseen = seen.but(label_sets=unseen_sets)
    generator = torch.Generator().manual_seed(1_000_003 + random_seed)
    rows, others = (icl.draw(words, pool, n_rows, generator) for pool in (seen, unseen))
    return Bench(words, seen, unseen, rows, others, n_heads, random_seed)


def under(held: Sequence[Gate], rows: icl.Sequences) -> Callable[[Model], float]:
    """The loss on rows with gates held for the measurement alone."""

    def measure(model: Model) -> float:
        with gates(model, *held):
            return float(icl.loss(model, rows))

    return measure


def _loss_on(rows: icl.Sequences) -> Callable[[Model], float]:
    return under((), rows)
