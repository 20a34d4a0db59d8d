"""What is to be trained, and what is to be looked at meanwhile: a record that `fit` turns into a run."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optrode.errors import BadOption
from optrode.gate.gate import Gate
from optrode.model.model import Model

MakeModel = Callable[[int], Model]
"""Random seed -> a model with fresh weights."""

MakeBatch = Callable[[int, torch.Generator], Any]
"""(number of the batch, generator that depends on it and the seed alone) -> the batch, of whatever kind `Loss` takes."""

Loss = Callable[[Model, Any], Tensor]
"""(model, batch) -> mean loss in nats, a scalar with a gradient."""

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]

Value = float | Mapping[str, float]
"""What a measure gives: one number, or several by name."""


@final
@dataclass(frozen=True)
class Measure:
    """Something to be measured of the model while it trains, without gradients.

    Attributes:
        function: of the model.
        is_free: measure the model as it is without the gates that are held on it.
    """

    function: Callable[[Model], Value]
    is_free: bool = False


@final
@dataclass(frozen=True)
class Stop:
    """End the training early, at the first measurement that passes a threshold.

    Attributes:
        measure: "loss" or the name of a measure.
        below, above: the threshold, exclusive; one of them.
    """

    measure: str
    below: float = -math.inf
    above: float = math.inf

    def is_reached(self, values: Mapping[str, float]) -> bool:
        """Whether these measures pass it."""
        value = values.get(self.measure)
        return value is not None and (value < self.below or value > self.above)


def adam(lr: float = 1e-3, **options: Any) -> MakeOptimizer:
    """Adam (Kingma and Ba, arXiv 1412.6980) with torch's options."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **options)


def adamw(lr: float = 1e-3, **options: Any) -> MakeOptimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101) with torch's options."""
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr, **options)


def sgd(lr: float = 1e-2, **options: Any) -> MakeOptimizer:
    """Stochastic gradient descent with torch's options."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **options)


def log_spaced(n_steps: int, per_doubling: int = 2, first: int = 1) -> tuple[int, ...]:
    """Steps 0, `first`, ... up to and with `n_steps`, `per_doubling` of them in each doubling (Pythia has one)."""
    n = max(1, math.ceil(math.log2(max(n_steps / first, 1)) * per_doubling))
    grown = {min(n_steps, round(first * 2 ** (ix / per_doubling))) for ix in range(n + 1)}
    return tuple(sorted({0, n_steps} | grown))


def evenly(n_steps: int, every: int) -> tuple[int, ...]:
    """Steps 0, every, 2 every, ..., and `n_steps`."""
    return tuple(sorted({*range(0, n_steps + 1, every), n_steps}))


@final
@dataclass(frozen=True)
class Plan:
    """A training run before it is run.

    Attributes:
        name: what the run is called.
        make: makes the model.
        batch: makes the batch of a step.
        loss: mean loss of a batch.
        n_steps: optimiser steps.
        optimizer: makes the optimiser of the trainable parameters.
        gates: held during training and, unless a measure is free of them, measuring.
        measures: by name; all are taken at the steps of `measure_at`. The training loss of every step is kept anyway.
        measure_at: steps, before the update of that number; `n_steps` is after the last.
        keep_at: steps at which a checkpoint is kept, where the run has a folder.
        keep_when: also keep one at the first measurement that passes a threshold.
        stop: end early.
        clip_norm: greatest norm of the gradient; None for no limit.
        n_parts: batches whose gradients are added up to one step (gradient accumulation).
        random_seed: of the fresh weights, the batches and dropout.
    """

    name: str
    make: MakeModel
    batch: MakeBatch
    loss: Loss
    n_steps: int
    optimizer: MakeOptimizer = field(default_factory=adam)
    gates: tuple[Gate, ...] = ()
    measures: Mapping[str, Measure] = field(default_factory=dict)
    measure_at: tuple[int, ...] = ()
    keep_at: tuple[int, ...] = ()
    keep_when: tuple[Stop, ...] = ()
    stop: Stop | None = None
    clip_norm: float | None = None
    n_parts: int = 1
    random_seed: int = 0

    def __post_init__(self) -> None:
        asked = f"training {self.name!r}"
        if self.n_steps < 1 or self.n_parts < 1:
            found = f"n_steps={self.n_steps}, n_parts={self.n_parts}"
            raise BadOption(asked, found, next_step="give at least 1 of each")
        if not 0 <= self.random_seed < 2**31:
            raise BadOption(asked, f"random_seed={self.random_seed}", next_step="give one from 0 to 2**31 - 1")
        self._check_names(asked)
        for gate in self.gates:
            if gate.when is not None and gate.when.measure is None and gate.when.start >= self.n_steps:
                found = f"{gate} would never open: there are {self.n_steps} steps"
                raise BadOption(asked, found, next_step="start the schedule earlier, or train longer")

    def _check_names(self, asked: str) -> None:
        waiting = [stop.measure for stop in (*self.keep_when, *([self.stop] if self.stop else []))]
        waiting += [g.when.measure for g in self.gates if g.when is not None and g.when.measure is not None]
        missing = [name for name in waiting if name != "loss" and not any(_names(name, m) for m in self.measures)]
        if missing:
            found = f"something waits for the measure {missing[0]!r}, which is not taken"
            raise BadOption(asked, found, nearest=("loss", *self.measures), next_step="add it to `measures`")

    def but(self, **changes: Any) -> "Plan":
        """The same plan with other fields."""
        return replace(self, **changes)


def _names(waited: str, measure: str) -> bool:
    """Whether a name is that of a measure, or of one of the numbers that it gives, "measure.part"."""
    return waited == measure or waited.startswith(f"{measure}.")
