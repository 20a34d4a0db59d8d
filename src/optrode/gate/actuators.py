"""The actuators: what a gate drives a site towards, f(h)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from optrode.axes import BATCH, POS
from optrode.errors import BadGate, GateShape
from optrode.gate.gate import Actuator, Aside
from optrode.model.names import SiteName
from optrode.site.recording import Recording
from optrode.site.site import Around, Moment, Site

Source = str | Recording | Tensor | Aside
"""Where a patched value comes from: a task's world ("clean", "corrupt"), a recording, a tensor of the site's shape, or a
pass aside over the same inputs (`first_pass`, `other_model`)."""

Function = Callable[[Tensor, Around], Tensor]
"""(the site's tensor, what is known of the pass) -> the gate's value, in the shape of the first."""


@dataclass(frozen=True)
class Zero(Actuator):
    """f(h) = 0."""

    is_pointwise = True

    def __str__(self) -> str:
        return "zero"

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        return torch.zeros_like(h)


@dataclass(frozen=True, eq=False)
class Patch(Actuator):
    """f(h) = what another run had there: activation patching, or resample ablation."""

    is_pointwise = True

    source: Source

    def __str__(self) -> str:
        return f"patch from {_print_source(self.source)}"

    @property
    def world(self) -> str | None:
        return self.source if isinstance(self.source, str) else None

    def bound(self, recording: Recording) -> "Patch":
        return Patch(recording)

    @property
    def aside(self) -> Aside | None:
        return self.source if isinstance(self.source, Aside) else None

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        return () if isinstance(self.source, Aside) else _source_tensors(self.source, site)

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        if isinstance(self.source, Recording):
            return _from_recording(self.source[site.name.whole], h, site, moment)
        if isinstance(self.source, Aside):
            return _from_aside(self.source, h, site, moment)
        return _broadcast(_tensor_of(self.source, site), h, site, moment)


@dataclass(frozen=True, eq=False)
class Mean(Actuator):
    """f(h) = the mean over a recording's rows: at each position, or over all positions too ("all")."""

    is_pointwise = True

    source: Source
    over: Literal["rows", "all"] = "rows"

    def __str__(self) -> str:
        return f"mean of {_print_source(self.source)}" + (" over positions" if self.over == "all" else "")

    @property
    def world(self) -> str | None:
        return self.source if isinstance(self.source, str) else None

    def bound(self, recording: Recording) -> "Mean":
        return Mean(recording, self.over)

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        return _source_tensors(self.source, site)

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        if not isinstance(self.source, Recording):
            return _broadcast(_tensor_of(self.source, site), h, site, moment)
        held = self.source[site.name.whole]
        axes = site.axes(held.dim())
        mean = _row_mean(held, self.source.lengths, axes, self.over)
        if POS in axes and mean.shape[axes.index(POS)] > 1:
            return _from_recording(mean.expand(h.shape[0], *mean.shape[1:]), h, site, replace(moment, rows=None))
        return _broadcast(mean.squeeze(1) if mean.dim() > h.dim() else mean, h, site, moment)


@dataclass(frozen=True, eq=False)
class Clamp(Actuator):
    """f(h) = a fixed value, or h kept within bounds."""

    is_pointwise = True

    value: float | Tensor | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is not None:
            return f"clamp to {_print_value(self.value)}"
        return f"clamp to [{'-inf' if self.low is None else self.low}, {'inf' if self.high is None else self.high}]"

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        return (self.value,) if isinstance(self.value, Tensor) else ()

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        if self.value is None:
            return h.clamp(self.low, self.high)
        if isinstance(self.value, Tensor):
            return _broadcast(self.value, h, site, moment)
        return torch.full_like(h, self.value)


@dataclass(frozen=True, eq=False)
class Add(Actuator):
    """f(h) = h + v: a steering vector; its dose is the gate's strength."""

    is_pointwise = True

    vector: Tensor

    def __str__(self) -> str:
        return f"add {_print_value(self.vector)}"

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        return (self.vector,)

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        return h + _broadcast(self.vector, h, site, moment)


@dataclass(frozen=True)
class Scale(Actuator):
    """f(h) = c h."""

    is_pointwise = True

    factor: float

    def __str__(self) -> str:
        return f"scale by {self.factor:g}"

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        return h * self.factor


@dataclass(frozen=True, eq=False)
class ProjectOut(Actuator):
    """f(h) = h - U Uᵀ h for orthonormal U spanning the given directions: directional ablation."""

    is_pointwise = True

    directions: Tensor

    def __str__(self) -> str:
        return f"project out {len(torch.atleast_2d(self.directions))} direction(s)"

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        return (self.directions,)

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        directions = torch.atleast_2d(self.directions)
        if directions.dim() > 2 or directions.shape[-1] != h.shape[-1]:
            raise wrong_shape(directions, h, site)
        wide = directions.float() if directions.dtype in (torch.float16, torch.bfloat16) else directions  # no QR of half
        basis = torch.linalg.qr(wide.T).Q.to(h.dtype)
        kept: Tensor = h - (h @ basis) @ basis.T
        return kept


@dataclass(frozen=True, eq=False)
class Affine(Actuator):
    """f(h) = W h + b."""

    is_pointwise = True

    weight: Tensor
    bias: Tensor | None = None

    def __str__(self) -> str:
        return f"affine {tuple(self.weight.shape)}"

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        if self.weight.shape != (h.shape[-1], h.shape[-1]):
            raise wrong_shape(self.weight, h, site)
        mapped: Tensor = torch.nn.functional.linear(h, self.weight, self.bias)
        return mapped


@dataclass(frozen=True, eq=False)
class Compute(Actuator):
    """f(h) = whatever a function makes of h, the pass's inputs, and other sites of the same pass."""

    function: Function
    sites: tuple[SiteName, ...] = ()

    def __str__(self) -> str:
        read = f" of {', '.join(map(str, self.sites))}" if self.sites else ""
        return f"compute {getattr(self.function, '__name__', type(self.function).__name__)}{read}"

    @property
    def reads(self) -> tuple[SiteName, ...]:
        return self.sites

    @property
    def is_computed(self) -> bool:
        return True

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        if moment.around is None:
            raise _needs_holding(self, site)
        value = self.function(h, moment.around)
        if not isinstance(value, Tensor):
            found = f"its function returned {type(value).__name__}"
            raise BadGate(f"{self} at {site.name}", found, next_step="return a tensor of the site's shape")
        return _broadcast(value, h, site, moment)


def _from_aside(source: Aside, h: Tensor, site: Site, moment: Moment) -> Tensor:
    if moment.around is None:
        raise _needs_holding(Patch(source), site)
    held = moment.around.asides[id(source), str(site.name.whole)]
    if held.shape != h.shape:
        raise wrong_shape(held, h, site)
    return held


def _needs_holding(actuator: Actuator, site: Site) -> BadGate:
    found = "its value is computed from the pass under way, which a trial does not know"
    return BadGate(f"{actuator} at {site.name}", found, next_step="hold it with op.gates and run the model")


def _source_tensors(source: Source, site: Site) -> tuple[Tensor, ...]:
    if isinstance(source, Recording):
        return (source[site.name.whole],)
    return (_tensor_of(source, site),)


def _tensor_of(source: Source, site: Site) -> Tensor:
    if isinstance(source, str):
        raise BadGate(
            f"world {source!r} at {site.name}", "a world has a meaning only within a task",
            next_step="give a recording: op.patch(site, op.record(model, prompts, site))",
        )  # fmt: skip
    assert isinstance(source, Tensor)
    return source


def _print_source(source: Source) -> str:
    if isinstance(source, (str, Aside)):
        return str(source)
    return "a recording" if isinstance(source, Recording) else _print_value(source)


def _print_value(value: float | Tensor) -> str:
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value:g}"


