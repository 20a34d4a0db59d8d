"""Maps of activations as actuators: one weight and bias per feature, a map of low rank, a factor per head.

A gate's strength interpolates: at strength s the site becomes (1 - s) h + s f(h). What the maps are is data; they are
learned in `control`.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.axes import BATCH, HEAD, POS
from optrode.errors import BadGate, GateNotFinite, GateShape
from optrode.gate.gate import Actuator, Gate
from optrode.gate.kinds import gate_of
from optrode.model.names import SiteName
from optrode.site.site import Moment, Site


@final
@dataclass(frozen=True, eq=False)
class Rescale(Actuator):
    """f(h) = w h + b, feature by feature; features that lie outside [low, high] are left as they are.

    Attributes:
        weight, bias: [feature], or [head, feature] where the site has heads.
        low, high: the support, in the same shape; None for no bound on that side.
    """

    is_pointwise = True

    weight: Float[Tensor, "*feature"]
    bias: Float[Tensor, "*feature"]
    low: Float[Tensor, "*feature"] | None = None
    high: Float[Tensor, "*feature"] | None = None

    def __str__(self) -> str:
        within = "" if self.low is None and self.high is None else " within a support"
        return f"rescale {tuple(self.weight.shape)}{within}"

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        return tuple(part for part in (self.weight, self.bias, self.low, self.high) if part is not None)

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        for part in self.tensors(site):
            _check_fits(part, h, site)
        mapped = self.weight * h + self.bias
        if self.low is None and self.high is None:
            return mapped
        inside = torch.ones_like(h, dtype=torch.bool)
        inside = inside if self.low is None else inside & (h >= self.low)
        inside = inside if self.high is None else inside & (h <= self.high)
        return torch.where(inside, mapped, h)


@final
@dataclass(frozen=True, eq=False)
class LowRank(Actuator):
    """f(h) = h + U^T (V h + c): a change within a few directions, decided by a few others.

    Attributes:
        up: U [rank, feature], the directions in which h is changed.
        down: V [rank, feature], what decides by how much.
        offset: c [rank], or None for 0.
    """

    is_pointwise = True

    up: Float[Tensor, "rank feature"]
    down: Float[Tensor, "rank feature"]
    offset: Float[Tensor, " rank"] | None = None

    def __str__(self) -> str:
        return f"map of rank {len(self.up)}"

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        # the offset has an axis of its own, shown as one that fits every width
        return (self.up, self.down) if self.offset is None else (self.up, self.down, self.offset[:, None])

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        if self.up.shape[-1] != h.shape[-1]:
            raise _misfit(self.up, h, site)
        read = torch.nn.functional.linear(h, self.down, self.offset)
        changed: Tensor = h + read @ self.up
        return changed


@final
@dataclass(frozen=True, eq=False)
class ScaleHeads(Actuator):
    """f(h) = a h, with a factor for each head.

    Attributes:
        factors: a [head].
    """

    is_pointwise = True

    factors: Float[Tensor, " head"]

    def __str__(self) -> str:
        return f"scale {len(self.factors)} heads"

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        return (self.factors[:, None],)

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        axes = site.axes(h.dim())
        at = axes.index(HEAD) if HEAD in axes else None
        if at is None or h.shape[at] != len(self.factors):
            has = "no heads" if at is None else f"{h.shape[at]} heads"
            asked = f"factors for {len(self.factors)} heads at {site.name}"
            raise GateShape(asked, f"the site has {has}", next_step="give one factor per head, at a site like attn.z")
        return h * self.factors.reshape(-1, *(1,) * (h.dim() - 1 - at))


def rescale(
    site: str | SiteName, weight: Tensor, bias: Tensor, *, low: Tensor | None = None, high: Tensor | None = None,
    **options: Any,
) -> Gate:  # fmt: skip
    """Apply h -> w h + b, feature by feature: the map of Linear-AcT (arXiv 2410.23054) and LinEAS (arXiv 2503.10679).

    Options of every gate, among them `strength`: the lambda in [0, 1] that goes from nothing to the whole map.

    Args:
        weight, bias: [feature], or [head, feature] where the site has heads.
        low, high: [feature] between which a feature is mapped; outside it is left alone.

    Raises:
        BadGate: the parts are no tensors, differ in shape, or the support is empty somewhere.
    """
    parts = [part for part in (weight, bias, low, high) if part is not None]
    _check_tensors("rescale", site, parts)
    if any(part.shape != weight.shape for part in parts):
        found = f"its parts have the shapes {', '.join(str(tuple(part.shape)) for part in parts)}"
        raise BadGate(f"rescale at {site}", found, next_step="give weight, bias, low and high in one shape, [feature]")
    if low is not None and high is not None and bool((low > high).any()):
        found = f"low is above high for {int((low > high).sum())} feature(s)"
        raise BadGate(f"rescale at {site}", found, next_step="swap them")
    return gate_of(site, Rescale(weight, bias, low, high), **options)


def low_rank(site: str | SiteName, rotation: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Gate:
    """Apply h -> h + R^T (W h + b - R h): within the rows of R, h becomes W h + b (LoReFT, Wu et al., arXiv 2404.03592).

    Args:
        rotation: R [rank, feature], of orthonormal rows: otherwise R f(h) is not W h + b.
        weight: W [rank, feature].
        bias: b [rank].

    Raises:
        BadGate: the parts are no tensors, or do not fit each other, or the rows of R are not orthonormal to 1e-4.
    """
    _check_tensors("low_rank", site, [part for part in (rotation, weight, bias) if part is not None])
    _check_pair("low_rank", site, rotation, weight, bias)
    _check_orthonormal(site, rotation)
    return gate_of(site, LowRank(rotation, weight - rotation, bias), **options)


def membrane(site: str | SiteName, down: Tensor, up: Tensor, **options: Any) -> Gate:
    """Apply h -> h + U^T V h: a membrane of low rank, mostly of rank 1, that lets one thing through less or more.

    A one-dimensional SPM (Lyu et al., arXiv 2312.16145) is `membrane(site, a, b)`: h + b (a . h). Its strength is the
    permeability that something else decides.

    Args:
        down: V [rank, feature], or [feature] for rank 1: what is read.
        up: U in the same shape: where it is written.

    Raises:
        BadGate: the parts are no tensors, or do not fit each other.
    """
    _check_tensors("membrane", site, [down, up])
    down, up = torch.atleast_2d(down), torch.atleast_2d(up)
    _check_pair("membrane", site, up, down, None)
    return gate_of(site, LowRank(up, down), **options)


def scale_heads(site: str | SiteName, factors: Tensor, **options: Any) -> Gate:
    """Multiply each head by a factor of its own: 1 leaves a head alone, 0 silences it.

    Args:
        site: that has heads, like "blocks.3.attn.z".
        factors: [head].

    Raises:
        BadGate: the factors are no tensor of one axis.
    """
    _check_tensors("scale_heads", site, [factors])
    if factors.dim() != 1:
        found = f"the factors have the shape {tuple(factors.shape)}"
        raise BadGate(f"scale_heads at {site}", found, next_step="give one number per head, [head]")
    return gate_of(site, ScaleHeads(factors), **options)


def _check_tensors(what: str, site: str | SiteName, parts: list[Tensor]) -> None:
    for part in parts:
        if not isinstance(part, Tensor) or not part.is_floating_point():
            kind = part.dtype if isinstance(part, Tensor) else type(part).__name__
            step = "wrap it: torch.as_tensor(value, dtype=model.dtype)"
            raise BadGate(f"{what} at {site}", f"a part of it is of type {kind}, not a tensor of numbers", next_step=step)
        if not bool(torch.isfinite(part.detach()).all()):
            step = "find out where they come from; None stands for a support without a bound"
            raise GateNotFinite(f"{what} at {site}", "a part of it holds NaN or infinity", next_step=step)


def _check_pair(what: str, site: str | SiteName, up: Tensor, down: Tensor, offset: Tensor | None) -> None:
    fits = up.dim() == 2 and up.shape == down.shape and (offset is None or offset.shape == up.shape[:1])
    if not fits:
        shapes = ", ".join(str(tuple(part.shape)) for part in (up, down, offset) if part is not None)
        step = "give both as [rank, feature], and the bias as [rank]"
        raise BadGate(f"{what} at {site}", f"its parts have the shapes {shapes}", next_step=step)


def _check_orthonormal(site: str | SiteName, rotation: Tensor) -> None:
    rows = rotation.detach().double()
    off = float((rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).abs().max())
    if off > (1e-2 if rotation.dtype in (torch.bfloat16, torch.float16) else 1e-4):
        step = "make them so, as by torch.linalg.qr(rotation.T).Q.T, or use op.membrane, which asks nothing of its rows"
        raise BadGate(f"low_rank at {site}", f"the rows of R are off orthonormal by {off:.2g}", next_step=step)


def _check_fits(part: Tensor, h: Tensor, site: Site) -> None:
    """A map is of features: it has no axis of rows or positions, and its last ones are the site's."""
    axes = site.axes(h.dim())
    n_own = h.dim() - 1 - max((axes.index(axis) for axis in (BATCH, POS) if axis in axes), default=-1)
    is_part = part.dim() <= n_own and all(a in (1, b) for a, b in zip(part.shape[::-1], h.shape[::-1], strict=False))
    if not is_part:
        raise _misfit(part, h, site)


def _misfit(part: Tensor, h: Tensor, site: Site) -> GateShape:
    axes = ", ".join(f"{axis} {n}" for axis, n in zip(site.axes(h.dim()), h.shape, strict=True))
    found = f"the site has the shape {tuple(h.shape)} ({axes})"
    return GateShape(f"map of shape {tuple(part.shape)} at {site.name}", found, next_step="give one that fits its features")
