"""Scikit-learn's handwritten digits (1,797 images of 8 x 8 pixels), where scikit-learn is installed."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

N_PIXELS = 64


@final
@dataclass(frozen=True, eq=False)
class Digits:
    """Some images.

    Attributes:
        pixels: [image, pixel] in [0, 1].
        digits: [image] what they show.
    """

    pixels: Tensor
    digits: Tensor

    def draw(self, wanted: Int[Tensor, " n"], generator: torch.Generator) -> Float[Tensor, "n pixel"]:
        """A random image of each wanted digit."""
        found = self.pixels.new_empty(len(wanted), self.pixels.shape[1])
        for digit in wanted.unique():
            here, pool = wanted == digit, (self.digits == digit).nonzero()[:, 0]
            found[here] = self.pixels[pool[torch.randint(len(pool), (int(here.sum()),), generator=generator)]]
        return found


def has_digits() -> bool:
    """Whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def load_digits(generator: torch.Generator, n_test: int = 400) -> tuple[Digits, Digits]:
    """Images to train on, and `n_test` others, split at random."""
    from sklearn import datasets

    held = datasets.load_digits()
    pixels, digits = torch.tensor(held.data / 16).float(), torch.tensor(held.target).long()
    order = torch.randperm(len(digits), generator=generator)
    test, train = order[:n_test], order[n_test:]
    return Digits(pixels[train], digits[train]), Digits(pixels[test], digits[test])