def _broadcast(value: Tensor, h: Tensor, site: Site, moment: Moment) -> Tensor:
    try:
        if moment.rows is not None:
            value = _part(value, h, site, moment)
        return value.expand(h.shape)
    except RuntimeError:
        raise wrong_shape(value, h, site) from None


def _part(value: Tensor, h: Tensor, site: Site, moment: Moment) -> Tensor:
    """The rows and positions that come by, of a value that has an entry for each row or position of the whole run."""
    axes = site.axes(h.dim())
    value = value.reshape((1,) * (h.dim() - value.dim()) + value.shape)
    if moment.rows is not None and value.shape[0] > 1:
        value = value[moment.rows]
    at = axes.index(POS)
    if value.shape[at] == 1:
        return value
    positions = moment.positions(h.shape[0], h.shape[at], h.device)
    by_pos = value.movedim(at, 1).expand(h.shape[0], *(-1,) * (h.dim() - 1))
    return by_pos[torch.arange(h.shape[0], device=h.device)[:, None], positions].movedim(1, at)


def wrong_shape(value: Tensor, h: Tensor, site: Site) -> GateShape:
    """The error of a value that does not fit a site's tensor."""
    axes = ", ".join(f"{axis} {n}" for axis, n in zip(site.axes(h.dim()), h.shape, strict=True))
    return GateShape(
        f"value of shape {tuple(value.shape)} at {site.name}", f"the site has the shape {tuple(h.shape)} ({axes})",
        next_step="give a value that broadcasts to it",
    )  # fmt: skip


