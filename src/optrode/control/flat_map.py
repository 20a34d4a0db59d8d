"""Gates as maps h -> W h + b over the whole last axis of a module's tensor: what can be moved into weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optrode.axes import FEATURE, HEAD, POS
from optrode.errors import BadGate
from optrode.gate.actuators import Add, Affine, Clamp, ProjectOut, Scale, Zero
from optrode.gate.gate import Actuator, Gate
from optrode.gate.maps import LowRank, Rescale, ScaleHeads
from optrode.site.site import Site, indices, split


@final
@dataclass(frozen=True, eq=False)
class FlatMap:
    """h -> W h + b, in float64 on the CPU.

    Attributes:
        weight: W [wide, wide], or its diagonal [wide].
        bias: b [wide].
    """

    weight: Float[Tensor, "wide"] | Float[Tensor, "wide wide"]
    bias: Float[Tensor, " wide"]

    @property
    def is_shift(self) -> bool:
        """Whether only something is added."""
        return self.weight.dim() == 1 and bool((self.weight == 1).all())

    @property
    def is_scaling(self) -> bool:
        """Whether each feature is only multiplied by a number."""
        return self.weight.dim() == 1 and not bool(self.bias.any())

    def after(self, weight: Float[Tensor, "wide n"]) -> Float[Tensor, "wide n"]:
        """W times a matrix whose rows are what h is made of."""
        return self.weight[:, None] * weight if self.weight.dim() == 1 else self.weight @ weight

    def before(self, weight: Float[Tensor, "n wide"]) -> Float[Tensor, "n wide"]:
        """A matrix that reads h, times W."""
        return weight * self.weight if self.weight.dim() == 1 else weight @ self.weight


@final
@dataclass(frozen=True, eq=False)
class _Local:
    """f on the site's own features: a factor for each of them, or one matrix on the last axis; and what is added.

    Attributes:
        diagonal, bias: in the shape of the site's features.
        matrix: [feature, feature], or None where each feature keeps to itself.
    """

    diagonal: Float[Tensor, "*feature"]
    bias: Float[Tensor, "*feature"]
    matrix: Float[Tensor, "own own"] | None = None


def flat_map(gate: Gate, site: Site, width: int) -> FlatMap:
    """The map that an unconditional linear gate makes of a module's tensor [..., width] at a site.

    Raises:
        BadGate: the gate is conditional, not linear, or differs from position to position; the message says which.
    """
    refuse_conditional(gate, site)
    place = split(torch.arange(width), site.place.view)
    ones = torch.ones(place.shape, dtype=torch.float64)
    reason = _why_not(gate.actuator, ones)
    if reason:
        raise BadGate(_asked(gate, site), reason, next_step="hold it with op.gates instead")
    try:
        local = _LOCAL[type(gate.actuator)](gate.actuator, ones)
        return _flat(local, float(gate.strength), place, _selected(gate, site, place), width)
    except RuntimeError:
        found = "its value has an entry for each row or position, or does not fit the site"
        raise BadGate(_asked(gate, site), found, next_step="give one value [feature] for all of them") from None


def refuse_conditional(gate: Gate, site: Site) -> None:
    """Weights act in every row and at every position, always."""
    limits = {
        f"scope={gate.scope!r}": gate.scope != "all", "openness=": gate.openness is not None, "when=": gate.when is not None,
        "rows=": gate.rows is not None, "each=": bool(gate.each), "pos=": site.name.index(POS) is not None,
    }  # fmt: skip
    found = [name for name, is_set in limits.items() if is_set]
    if found:
        reason = f"it has {found[0]}, and weights act in every row, at every position, always"
        raise BadGate(_asked(gate, site), reason, next_step="hold it with op.gates, or leave that out and measure it again")


def _asked(gate: Gate, site: Site) -> str:
    return f"into weights: {gate.at(site.name)}"


def _selected(gate: Gate, site: Site, place: Int[Tensor, "*feature"]) -> Bool[Tensor, "*feature"]:
    """Which of the site's features the name selects."""
    axes = (FEATURE,) if place.dim() == 1 else (HEAD, FEATURE)
    chosen = torch.ones_like(place, dtype=torch.bool)
    for axis, index in site.name.select:
        if axis not in axes:
            found = f"it selects on {axis}, and weights know only {' and '.join(axes)} there"
            raise BadGate(_asked(gate, site), found, next_step="hold it with op.gates, or leave that out")
        at = axes.index(axis)
        hit = torch.zeros(place.shape[at], dtype=torch.bool)
        hit[list(indices(site.name, axis, index, place.shape[at]))] = True
        chosen = chosen & hit.reshape([-1 if d == at else 1 for d in range(place.dim())])
    return chosen


