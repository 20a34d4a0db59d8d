"""How a controller is trained, and what came of it: plain records."""

import math
from dataclasses import dataclass, field
from typing import final

from optrode.errors import BadOption


@final
@dataclass(frozen=True)
class Objective:
    """Weights of what is minimised.

    Attributes:
        kl: of the divergence from the base model on negatives.
        l1: of how open the gates are, over all rows.
    """

    kl: float | int = 1.0
    l1: float | int = 0.05

    def __post_init__(self) -> None:
        for name, value in (("kl", self.kl), ("l1", self.l1)):
            if not (math.isfinite(value) and value >= 0):
                raise BadOption(f"{name}={value}", "it is no finite weight of 0 or more", next_step=f"leave {name} out")


@final
@dataclass(frozen=True)
class Recipe:
    """How a controller is trained.

    Attributes:
        objective: weights of the three terms.
        n_epochs, batch_size: passes over the rows, and rows of a step.
        lr, weight_decay: of AdamW.
        held_out: share of the rows that choose the epoch.
    """

    objective: Objective = field(default_factory=Objective)
    n_epochs: int = 20
    batch_size: int = 16
    lr: float = 2e-3
    weight_decay: float = 0.01
    held_out: float = 0.25

    def __post_init__(self) -> None:
        for name, size in {"n_epochs": self.n_epochs, "batch_size": self.batch_size}.items():
            if size < 1:
                raise BadOption(f"{name}={size}", "training takes at least one", next_step="give 1 or more")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise BadOption(f"lr={self.lr}", "it is no finite rate above 0", next_step="try lr=0.002")
        if not 0 < self.held_out < 1:
            raise BadOption(f"held_out={self.held_out}", "a share in (0, 1) of the prompts", nearest=("0.25",))


@final
@dataclass(frozen=True)
class ControllerScore:
    """What a controller does on some prompts.

    Attributes:
        total: the objective.
        effect: CE of what is wanted after positives, mean over its tokens, nats.
        harm: KL(steered || base) after negatives, mean over the tokens from the prompt's last on, nats.
        cost: mean of |s w_l| over all rows and gates.
        open_positive, open_negative: mean of s.
        separation: area under the ROC curve of s, positives against negatives.
    """

    total: float
    effect: float
    harm: float
    cost: float
    open_positive: float
    open_negative: float
    separation: float


@final
@dataclass(frozen=True)
class ControllerTraining:
    """How a controller was trained.

    Attributes:
        train: mean objective of each epoch's batches.
        validation: score on held-out rows before training and after each epoch.
        best_epoch: whose weights the controller has; 0 is before training.
        weight_gradients: mean norm over each epoch's batches of the gradient of effect and harm, without the cost, that
            reaches the layer weights.
        n_train, n_held: rows.
    """

    train: tuple[float, ...]
    validation: tuple[ControllerScore, ...]
    best_epoch: int
    weight_gradients: tuple[float, ...]
    n_train: int
    n_held: int

    @property
    def best(self) -> ControllerScore:
        """The held-out score of the weights that were kept."""
        return self.validation[self.best_epoch]
