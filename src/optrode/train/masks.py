"""Which weights an update reached, and which weights it could have reached: masks of one matrix, and what they share.

The Path Not Taken, arXiv 2511.08567 (W0 = before, W+ = after, M = update mask, M* = principal or low mask). All masks are
true where something is the case: an update mask where a weight changed, a principal mask at the principal weights.
"""

from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optrode.errors import BadOption

ETA: Final = 1e-3
"""Relative change below which no bfloat16 value can have changed."""


def update_mask(before: Float[Tensor, "*shape"], after: Float[Tensor, "*shape"], eta: float = ETA) -> Bool[Tensor, "*shape"]:
    """Where |w' - w| > eta max(|w|, |w'|), computed in float64.

    What holds for eta < 2^-8, and so for 1e-3, since neighbours in bfloat16 differ by at least 2^-8 of the larger one:

    * Of weights that are bfloat16 values, whatever type holds them, this is where the values differ: `bf16_mask`.
    * Of other weights it is not `bf16_mask`. A smaller change is visible in bfloat16 where it crosses a rounding boundary;
      a larger one is invisible where it crosses none, and of normal numbers only below 2^-7. Rounded first, the masks agree.

    Raises:
        BadOption: shapes differ, a weight is not finite, or eta is not in 0..1.
    """
    if not 0 <= eta < 1:
        found = "a relative change to overlook is at least 0 and less than 1"
        raise BadOption(f"eta={eta:g}", found, next_step="leave it at 1e-3")
    check_pair(before, after)
    old, new = before.detach().double(), after.detach().double()
    return (new - old).abs() > eta * torch.maximum(old.abs(), new.abs())


def bf16_mask(before: Float[Tensor, "*shape"], after: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Where the weights, rounded to bfloat16, have other values: other bits, save that 0 and -0 are one value.

    Raises:
        BadOption: shapes differ, or a weight is not finite.
    """
    check_pair(before, after)
    return before.detach().bfloat16() != after.detach().bfloat16()


def sparsity(mask: Bool[Tensor, "*shape"]) -> float:
    """Share of the weights that an update left unchanged, in 0..1.

    Raises:
        BadOption: there are no weights.
    """
    return 1.0 - _share(mask)


def jaccard(a: Bool[Tensor, "*shape"], b: Bool[Tensor, "*shape"]) -> float:
    """|a & b| / |a | b|, in 0..1; two empty masks are the same mask, 1.

    Raises:
        BadOption: shapes differ.
    """
    _check_shapes(a, b)
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def jaccard_by_chance(p: float, q: float) -> float:
    """What `jaccard` is near for independent masks of shares p and q: pq / (p + q - pq).

    The expected size of what both have over the expected size of what either has; the expectation of the ratio itself comes
    to it as masks grow. Two empty masks: 1.

    Raises:
        BadOption: a share is not in 0..1.
    """
    for share in (p, q):
        if not 0 <= share <= 1:
            raise BadOption(f"a share of {share:g}", "shares are in 0..1", next_step="give mask.float().mean()")
    return p * q / (p + q - p * q) if p or q else 1.0


def principal_mask(weight: Float[Tensor, "row column"], rank: int, alpha: float = 0.5) -> Bool[Tensor, "row column"]:
    """M_princ: the share `alpha` of entries where the rank-k reconstruction of the weight is largest in size.

    The reconstruction is U_k S_k V_k^T in float64; of equal entries those that come first are taken.

    Raises:
        BadOption: a weight that is not finite, a rank that it does not have, or alpha not in 0..1.
    """
    check_finite(weight)
    check_rank(weight, rank)
    u, s, vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    return largest((u[:, :rank] * s[:rank]) @ vh[:rank], alpha)


def low_mask(weight: Float[Tensor, "*shape"], alpha: float = 0.5) -> Bool[Tensor, "*shape"]:
    """M_low: the share `alpha` of entries of the smallest size; of equal entries those that come first are taken.

    Raises:
        BadOption: a weight that is not finite, or alpha not in 0..1.
    """
    check_finite(weight)
    return largest(-weight.detach().abs(), alpha, by_size=False)


def overlap(update: Bool[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> float:
    """|mask & update| / |update|: the share of what was updated that lies in the mask, in 0..1.

    An update that does not know of the mask has the mask's own share of the weights in expectation, its alpha.

    Raises:
        BadOption: shapes differ, or nothing was updated.
    """
    _check_shapes(update, mask)
    n = int(update.sum())
    if not n:
        raise BadOption("overlap with an update", "it changed no weight", next_step="compare checkpoints further apart")
    return int((update & mask).sum()) / n


def random_rotation(n: int, generator: torch.Generator) -> Float[Tensor, "n n"]:
    """An orthogonal matrix drawn from all alike (Haar), float64, on CPU (Mezzadri, arXiv math-ph/0609050).

    Raises:
        BadOption: n is less than 1.
    """
    if n < 1:
        raise BadOption(f"a rotation of {n} dimensions", "there is at least one", next_step="give n=1 or more")
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    # Without the signs, QR prefers some matrices to others.
    drawn: Tensor = q * r.diagonal().sign()
    return drawn


def rotated(weight: Float[Tensor, "row column"], generator: torch.Generator) -> Float[Tensor, "row column"]:
    """The weight between two random rotations, R W R'^T: same singular values, principal weights elsewhere.

    The control of the paper: updates of runs from weights rotated apart overlap as by chance. The network computes something
    else, unless its neighbours are rotated back; take `random_rotation` to do so.
    """
    left, right = (random_rotation(n, generator) for n in weight.shape)
    turned: Tensor = left.to(weight.device) @ weight.detach().double() @ right.T.to(weight.device)
    return turned.to(weight.dtype)


def largest(numbers: Float[Tensor, "*shape"], alpha: float, by_size: bool = True) -> Bool[Tensor, "*shape"]:
    """Where the share `alpha` of largest numbers is, at least one of them."""
    if not 0 < alpha <= 1:
        raise BadOption(f"alpha={alpha:g}", "a mask takes a share above 0 and at most 1", next_step="the paper has 0.5")
    order = (numbers.abs() if by_size else numbers).flatten().sort(descending=True, stable=True).indices
    mask = torch.zeros(numbers.numel(), dtype=torch.bool, device=numbers.device)
    mask[order[: max(1, round(alpha * len(order)))]] = True
    return mask.view(numbers.shape)


def check_pair(before: Tensor, after: Tensor) -> None:
    """Refuse weights of which one is no later state of the other."""
    _check_shapes(before, after)
    check_finite(before)
    check_finite(after)


def check_finite(weight: Tensor) -> None:
    """Refuse a weight that is not finite."""
    if not bool(weight.isfinite().all()):
        n = int(weight.isfinite().logical_not().sum())
        found = f"{n} of {weight.numel()} are not finite"
        raise BadOption("weights of a checkpoint", found, next_step="take an earlier one")


def check_rank(weight: Tensor, rank: int) -> None:
    """Refuse a rank that a matrix does not have."""
    if not 1 <= rank <= min(weight.shape):
        found = f"a matrix of {weight.shape[0]} x {weight.shape[1]} has 1 to {min(weight.shape)} singular vectors"
        raise BadOption(f"rank {rank}", found, next_step="take a rank in between")


def _check_shapes(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise BadOption(f"a comparison of {tuple(a.shape)} with {tuple(b.shape)}", "weights of one matrix have one shape")


def _share(mask: Tensor) -> float:
    if not mask.numel():
        raise BadOption("a share of no weights", "the mask is empty", next_step="give the mask of a weight")
    return int(mask.sum()) / mask.numel()
