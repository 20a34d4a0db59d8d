"""Sinkhorn divergence between two clouds of points, in the log domain.

It is zero for equal clouds, needs no pairing of points, and has a gradient in every point (Feydy et al., arXiv 1810.08278,
equation 3): S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2, where OT is optimal transport at cost |x - y|^2 / 2 with an
entropic penalty of eps = blur^2. Potentials f, g are found by symmetric Sinkhorn steps while eps falls to its value. Only
the last step, at the optimum, is differentiated: there the gradient of the transport is that of its cost alone.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.errors import BadOption


def sinkhorn_divergence(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], blur: float = 0.2, scaling: float = 0.5
) -> Float[Tensor, ""]:  # fmt: skip
    """Divergence of points `x`, equally weighted, from points `y`, with a gradient in both.

    Args:
        blur: square root of eps, in units of distance.
        scaling: by which the present blur shrinks at each step.

    Raises:
        BadOption: a blur of 0 or less, or a scaling outside (0, 1).
    """
    if not blur > 0 or not 0 < scaling < 1:
        found = f"blur={blur:g}, scaling={scaling:g}"
        raise BadOption("Sinkhorn divergence", found, next_step="give a blur above 0 and a scaling between 0 and 1")
    with torch.no_grad():
        f, g = _potentials(_costs(x, y), blur**2, scaling)
        f_x, g_y = (_self_potential(_costs(z, z), blur**2, scaling) for z in (x, y))
    terms = (x, y, g, 1), (y, x, f, 1), (x, x, f_x, -1), (y, y, g_y, -1)
    eps = blur**2
    return torch.stack([sign * _soft_min(_costs(a, b.detach()), dual, eps).mean() for a, b, dual, sign in terms]).sum()


def _costs(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 / 2, without the square root that would have no gradient at 0."""
    return (x.square().sum(1)[:, None] + y.square().sum(1)) / 2 - x @ y.T


def _soft_min(costs: Tensor, dual: Tensor, eps: float) -> Tensor:
    """The potential [row] that is best against another [column]: the soft minimum of cost minus it."""
    return -eps * torch.logsumexp((dual - costs) / eps - math.log(costs.shape[1]), 1)


def _blurs(costs: Tensor, eps: float, scaling: float) -> list[float]:
    """Falling values of eps, from the greatest cost on."""
    top = max(float(costs.max()), eps)
    n = math.ceil(math.log(eps / top) / (2 * math.log(scaling)))
    return [top * scaling ** (2 * ix) for ix in range(n)] + [eps]


def _potentials(costs: Tensor, eps: float, scaling: float) -> tuple[Tensor, Tensor]:
    f, g = costs.mean(1), costs.mean(0)
    for now in _blurs(costs, eps, scaling):
        new_f, new_g = _soft_min(costs, g, now), _soft_min(costs.T, f, now)
        f, g = (f + new_f) / 2, (g + new_g) / 2
    return f, g


def _self_potential(costs: Tensor, eps: float, scaling: float) -> Tensor:
    f = costs.mean(1)
    for now in _blurs(costs, eps, scaling):
        f = (f + _soft_min(costs, f, now)) / 2
    return f
