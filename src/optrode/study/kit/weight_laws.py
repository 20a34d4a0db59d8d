"""Laws of weight geometry that hold of any update, asked of updates drawn at random."""

import math
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.train.geometry import principal_angles, wedin_bound
from optrode.train.masks import bf16_mask, largest, overlap, principal_mask, random_rotation, update_mask


def bf16_pairs(n: int, generator: torch.Generator) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Pairs of bfloat16 values that are up to 3 neighbours apart, among them powers of two, both signs and zero."""
    old = torch.randn(n, generator=generator) * 10.0 ** torch.randint(-6, 3, (n,), generator=generator)
    old[: n // 8] = 2.0 ** torch.randint(-8, 8, (n // 8,), generator=generator)
    old[: n // 50] = 0.0
    bits = old.bfloat16().view(torch.int16)
    near = (bits + torch.randint(-3, 4, (n,), generator=generator).to(torch.int16)).view(torch.bfloat16)
    new = torch.where(near.isfinite(), near, old.bfloat16())
    return old.bfloat16().float(), new.float()


def mismatches(n: int, eta: float, generator: torch.Generator) -> float:
    """Pairs of which |w' - w| > eta max(|w|, |w'|) does not say whether they are one bfloat16 value."""
    old, new = bf16_pairs(n, generator)
    return float((update_mask(old, new, eta) != bf16_mask(old, new)).sum())


def crossing(d: int, generator: torch.Generator) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
    """A matrix, and one whose first two singular values have come near to each other, between random rotations.

    The singular values are 2, 1 and less; the update is [[-a, b], [b, a]] in the first two directions.
    """
    left, right = (random_rotation(d, generator) for _ in range(2))
    a, b = 0.4 + 0.09 * float(torch.rand((), generator=generator)), 0.15
    middle = torch.diag(torch.cat([torch.tensor([2.0, 1.0]), torch.linspace(0.5, 0.1, d - 2)]).double())
    after = middle.clone()
    after[:2, :2] += torch.tensor([[-a, b], [b, a]], dtype=torch.float64)
    return left @ middle @ right.T, left @ after @ right.T


def perturbed(d: int, generator: torch.Generator) -> tuple[Float[Tensor, "d wide"], Float[Tensor, "d wide"]]:
    """A random matrix, and the same after a random update of random size."""
    before, update = (torch.randn(d, d + 4, generator=generator, dtype=torch.float64) for _ in range(2))
    return before, before + update * 10.0 ** (2 * float(torch.rand((), generator=generator)) - 2)


def over_bounds(pairs: list[tuple[Tensor, Tensor]], k: int) -> float:
    """The largest of: sine of a principal angle over Wedin's bound, change of a singular value over the update's norm."""
    found = []
    for before, after in pairs:
        values = [torch.linalg.svdvals(one) for one in (before, after)]
        moved = float(torch.linalg.matrix_norm(after - before, 2))
        found.append(float((values[1] - values[0]).abs().max()) / moved)
        found.append(_largest_sine(before, after, k) / wedin_bound(before, after, k))
    return max(found)


def over_wrong_bound(pairs: list[tuple[Tensor, Tensor]], k: int) -> float:
    """The largest sine of a principal angle over ||dW||_2 / gap, with the gap of the matrix before the update alone."""
    found = []
    for before, after in pairs:
        values = torch.linalg.svdvals(before)
        moved = float(torch.linalg.matrix_norm(after - before, 2))
        found.append(_largest_sine(before, after, k) * float(values[k - 1] - values[k]) / moved)
    return max(found)


def overlaps(weight: Tensor, k: int, n: int, generator: torch.Generator, *, is_aimed: bool = False) -> float:
    """Overlap of random updates of a tenth of the weights with the principal mask, mean over draws.

    Args:
        is_aimed: updates are drawn within the mask.
    """
    mask = principal_mask(weight, k)
    draws = [torch.rand(weight.shape, generator=generator) + is_aimed * mask for _ in range(n)]
    return fmean(overlap(largest(draw, 0.1), mask) for draw in draws)


def _largest_sine(before: Tensor, after: Tensor, k: int) -> float:
    return max(math.sin(math.radians(float(principal_angles(before, after, k, side)[-1]))) for side in ("left", "right"))
