"""What a training run leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from optrode.provenance import Provenance


@final
@dataclass(frozen=True)
class Series:
    """One measure over training.

    Attributes:
        steps: at which it was measured, ascending.
        values: what was measured.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def first_below(self, bound: float) -> int | None:
        """The first step at which it is below a bound, or None."""
        return next((step for step, value in zip(self.steps, self.values, strict=True) if value < bound), None)

    def first_above(self, bound: float) -> int | None:
        """The first step at which it is above a bound, or None."""
        return next((step for step, value in zip(self.steps, self.values, strict=True) if value > bound), None)


@final
@dataclass(frozen=True)
class Kept:
    """A checkpoint.

    Attributes:
        step: before the update of that number.
        file: name of its safetensors file in the run's folder; empty where the run has no folder.
        weights_hash: SHA-256 of the weights.
    """

    step: int
    file: str
    weights_hash: str


@final
@dataclass(frozen=True)
class TrainingRun:
    """One training run, finished or stopped early.

    Attributes:
        name: of the plan.
        gates: held, as they print.
        n_steps: made.
        is_stopped: ended by the plan's `stop`.
        loss: training loss of each step, in nats.
        measures: by name.
        checkpoints: kept, in the order of their steps.
        provenance: seed, versions, machine, seconds.
    """

    name: str
    gates: tuple[str, ...]
    n_steps: int
    is_stopped: bool
    loss: Series
    measures: Mapping[str, Series]
    checkpoints: tuple[Kept, ...]
    provenance: Provenance


@final
@dataclass(frozen=True, eq=False)
class Watched:
    """Where the heads look on one prompt, at each checkpoint.

    Attributes:
        tokens: of the prompt, as they are shown.
        patterns: attention probabilities; layers are those of the `Emergence`.
    """

    tokens: tuple[str, ...]
    patterns: Float[np.ndarray, "checkpoint layer head pos src"]


@final
@dataclass(frozen=True, eq=False)
class Emergence:
    """What formed in a training run, looked at from its checkpoints.

    Attributes:
        run: name of the run.
        gates: held while looking, as they print.
        steps: of the checkpoints, ascending.
        layers: whose attention was read.
        prompts: attention on each; empty where none was read.
        circuits: what was measured of the circuit at each checkpoint, by name: its size, its faithfulness, a head's score.
        provenance: of the looking.
    """

    run: str
    gates: tuple[str, ...]
    steps: tuple[int, ...]
    layers: tuple[int, ...]
    prompts: tuple[Watched, ...]
    circuits: Mapping[str, Series]
    provenance: Provenance
