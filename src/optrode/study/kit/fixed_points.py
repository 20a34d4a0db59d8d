"""Fixed points of a map h -> F(h), and how the map acts near a point.

Fixed points are minima at zero of the speed q(h) = |F(h) - h|^2 / 2 (Sussillo and Barak, Neural Computation 2013): descended
from many starts with Adam, and made exact with Newton steps where these help.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from optrode.errors import BadOption

Map = Callable[[Tensor], Tensor]
"""[..., unit] -> [..., unit], the same for each row."""


@final
@dataclass(frozen=True, eq=False)
class FixedPoints:
    """What a search found.

    Attributes:
        points: [point, unit], no two nearer than the search's tolerance, the one that most starts led to first.
        n_starts: [point] starts that led there.
        n_lost: starts that led to no fixed point.
    """

    points: Tensor
    n_starts: tuple[int, ...]
    n_lost: int


def find_fixed_points(
    function: Map, starts: Float[Tensor, "start unit"], *, n_steps: int = 500, lr: float = 0.05, tolerance: float = 1e-2
) -> FixedPoints:  # fmt: skip
    """Fixed points that a search from some starts leads to.

    Args:
        n_steps, lr: of Adam; the step size falls to 0.
        tolerance: points are one when nearer than this share of the mean start's size, and fixed when they move less than
            a tenth of that in a step.

    Raises:
        BadOption: there is no start.
    """
    if not len(starts):
        raise BadOption("fixed points", "there is no start", next_step="give states [start, unit] to search from")
    size = tolerance * float(starts.norm(dim=1).mean()) + 1e-12
    ends = _descend(function, starts, n_steps, lr)
    for _ in range(3):
        ends = _newton(function, ends)
    is_fixed = _speed(function, ends) < (size / 10) ** 2 / 2
    return _distinct(ends[is_fixed], size, int((~is_fixed).sum()))


def jacobians(function: Map, points: Float[Tensor, "point unit"]) -> Float[Tensor, "point unit unit"]:
    """Of the map at points: [point, output unit, input unit]."""
    found: Tensor = torch.func.vmap(torch.func.jacrev(function))(points)
    return found


def n_unstable(eigenvalues: Complex[Tensor, "point unit"]) -> Float[Tensor, " point"]:
    """Directions in which a small difference grows from step to step: eigenvalues of size above 1."""
    return (eigenvalues.abs() > 1).sum(1).double()


def rates(eigenvalues: Complex[Tensor, "point unit"]) -> Complex[Tensor, "point unit"]:
    """Moebius map (l - 1) / (l + 1) of a map's eigenvalues: the real part is above 0 exactly where |l| > 1."""
    return (eigenvalues - 1) / (eigenvalues + 1)


def _speed(function: Map, points: Tensor) -> Tensor:
    """The speed q of each point."""
    return (function(points) - points).square().sum(1) / 2


@torch.enable_grad()
def _descend(function: Map, starts: Tensor, n_steps: int, lr: float) -> Tensor:
    points = starts.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([points], lr=lr)
    for step in range(n_steps):
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / n_steps)) / 2
        (points.grad,) = torch.autograd.grad(_speed(function, points).sum(), points)
        optimizer.step()
    return points.detach()


@torch.no_grad()
def _newton(function: Map, points: Tensor) -> Tensor:
    """Replace h by h - (J - 1)^-1 (F(h) - h), where that is slower."""
    with torch.enable_grad():
        slopes = jacobians(function, points).detach() - torch.eye(points.shape[1], dtype=points.dtype)
    new = points - torch.linalg.lstsq(slopes, (function(points) - points)[..., None]).solution[..., 0]
    helps = _speed(function, new) < _speed(function, points)
    return torch.where(helps[:, None], new, points)


def _distinct(ends: Tensor, size: float, n_lost: int) -> FixedPoints:
    groups: list[list[Tensor]] = []
    for end in ends:
        near = next((group for group in groups if float((group[0] - end).norm()) < size), None)
        if near is None:
            groups.append([end])
        else:
            near.append(end)
    groups.sort(key=len, reverse=True)
    points = torch.stack([group[0] for group in groups]) if groups else ends[:0]
    return FixedPoints(points, tuple(map(len, groups)), n_lost)
