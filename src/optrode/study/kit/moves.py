"""How far, and where, tuning moved the matrices of a network: means over its matrices, and what chance would have done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optrode.train.geometry import geometry_of, principal_angles
from optrode.train.masks import ETA, bf16_mask, jaccard, jaccard_by_chance, largest, update_mask

ALPHA: Final = 0.5
TOP: Final = 0.1
"""Share of a matrix's weights that changed most, where nearly all changed."""
Masks = Mapping[str, Bool[Tensor, "row column"]]
Weights = Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class Move:
    """One tuning, means over matrices.

    Attributes:
        norm: ||dW|| / ||W0||, Frobenius.
        shift: NSS.
        shift_per_norm: NSS over `norm`, in 0..1.
        angle: the largest principal angle, mean of both sides, degrees.
        energy: share of ||dW||^2 between the principal subspaces, ||U_k^T dW V_k||^2, over its expectation by chance.
        changed: share of weights whose bfloat16 value changed.
        principal, low: overlap of what was updated with the masks, less the masks' share.
    """

    norm: float
    shift: float
    shift_per_norm: float
    angle: float
    energy: float
    changed: float
    principal: float
    low: float


def move(before: Weights, after: Weights, names: Sequence[str], k: int) -> Move:
    """How far these matrices moved."""
    by_matrix = [_move_of(before[name], after[name], k) for name in names]
    return Move(*(fmean(column) for column in zip(*by_matrix, strict=True)))


def _move_of(before: Tensor, after: Tensor, k: int) -> tuple[float, ...]:
    moved = geometry_of(before, after, k, ALPHA)
    norm = float((after - before).double().norm() / before.double().norm())
    angle = (moved.left_angles[-1] + moved.right_angles[-1]) / 2
    principal, low = (
        0.0 if overlap is None else overlap - share
        for overlap, share in ((moved.principal_overlap, moved.principal_share), (moved.low_overlap, moved.low_share))
    )
    per_norm, changed = moved.spectral_shift / norm, 1 - moved.bf16_sparsity
    return norm, moved.spectral_shift, per_norm, angle, energy(before, after, k), changed, principal, low


def energy(before: Float[Tensor, "row column"], after: Float[Tensor, "row column"], k: int) -> float:
    """||U_k^T dW V_k||^2 / ||dW||^2, over k^2 / (rows x columns), which it is on average for a random update."""
    u, _, vh = torch.linalg.svd(before.detach().double(), full_matrices=False)
    moved = (after - before).detach().double()
    inside = (u[:, :k].T @ moved @ vh[:k].T).square().sum()
    return float(inside / moved.square().sum()) * before.numel() / k**2


def angles(before: Weights, after: Weights, names: Sequence[str], k: int) -> tuple[float, ...]:
    """The k principal angles, smallest first, mean over matrices and both sides, degrees."""
    found = [principal_angles(before[name], after[name], k, side) for name in names for side in ("left", "right")]
    return tuple(torch.stack(found).mean(0).tolist())


def moved_most(before: Weights, after: Weights, names: Sequence[str]) -> Masks:
    """Where each matrix's tenth of weights is that changed most."""
    return {name: largest(after[name] - before[name], TOP) for name in names}


def visibly(before: Weights, after: Weights, names: Sequence[str]) -> Masks:
    """Which weights changed beyond what bfloat16 overlooks."""
    return {name: update_mask(before[name].bfloat16().float(), after[name].bfloat16().float(), ETA) for name in names}


def above_chance(one: Masks, two: Masks, names: Sequence[str]) -> float:
    """Jaccard index of two updates less that of independent masks of their sizes; mean over matrices."""
    return fmean(
        jaccard(one[name], two[name]) - jaccard_by_chance(float(one[name].float().mean()), float(two[name].float().mean()))
        for name in names
    )


def changed_to(before: Weights, updates: Weights, names: Sequence[str]) -> dict[str, Tensor]:
    """The weights after other updates."""
    return {name: before[name] + updates[name] if name in names else before[name] for name in before}


def updates(before: Weights, after: Weights, names: Sequence[str]) -> dict[str, Tensor]:
    """What was added to each matrix, dW."""
    return {name: after[name] - before[name] for name in names}


def shuffled(moved: Weights, generator: torch.Generator) -> dict[str, Tensor]:
    """The same updates at other places of their matrices."""
    found = {}
    for name, update in moved.items():
        order = torch.randperm(update.numel(), generator=generator)
        found[name] = update.flatten()[order].view(update.shape)
    return found


def along_weights(before: Weights, moved: Weights) -> dict[str, Tensor]:
    """Updates of the same norms that lengthen the weights: the singular values move, and nothing else does."""
    return {name: before[name] * (update.norm() / before[name].norm()) for name, update in moved.items()}


def concentrated(moved: Weights) -> dict[str, Tensor]:
    """Updates of the same norms that reach only the tenth of weights which changed most."""
    kept = {name: update * largest(update, TOP) for name, update in moved.items()}
    return {name: kept[name] * (moved[name].norm() / kept[name].norm()) for name in moved}


def unchanged_by_size(
    before: Weights, moved: Weights, sizes: Sequence[float]
) -> list[tuple[float, float]]:  # fmt: skip
    """Updates made smaller and smaller: (their norm over that of the weights, share of bfloat16 weights left as they were).

    Args:
        sizes: what the updates are multiplied by.
    """
    old = torch.cat([before[name].flatten() for name in moved]).bfloat16().float()
    update = torch.cat([one.flatten() for one in moved.values()])
    norm = float(update.norm() / old.norm())
    return [(size * norm, 1 - float(bf16_mask(old, old + size * update).float().mean())) for size in sizes]
