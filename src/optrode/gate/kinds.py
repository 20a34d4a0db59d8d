"""The functions that users call to make gates: one per actuator, and resample ablation."""

import math
from collections.abc import Callable
from typing import Any, Final, Literal

import torch
from torch import Tensor

from optrode.errors import BadGate, GateNotFinite, nearest
from optrode.gate.actuators import Add, Affine, Clamp, Mean, Patch, ProjectOut, Scale, Source, Zero
from optrode.gate.gate import WORLDS, Actuator, Gate, Scope
from optrode.model.names import SiteName, parse
from optrode.site.recording import Recording


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
