"""How a direction is found between two sets of states, and how well it tells them apart. Tensors only, in float64."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from optrode.errors import BadOption, BadPairs, nearest

Method = Literal["difference", "pca", "paired-pca", "logistic", "mass-mean"]
High = Float64[Tensor, "positive feature"]
Low = Float64[Tensor, "negative feature"]

L2: Final = 0.01
"""Default weight of the logistic probe's penalty, for states in units of their root mean square."""


@final
@dataclass(frozen=True, eq=False)
class Axis:
    """A direction with the logistic law along it: P(positive | h) = sigmoid(slope (vector·h - midpoint)).

    Attributes:
        vector: of unit norm; positive states project higher.
        slope: of the log odds, >= 0; 0 where the projections do not differ.
        midpoint: where the odds are even.
    """

    vector: Float64[Tensor, " feature"]
    slope: float
    midpoint: float


def fit(method: str, positive: High, negative: Low, *, l2: float = L2) -> Axis:
    """The direction from negative to positive states.

    Args:
        method: "difference" of means; "pca", the first principal component of all states; "paired-pca", that of the
            differences of pairs, not centred, since their mean is the signal (RepE, Zou et al., arXiv 2310.01405, has them
            in random order, which comes to the same); "logistic" regression; "mass-mean", the inverse covariance within
            the sets times the difference of means (Marks and Tegmark, arXiv 2310.06824; linear discriminant).
        l2: of the logistic probe only.

    Raises:
        BadOption: no such method, or a penalty that is not positive.
        BadPairs: both sides have one mean, or a paired method is given sets of unequal size.
    """
    if method not in METHODS:
        raise BadOption(f"method {method!r}", "no such method", nearest=nearest(method, METHODS) or tuple(METHODS))
    if float(difference(positive, negative).norm()) == 0:
        step = "give texts that differ where they are read, or read them otherwise"
        raise BadPairs(f"a direction by {method}", "the states of both sides have the same mean", next_step=step)
    if method == "logistic":
        return logistic(positive, negative, l2=l2)
    raw = METHODS[method](positive, negative)
    return along(raw / raw.norm(), positive, negative)


def along(vector: Float64[Tensor, " feature"], positive: High, negative: Low) -> Axis:
    """The logistic law along a unit vector, if projections are normal with one variance: slope = difference / variance."""
    high, low = positive @ vector, negative @ vector
    gap = float(high.mean() - low.mean())
    n_free = max(1, len(high) + len(low) - 2)
    variance = float((high - high.mean()).square().sum() + (low - low.mean()).square().sum()) / n_free
    floor = (gap / 10) ** 2  # a few texts may have no spread at all
    slope = max(0.0, gap) / max(variance, floor) if gap else 0.0
    return Axis(vector, slope, float(high.mean() + low.mean()) / 2)


def difference(positive: High, negative: Low) -> Float64[Tensor, " feature"]:
    """Mean of the positive minus mean of the negative states."""
    return positive.mean(0) - negative.mean(0)


def pca(positive: High, negative: Low) -> Float64[Tensor, " feature"]:
    """First principal component of all states about their mean, its sign by the labels."""
    states = torch.cat([positive, negative])
    return _signed(_first(states - states.mean(0)), difference(positive, negative))


def paired_pca(positive: High, negative: Low) -> Float64[Tensor, " feature"]:
    """First principal component of the differences of pairs about 0, its sign by their mean."""
    if len(positive) != len(negative):
        found = f"{len(positive)} positive and {len(negative)} negative states"
        raise BadPairs("paired-pca", found, next_step="give pairs: the i-th of both sides belong together")
    differences = positive - negative
    return _signed(_first(differences), differences.mean(0))


def mass_mean(positive: High, negative: Low) -> Float64[Tensor, " feature"]:
    """Σ⁻¹ (difference of means), Σ the covariance within the sets, shrunk as by Chen et al. (arXiv 0907.4698, OAS)."""
    within = torch.cat([positive - positive.mean(0), negative - negative.mean(0)])
    covariance = within.T @ within / len(within)
    size = float(covariance.diagonal().mean())
    if size == 0:  # one text on either side: no spread to correct for
        return difference(positive, negative)
    share = oas_shrinkage(covariance, len(within))
    shrunk = (1 - share) * covariance + share * size * torch.eye(len(covariance), dtype=covariance.dtype)
    solved: Tensor = torch.linalg.solve(shrunk, difference(positive, negative))
    return solved


