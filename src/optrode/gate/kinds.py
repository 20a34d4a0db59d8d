"""The actuators, and the functions that users call to make gates of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from optrode.axes import BATCH, POS
from optrode.errors import BadGate, GateNotFinite, GateShape, nearest
from optrode.gate.gate import WORLDS, Actuator, Gate, Scope
from optrode.model.names import SiteName, parse
from optrode.site.recording import Recording
from optrode.site.site import Moment, Site

Source = str | Recording | Tensor


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

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        return _source_tensors(self.source, site)

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        if isinstance(self.source, Recording):
            return _from_recording(self.source[site.name.whole], h, site, moment)
        return _broadcast(_tensor_of(self.source, site), h, site)


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
            return _broadcast(_tensor_of(self.source, site), h, site)
        held = self.source[site.name.whole]
        axes = site.axes(held.dim())
        mean = _row_mean(held, self.source.lengths, axes, self.over)
        if POS in axes and mean.shape[axes.index(POS)] > 1:
            return _from_recording(mean.expand(h.shape[0], *mean.shape[1:]), h, site, moment)
        return _broadcast(mean.squeeze(1) if mean.dim() > h.dim() else mean, h, site)


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
        return _broadcast(self.value, h, site) if isinstance(self.value, Tensor) else torch.full_like(h, self.value)


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
        return h + _broadcast(self.vector, h, site)


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
            raise _wrong_shape(directions, h, site)
        basis = torch.linalg.qr(directions.T).Q
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
            raise _wrong_shape(self.weight, h, site)
        mapped: Tensor = torch.nn.functional.linear(h, self.weight, self.bias)
        return mapped


def zero(site: str | SiteName, **options: Any) -> Gate:
    """Zero ablation. Options of every gate: strength, scope, detach, each."""
    return _gate(site, Zero(), **options)


def patch(site: str | SiteName, source: Source = "clean", **options: Any) -> Gate:
    """Activation patching: put in what another run had.

    Args:
        source: "clean" or "corrupt" (a task's worlds), a Recording, or a tensor of the site's shape.

    Raises:
        GateNotFinite: a tensor holds NaN or infinity.
    """
    return _gate(site, Patch(_check_source(source)), **options)


def resample(site: str | SiteName, source: Source = "corrupt", **options: Any) -> Gate:
    """Resample ablation: patch from the corrupt world (or another source)."""
    return patch(site, source, **options)


def mean(
    site: str | SiteName, source: Source = "clean", *, over: Literal["rows", "all"] = "rows", **options: Any
) -> Gate:
    """Mean ablation: the mean over a world's or recording's rows, at each position or over all of them."""
    if over not in ("rows", "all"):
        raise BadGate(f"mean over={over!r} at {site}", "not a way to average", nearest=("rows", "all"))
    return _gate(site, Mean(_check_source(source), over), **options)


def clamp(
    site: str | SiteName, value: float | Tensor | None = None, *, low: float | None = None, high: float | None = None,
    **options: Any,
) -> Gate:  # fmt: skip
    """Hold a site at a value, or within bounds."""
    if (value is None) == (low is None and high is None):
        found = "it needs either a value, or bounds low and high"
        raise BadGate(f"clamp at {site}", found, next_step="write op.clamp(site, 0.5) or op.clamp(site, low=-1, high=1)")
    if low is not None and high is not None and low > high:
        raise BadGate(f"clamp at {site}", f"low={low:g} is above high={high:g}", next_step="swap them")
    _check_tensor("clamp", site, value, may_be_number=True)
    return _gate(site, Clamp(value, low, high), **options)


def add(site: str | SiteName, vector: Tensor, **options: Any) -> Gate:
    """Add a vector, such as a steering vector [feature]; `strength` is the dose."""
    _check_tensor("add", site, vector)
    return _gate(site, Add(vector), **options)


def scale(site: str | SiteName, factor: float, **options: Any) -> Gate:
    """Multiply by a number."""
    return _gate(site, Scale(factor), **options)


def project_out(site: str | SiteName, directions: Tensor, **options: Any) -> Gate:
    """Remove the component along one direction [feature] or several [n, feature].

    Raises:
        BadGate: a direction is zero, or a combination of the others, so that what is removed is not defined.
    """
    _check_tensor("project_out", site, directions)
    _check_rank(site, directions)
    return _gate(site, ProjectOut(directions), **options)


def affine(site: str | SiteName, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Gate:
    """Apply h -> W h + b, W of shape [feature, feature]."""
    for value in (weight,) if bias is None else (weight, bias):
        _check_tensor("affine", site, value)
    return _gate(site, Affine(weight, bias), **options)


OPTIONS: Final = ("strength", "scope", "detach", "each")
"""Keyword arguments that every gate takes."""

KINDS: dict[str, Callable[..., Gate]] = {"zero": zero, "mean": mean, "resample": resample, "patch": patch}
"""Ablations that need nothing but a task, by the names the command line takes."""


def _gate(
    site: str | SiteName, actuator: Actuator, *, strength: float = 1.0, scope: Scope = "all", detach: bool = False,
    each: str | tuple[str, ...] = (), **unknown: Any,
) -> Gate:  # fmt: skip
    if unknown:
        name = next(iter(unknown))
        raise BadGate(f"option {name}= of {actuator} at {site}", "no such option", nearest=nearest(name, OPTIONS) or OPTIONS)
    for number in (strength, *(getattr(actuator, part, None) for part in ("factor", "value", "low", "high"))):
        if isinstance(number, (int, float)) and not math.isfinite(number):
            raise GateNotFinite(f"{actuator} at {site}", f"{number} is not a finite number", next_step="give a finite one")
    where = parse(site) if isinstance(site, str) else site
    return Gate(where, actuator, strength, scope, detach, (each,) if isinstance(each, str) else tuple(each))


def _check_source(source: Source) -> Source:
    if isinstance(source, str) and source not in WORLDS:
        raise BadGate(
            f"source {source!r}", "not a world", nearest=nearest(source, WORLDS) or WORLDS,
            next_step="give 'clean', 'corrupt', a Recording or a tensor",
        )  # fmt: skip
    if not isinstance(source, (str, Recording, Tensor)):
        raise BadGate(
            f"source of type {type(source).__name__}", "a gate takes its values from a world, a Recording or a tensor",
            next_step="give 'clean', 'corrupt', a Recording or a tensor",
        )  # fmt: skip
    return source


def _check_tensor(what: str, site: str | SiteName, value: object, *, may_be_number: bool = False) -> None:
    if isinstance(value, Tensor) or may_be_number and (value is None or isinstance(value, (int, float))):
        return
    found = f"its value is of type {type(value).__name__}, not a tensor"
    raise BadGate(f"{what} at {site}", found, next_step="wrap it: torch.as_tensor(value, dtype=model.dtype)")


def _check_rank(site: str | SiteName, directions: Tensor) -> None:
    """Zero or dependent directions would take arbitrary others out: a QR completes them with any vector."""
    rows = torch.atleast_2d(directions.detach())
    if rows.is_meta or rows.dim() > 2 or not rows.is_floating_point() or not bool(torch.isfinite(rows).all()):
        return  # what else is wrong with them is said when the gate is placed
    rank = int(torch.linalg.matrix_rank(rows.double()))
    if rank < len(rows):
        raise BadGate(
            f"project_out at {site}", f"{len(rows)} direction(s) span only {rank} dimension(s)",
            next_step="leave out directions that are zero or combinations of others",
        )  # fmt: skip


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
    return source if isinstance(source, str) else "a recording" if isinstance(source, Recording) else _print_value(source)


def _print_value(value: float | Tensor) -> str:
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value:g}"


def _broadcast(value: Tensor, h: Tensor, site: Site) -> Tensor:
    try:
        return value.expand(h.shape)
    except RuntimeError:
        raise _wrong_shape(value, h, site) from None


def _wrong_shape(value: Tensor, h: Tensor, site: Site) -> GateShape:
    axes = ", ".join(f"{axis} {n}" for axis, n in zip(site.axes(h.dim()), h.shape, strict=True))
    return GateShape(
        f"value of shape {tuple(value.shape)} at {site.name}", f"the site has the shape {tuple(h.shape)} ({axes})",
        next_step="give a value that broadcasts to it",
    )  # fmt: skip


def _from_recording(held: Tensor, h: Tensor, site: Site, moment: Moment) -> Tensor:
    """The recorded value of each row and position; h itself beyond the recording's end."""
    axes = site.axes(h.dim())
    if POS not in axes and held.dim() == h.dim() + 1:  # a recurrent cell, recorded along its calls
        return _broadcast(held[:, moment.call_ix], h, site) if moment.call_ix < held.shape[1] else h
    if held.shape == h.shape and (POS not in axes or _starts_at_zero(moment, h, axes)):
        return held
    fits = held.dim() == h.dim() and POS in axes and all(
        a == b for axis, a, b in zip(axes, held.shape, h.shape, strict=True) if axis not in (POS, "src")
    )  # fmt: skip
    if not fits or held.shape[-1] != h.shape[-1]:
        raise _wrong_shape(held, h, site)
    at = axes.index(POS)
    positions = moment.positions(h.shape[0], h.shape[at], h.device)
    known = (positions >= 0) & (positions < held.shape[at])
    rows = torch.arange(h.shape[0], device=h.device)[:, None]
    picked = held.movedim(at, 1)[rows, positions.clamp(0, held.shape[at] - 1)].movedim(1, at)
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
