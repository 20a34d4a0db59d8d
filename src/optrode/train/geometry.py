"""How far training moved a matrix: its singular values, its singular subspaces, and the weights that it reached.

The Path Not Taken, arXiv 2511.08567. Symbols: W0 = U0 S0 V0^T is `before`, W+ = U+ S+ V+^T is `after`, sigma their singular
values, largest first, dW = W+ - W0. All is computed in float64.

Bounds on what an update can do: |sigma_i(W+) - sigma_i(W0)| <= ||dW||_2 for every i (Weyl), and `wedin_bound` for angles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.errors import BadOption, nearest
from optrode.train.masks import ETA, bf16_mask, check_pair, check_rank, largest, low_mask, overlap, sparsity, update_mask
from optrode.trial.run import Progress, no_progress

Side = Literal["left", "right"]
SIDES: Final[tuple[Side, ...]] = get_args(Side)


@dataclass(frozen=True)
class Geometry:
    """How one matrix moved between two checkpoints.

    Attributes:
        shape: rows, columns.
        rank: k, how many singular vectors count as principal.
        spectral_shift: NSS, ||sigma(W+) - sigma(W0)||_2 / ||sigma(W0)||_2.
        update_norm: ||dW||_2, the largest singular value of the update.
        gap: sigma_k - sigma_{k+1} of W0 (sigma_k itself where there is no next): where it is small beside `update_norm`, the
            principal subspace is not one that the weights define, and angles say little.
        left_angles, right_angles: [k] principal angles in degrees, smallest first.
        sparsity: share of weights that changed by at most eta of their size.
        bf16_sparsity: share of weights with the same bfloat16 value.
        principal_share, low_share: shares of the weights in the two masks, alpha but for rounding: the overlaps by chance.
        principal_overlap, low_overlap: shares of the updated weights (of `sparsity`) that lie in the masks; None where no
            weight was updated.
    """

    shape: tuple[int, int]
    rank: int
    spectral_shift: float
    update_norm: float
    gap: float
    left_angles: tuple[float, ...]
    right_angles: tuple[float, ...]
    sparsity: float
    bf16_sparsity: float
    principal_share: float
    low_share: float
    principal_overlap: float | None
    low_overlap: float | None


def spectral_shift(before: Float[Tensor, "row column"], after: Float[Tensor, "row column"]) -> float:
    """Normalised spectral shift, NSS = ||sigma(W+) - sigma(W0)||_2 / ||sigma(W0)||_2.

    Raises:
        BadOption: shapes differ, a weight is not finite, or `before` is 0.
    """
    check_pair(before, after)
    return _shift(*(torch.linalg.svdvals(one.detach().double()) for one in (before, after)))


def principal_angles(
    before: Float[Tensor, "row column"], after: Float[Tensor, "row column"], k: int, side: Side = "left"
) -> Float[Tensor, " angle"]:  # fmt: skip
    """Angles between the spans of the first k singular vectors, in degrees, 0..90, smallest first.

    cos theta_i = sigma_i(U0_k^T U+_k), and the same of V. Small angles are taken from their sines, which lose no digits
    (Björck and Golub 1973). Spans of all dimensions are the same.

    Args:
        side: "left" for U, what the matrix writes to; "right" for V, what it reads.

    Raises:
        BadOption: shapes differ, a weight is not finite, no such side, or not 1 to min(row, column) vectors.
    """
    if side not in SIDES:
        raise BadOption(f"side={side!r}", "singular vectors are left or right", nearest=nearest(str(side), SIDES) or SIDES)
    check_pair(before, after)
    check_rank(before, k)
    return _angles(_svd(before), _svd(after), k)[SIDES.index(side)]


def wedin_bound(before: Float[Tensor, "row column"], after: Float[Tensor, "row column"], k: int) -> float:
    """What the sine of no principal angle on either side exceeds: ||dW||_2 / (sigma_k(W0) - sigma_{k+1}(W+)), at most 1.

    Wedin 1972. The gap is between the two matrices: with W0's own gap in its place the quotient is a bound only when
    doubled. Where the gap is not positive nothing is known, 1.

    Raises:
        BadOption: shapes differ, a weight is not finite, or not 1 to min(row, column) vectors.
    """
    check_pair(before, after)
    check_rank(before, k)
    old, new = before.detach().double(), after.detach().double()
    gap = _gap(torch.linalg.svdvals(old), torch.linalg.svdvals(new), k)
    moved = float(torch.linalg.matrix_norm(new - old, 2))
    return min(1.0, moved / gap) if gap > 0 else 1.0


def geometry(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], k: int = 8, alpha: float = 0.5, eta: float = ETA,
    progress: Progress = no_progress,
) -> dict[str, Geometry]:  # fmt: skip
    """The geometry of every matrix of two state dicts of one architecture.

    Tensors that are not matrices of floating-point numbers (biases, gains, counters, convolutions) are left out.

    Args:
        before, after: name -> weights, as `state_dict()` gives them.
        k: principal singular vectors; all of a matrix that has fewer.
        alpha: share of the weights in the principal and in the low mask.
        eta: relative change that counts as none.

    Raises:
        BadOption: names or shapes differ, there is no matrix, one is 0 before or not finite, or k, alpha, eta are out of
            range.
    """
    _check_same(before, after)
    names = [name for name, weight in before.items() if weight.dim() == 2 and weight.is_floating_point()]
    if not names:
        raise BadOption("geometry of two checkpoints", "they hold no matrix", next_step="give a model's state dict")
    found = {}
    for ix, name in enumerate(names):
        try:
            found[name] = geometry_of(before[name], after[name], k, alpha, eta)
        except BadOption as error:
            asked, step = f"{name}: {error.asked}", error.next_step
            raise BadOption(asked, error.found, nearest=error.nearest, next_step=step) from None
        progress("geometry", ix + 1, len(names))
    return found


def geometry_of(
    before: Float[Tensor, "row column"], after: Float[Tensor, "row column"], k: int = 8, alpha: float = 0.5, eta: float = ETA
) -> Geometry:  # fmt: skip
    """The geometry of one matrix; see `geometry`.

    Raises:
        BadOption: shapes differ, a weight is not finite, `before` is 0, or k, alpha, eta are out of range.
    """
    updated = update_mask(before, after, eta)
    k = min(k, *before.shape)
    check_rank(before, k)
    old, new = _svd(before), _svd(after)
    principal = largest((old.u[:, :k] * old.s[:k]) @ old.vh[:k], alpha)
    low = low_mask(before, alpha)
    left, right = _angles(old, new, k)
    return Geometry(
        shape=(before.shape[0], before.shape[1]), rank=k, spectral_shift=_shift(old.s, new.s),
        update_norm=float(torch.linalg.matrix_norm(after.detach().double() - before.detach().double(), 2)),
        gap=_gap(old.s, old.s, k), left_angles=tuple(left.tolist()), right_angles=tuple(right.tolist()),
        sparsity=sparsity(updated), bf16_sparsity=sparsity(bf16_mask(before, after)),
        principal_share=1.0 - sparsity(principal), low_share=1.0 - sparsity(low),
        principal_overlap=overlap(updated, principal) if bool(updated.any()) else None,
        low_overlap=overlap(updated, low) if bool(updated.any()) else None,
    )  # fmt: skip


class _Svd(NamedTuple):
    """W = u diag(s) vh, largest singular value first."""

    u: Float[Tensor, "row rank"]
    s: Float[Tensor, " rank"]
    vh: Float[Tensor, "rank column"]


def _svd(weight: Tensor) -> _Svd:
    return _Svd(*torch.linalg.svd(weight.detach().double(), full_matrices=False))


def _shift(old: Float[Tensor, " rank"], new: Float[Tensor, " rank"]) -> float:
    size = float(old.norm())
    if not size:
        raise BadOption("spectral shift of a matrix", "it is 0 before", next_step="leave it out, or start later")
    return float((new - old).norm()) / size


def _gap(old: Float[Tensor, " rank"], new: Float[Tensor, " rank"], k: int) -> float:
    """From the k-th singular value of one to the next one of the other; singular values that are not there are 0."""
    return float(old[k - 1]) - (float(new[k]) if k < len(new) else 0.0)


def _angles(old: _Svd, new: _Svd, k: int) -> tuple[Tensor, Tensor]:
    """Principal angles of the left and of the right subspaces, [k] each."""
    return _between(old.u[:, :k], new.u[:, :k]), _between(old.vh[:k].T, new.vh[:k].T)


def _between(a: Float[Tensor, "d k"], b: Float[Tensor, "d k"]) -> Float[Tensor, " k"]:
    """Angles in degrees between the spans of orthonormal columns."""
    shared = a.T @ b
    cos = torch.linalg.svdvals(shared).clamp(max=1.0)
    sin = torch.linalg.svdvals(b - a @ shared).flip(0).clamp(max=1.0)
    return torch.where(cos**2 >= 0.5, sin.arcsin(), cos.arccos()).rad2deg()


def _check_same(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint of another architecture."""
    for first, second, which in ((before, after, "the later checkpoint"), (after, before, "the earlier checkpoint")):
        missing = next((name for name in first if name not in second), None)
        if missing is not None:
            _refuse(f"{which} has no {missing!r}", nearest(missing, second))
    for name, weight in before.items():
        if weight.shape != after[name].shape:
            _refuse(f"{name!r} is {tuple(weight.shape)} before and {tuple(after[name].shape)} after")


def _refuse(found: str, near: tuple[str, ...] = ()) -> None:
    step = "compare checkpoints of one run, or of runs of one architecture"
    raise BadOption("geometry of two checkpoints", f"one is of another architecture: {found}", nearest=near, next_step=step)