def oas_shrinkage(covariance: Float64[Tensor, "feature feature"], n: int) -> float:
    """How far to shrink a covariance of n states towards a multiple of the identity, in [0, 1] (arXiv 0907.4698, eq. 23)."""
    n_dims = len(covariance)
    square, trace_square = float(covariance.square().sum()), float(covariance.trace()) ** 2
    numerator = (1 - 2 / n_dims) * square + trace_square
    denominator = (n + 1 - 2 / n_dims) * (square - trace_square / n_dims)
    return 1.0 if denominator <= 0 else min(1.0, numerator / denominator)


def logistic(positive: High, negative: Low, *, l2: float = L2) -> Axis:
    """Logistic regression: mean cross-entropy plus l2/2 |w|², by L-BFGS. Sides count the same, however many they are.

    States are centred and divided by their root mean square, so that l2 means the same at every layer; the bias is free.

    Raises:
        BadOption: l2 is not a positive number: of states that can be told apart the weights would grow without end.
    """
    if not (l2 > 0 and math.isfinite(l2)):
        raise BadOption(f"l2={l2}", "not a positive number", nearest=(f"{L2}",))
    centre = (positive.mean(0) + negative.mean(0)) / 2
    scale = float(torch.cat([positive - centre, negative - centre]).square().mean().sqrt())
    weight, bias = _minimum((positive - centre) / scale, (negative - centre) / scale, l2)
    norm = float(weight.norm())
    vector = weight / norm
    return Axis(vector, norm / scale, float(centre @ vector) - bias * scale / norm)


def _minimum(positive: High, negative: Low, l2: float) -> tuple[Float64[Tensor, " feature"], float]:
    weight = torch.zeros(positive.shape[1], dtype=positive.dtype, requires_grad=True)
    bias = torch.zeros((), dtype=positive.dtype, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        solver.zero_grad()
        missed = nn.functional.softplus(-(positive @ weight + bias)).mean()
        falsely = nn.functional.softplus(negative @ weight + bias).mean()
        total = (missed + falsely) / 2 + l2 / 2 * weight.square().sum()
        total.backward()
        return float(total.detach())

    with torch.enable_grad():
        solver.step(loss)
    return weight.detach(), float(bias.detach())


def _first(rows: Float64[Tensor, "row feature"]) -> Float64[Tensor, " feature"]:
    """The direction in which rows are largest."""
    if float(rows.square().sum()) == 0:
        return torch.zeros(rows.shape[1], dtype=rows.dtype)
    first: Tensor = torch.linalg.svd(rows, full_matrices=False).Vh[0]
    return first


def _signed(vector: Tensor, towards: Tensor) -> Tensor:
    return -vector if float(vector @ towards) < 0 else vector


METHODS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "difference": difference, "pca": pca, "paired-pca": paired_pca, "mass-mean": mass_mean,
    "logistic": lambda positive, negative: logistic(positive, negative).vector,
}  # fmt: skip
"""Ways to find a direction, by name."""


def separation(positive: Float64[Tensor, " positive"], negative: Float64[Tensor, " negative"]) -> float:
    """Share of pairs in which the positive score is the higher one, ties counting 1/2: the area under the ROC curve.

    1 tells the sides apart, .5 is chance, 0 tells them apart the wrong way round.
    """
    pairs = positive[:, None] - negative[None, :]
    return float(((pairs > 0).double() + (pairs == 0).double() / 2).mean())


def chance_level(n_positive: int, n_negative: int) -> float:
    """The separation that scores without information reach in one of twenty cases (Mann-Whitney, normal limit)."""
    deviation = math.sqrt((n_positive + n_negative + 1) / (12 * n_positive * n_negative))
    return min(1.0, 0.5 + 1.645 * deviation)