def _from_recording(held: Tensor, h: Tensor, site: Site, moment: Moment) -> Tensor:
    """The recorded value of each row and position; h itself beyond the recording's end."""
    axes = site.axes(h.dim())
    if POS not in axes and held.dim() == h.dim() + 1:  # a recurrent cell, recorded along its calls
        return _broadcast(held[:, moment.call_ix], h, site, moment) if moment.call_ix < held.shape[1] else h
    is_whole = moment.rows is None
    if is_whole and held.shape == h.shape and (POS not in axes or _starts_at_zero(moment, h, axes)):
        return held
    fits = held.dim() == h.dim() and POS in axes and all(
        a == b for axis, a, b in zip(axes, held.shape, h.shape, strict=True)
        if axis not in (POS, "src") and (is_whole or axis != BATCH)
    )  # fmt: skip
    if not fits or held.shape[-1] != h.shape[-1]:
        raise wrong_shape(held, h, site)
    at = axes.index(POS)
    positions = moment.positions(h.shape[0], h.shape[at], h.device)
    known = (positions >= 0) & (positions < held.shape[at])
    rows = torch.arange(h.shape[0], device=h.device) if moment.rows is None else moment.rows
    picked = held.movedim(at, 1)[rows[:, None], positions.clamp(0, held.shape[at] - 1)].movedim(1, at)
    shape = [1] * h.dim()
    shape[0], shape[at] = known.shape
    return torch.where(known.reshape(shape), picked, h)


def _starts_at_zero(moment: Moment, h: Tensor, axes: tuple[str, ...]) -> bool:
    n_pos = h.shape[axes.index(POS)]
    expected = torch.arange(n_pos, device=h.device)
    positions = moment.positions(h.shape[0], n_pos, h.device)
    return bool(((positions == expected) | (positions < 0)).all())


def _row_mean(held: Tensor, lengths: tuple[int, ...], axes: tuple[str, ...], over: str) -> Tensor:
    """Mean over rows (and positions), leaving out padding; kept axes have length 1."""
    if POS not in axes:
        return held.mean(0, keepdim=True)
    at = axes.index(POS)
    weight = torch.ones(held.shape[0], held.shape[at], dtype=held.dtype, device=held.device)
    if len(lengths) == held.shape[0]:
        ends = torch.tensor(lengths, device=held.device)[:, None]
        weight = (torch.arange(held.shape[at], device=held.device) < ends).to(held.dtype)
    shape = [1] * held.dim()
    shape[axes.index(BATCH)], shape[at] = weight.shape
    dims = (0, at) if over == "all" else (0,)
    total = weight.reshape(shape).sum(dims, keepdim=True).clamp(min=1)
    return (held * weight.reshape(shape)).sum(dims, keepdim=True) / total