def _flat(
    local: _Local, dose: float, place: Int[Tensor, "*feature"], is_in: Bool[Tensor, "*feature"], width: int
) -> FlatMap:
    """The site's map as one of the module's whole tensor: the rest of it, and what is not selected, stays."""
    shift = torch.zeros(width, dtype=torch.float64)
    shift[place] = torch.where(is_in, dose * local.bias, 0.0)
    if local.matrix is None:
        diagonal = torch.ones(width, dtype=torch.float64)
        diagonal[place] = torch.where(is_in, 1 + dose * (local.diagonal - 1), 1.0)
        return FlatMap(diagonal, shift)
    own, whole = torch.eye(place.shape[-1], dtype=torch.float64), torch.eye(width, dtype=torch.float64)
    changed = own + dose * (local.matrix - own)
    for at, hit in zip(torch.atleast_2d(place), torch.atleast_2d(is_in), strict=True):
        whole[at[:, None], at[None, :]] = torch.where(hit[:, None], changed, own)
    return FlatMap(whole, shift)


def _spread(value: Tensor | float | int, ones: Tensor) -> Tensor:
    """A gate's value in the shape of the site's features; RuntimeError where it has further axes of its own."""
    value = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    while value.dim() > ones.dim() and len(value) == 1:
        value = value[0]
    return value.expand(ones.shape).clone()


def _constant(value: Tensor | float | int | None, ones: Tensor) -> _Local:
    return _Local(torch.zeros_like(ones), _spread(0.0 if value is None else value, ones))


def _why_not(actuator: Actuator, ones: Tensor) -> str:
    """Why an actuator is no linear map; empty where it is one."""
    if type(actuator) not in _LOCAL:
        return "what it does is no linear map of the site's features"
    if isinstance(actuator, Clamp) and actuator.value is None:
        return "holding a site within bounds is not linear"
    if isinstance(actuator, Rescale) and not (actuator.low is None and actuator.high is None):
        return "it acts only within a support, which is not linear"
    return "the site has no heads" if isinstance(actuator, ScaleHeads) and ones.dim() != 2 else ""


def _project_out(actuator: ProjectOut, ones: Tensor) -> _Local:
    basis = torch.linalg.qr(torch.atleast_2d(actuator.directions).detach().cpu().double().T).Q
    return _Local(ones, torch.zeros_like(ones), torch.eye(ones.shape[-1], dtype=torch.float64) - basis @ basis.T)


def _affine(actuator: Affine, ones: Tensor) -> _Local:
    bias = 0.0 if actuator.bias is None else actuator.bias
    return _Local(ones, _spread(bias, ones), actuator.weight.detach().cpu().double())


def _low_rank(actuator: LowRank, ones: Tensor) -> _Local:
    up, down = (part.detach().cpu().double() for part in (actuator.up, actuator.down))
    shift = torch.zeros(len(up), dtype=torch.float64) if actuator.offset is None else actuator.offset.detach().cpu().double()
    return _Local(ones, _spread(shift @ up, ones), torch.eye(ones.shape[-1], dtype=torch.float64) + up.T @ down)


_LOCAL: Final[dict[type, Callable[[Any, Tensor], _Local]]] = {
    Add: lambda actuator, ones: _Local(ones, _spread(actuator.vector, ones)),
    Affine: _affine,
    Clamp: lambda actuator, ones: _constant(actuator.value, ones),
    LowRank: _low_rank,
    ProjectOut: _project_out,
    Rescale: lambda actuator, ones: _Local(_spread(actuator.weight, ones), _spread(actuator.bias, ones)),
    Scale: lambda actuator, ones: _Local(_spread(actuator.factor, ones), torch.zeros_like(ones)),
    ScaleHeads: lambda actuator, ones: _Local(_spread(actuator.factors[:, None], ones), torch.zeros_like(ones)),
    Zero: lambda actuator, ones: _constant(None, ones),
}
