"""The squared 2-Wasserstein distance of samples, feature by feature: in one dimension, sorting is optimal transport.

For samples of sizes n and m with equal weights, W2^2 = integral over q in [0, 1] of (F^-1(q) - G^-1(q))^2, where both
quantile functions are steps: the sum over at most n + m - 1 pieces on which both are constant, exact for any n and m.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.errors import BadOption


@final
@dataclass(frozen=True, eq=False)
class Coupling:
    """Which sorted samples are paired, and how much each pair weighs.

    Attributes:
        left, right: [pair] places in the sorted samples.
        weight: [pair], summing to 1.
    """

    left: Int[Tensor, " pair"]
    right: Int[Tensor, " pair"]
    weight: Float[Tensor, " pair"]

    def mean(self, values: Float[Tensor, "pair *feature"]) -> Float[Tensor, "*feature"]:
        """The mean over pairs."""
        mean: Tensor = torch.tensordot(self.weight, values, dims=1)
        return mean


def coupling(n: int, m: int, like: Tensor) -> Coupling:
    """The monotone coupling of n and m sorted samples.

    Args:
        like: whose type and device the weights have.

    Raises:
        BadOption: one side has no sample.
    """
    if not n or not m:
        found = f"there are {n} and {m} samples"
        raise BadOption("a distance between samples", found, next_step="give at least one on each side")
    return _coupling(n, m, like.dtype, like.device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept must be fit for gradients later
def _coupling(n: int, m: int, dtype: torch.dtype, device: torch.device) -> Coupling:
    ends = torch.unique(torch.cat([torch.arange(n + 1) * m, torch.arange(m + 1) * n]))  # in units of 1 / (n m)
    starts, width = ends[:-1], ends.diff()
    weight = (width.double() / (n * m)).to(device, dtype)
    return Coupling((starts // m).to(device), (starts // n).to(device), weight)


def paired(
    x: Float[Tensor, "n *feature"], y: Float[Tensor, "m *feature"]
) -> tuple[Float[Tensor, "pair *feature"], Float[Tensor, "pair *feature"], Coupling]:
    """Samples in the order in which transport pairs them, feature by feature."""
    how = coupling(len(x), len(y), x)
    return x.sort(0).values[how.left], y.sort(0).values[how.right], how


def wasserstein(x: Float[Tensor, "n *feature"], y: Float[Tensor, "m *feature"]) -> Float[Tensor, "*feature"]:
    """W2^2 between samples of each feature, in the square of the feature's unit; gradients flow into both.

    Raises:
        BadOption: one side has no sample.
    """
    left, right, how = paired(x, y)
    return how.mean((left - right).square())
