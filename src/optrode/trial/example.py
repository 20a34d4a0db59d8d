"""Pairs of a module's own inputs, for models that read no tokens: images, feature vectors."""

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from optrode.trial.prompts import Pair

ONE: Final = 1
"""What is read of such an input counts as one position, whatever the model makes of it inside."""


@dataclass(frozen=True, eq=False, slots=True)
class Example(Pair):
    """A clean input, a corrupt one of the same shape, and which outputs are right or wrong.

    Attributes:
        clean, corrupt: one input as the module takes it, without the batch axis.
        right, wrong: indices of logits.
    """

    clean: Tensor  # type: ignore[assignment]
    corrupt: Tensor  # type: ignore[assignment]

    @property
    def length(self) -> int:
        return ONE
