"""The functions that users call to make gates: one per actuator, and resample ablation."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import torch
from torch import Tensor

from optrode.errors import BadGate, GateNotFinite, nearest
from optrode.gate.actuators import Add, Affine, Clamp, Compute, Function, Mean, Patch, ProjectOut, Scale, Source, Zero
from optrode.gate.gate import WORLDS, Actuator, Aside, Gate, Scope
from optrode.gate.openness import Openness, Schedule
from optrode.model.model import Model
from optrode.model.names import SiteName, parse
from optrode.site.recording import Recording


def zero(site: str | SiteName, **options: Any) -> Gate:
    """Zero ablation. Options of every gate: strength, scope, detach, each, when, openness, rows."""
    return gate_of(site, Zero(), **options)


def patch(site: str | SiteName, source: Source = "clean", **options: Any) -> Gate:
    """Activation patching: put in what another run had.

    Args:
        source: "clean" or "corrupt" (a task's worlds), a Recording, a tensor of the site's shape, or another pass over the
            same inputs: `op.first_pass()`, `op.other_model(model)`.

    Raises:
        GateNotFinite: a tensor holds NaN or infinity.
    """
    return gate_of(site, Patch(_check_source(source)), **options)


def resample(site: str | SiteName, source: Source = "corrupt", **options: Any) -> Gate:
    """Resample ablation: patch from the corrupt world (or another source)."""
    return patch(site, source, **options)


def mean(
    site: str | SiteName, source: Source = "clean", *, over: Literal["rows", "all"] = "rows", **options: Any
) -> Gate:
    """Mean ablation: the mean over a world's or recording's rows, at each position or over all of them."""
    if over not in ("rows", "all"):
        raise BadGate(f"mean over={over!r} at {site}", "not a way to average", nearest=("rows", "all"))
    if isinstance(source, Aside):
        found = "a mean is over a recording's rows"
        raise BadGate(f"mean of {source} at {site}", found, next_step="use op.patch, or give a recording")
    return gate_of(site, Mean(_check_source(source), over), **options)


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
    return gate_of(site, Clamp(value, low, high), **options)


def add(site: str | SiteName, vector: Tensor, **options: Any) -> Gate:
    """Add a vector, such as a steering vector [feature]; `strength` is the dose."""
    _check_tensor("add", site, vector)
    return gate_of(site, Add(vector), **options)


def scale(site: str | SiteName, factor: float, **options: Any) -> Gate:
    """Multiply by a number."""
    return gate_of(site, Scale(factor), **options)


def project_out(site: str | SiteName, directions: Tensor, **options: Any) -> Gate:
    """Remove the component along one direction [feature] or several [n, feature].

    Raises:
        BadGate: a direction is zero, or a combination of the others, so that what is removed is not defined.
    """
    _check_tensor("project_out", site, directions)
    _check_rank(site, directions)
    return gate_of(site, ProjectOut(directions), **options)


def affine(site: str | SiteName, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Gate:
    """Apply h -> W h + b, W of shape [feature, feature]."""
    for value in (weight,) if bias is None else (weight, bias):
        _check_tensor("affine", site, value)
    return gate_of(site, Affine(weight, bias), **options)


def compute(site: str | SiteName, function: Function, *, reads: str | Sequence[str] = (), **options: Any) -> Gate:
    """A gate of your own: whatever a function makes of the site's tensor and of the pass under way.

    Gradients flow through what it computes unless `detach=True`.

    Args:
        function: (tensor, pass) -> tensor of the site's shape, or one that broadcasts to it. `pass.inputs` are the model's
            arguments by name, `pass["blocks.1.attn.scores"]` is what came by at a site named in `reads`.
        reads: sites, whole, that come earlier in the same pass.

    Raises:
        BadGate: the function cannot be called, or a site to read is a pattern or has a selector.
    """
    if not callable(function):
        found = f"its function is of type {type(function).__name__}"
        raise BadGate(f"compute at {site}", found, next_step="give a function of the site's tensor and the pass")
    sites = tuple(parse(name) for name in ([reads] if isinstance(reads, str) else reads))
    for name in sites:
        if name.select or name.layers is not None and name.layers.single is None:
            found = "a gate reads whole sites, one by one"
            raise BadGate(f"reads={str(name)!r} at {site}", found, next_step="name each layer, and index in the function")
    return gate_of(site, Compute(function, sites), **options)


def first_pass(*held: Gate) -> Aside:
    """A first pass of the same model over the same inputs, with other gates or none: a source for `patch`.

    `op.patch("blocks.*.attn.pattern", op.first_pass())` keeps all patterns as they would be without the other gates that
    are held. Gates that share one such source share the pass. Random numbers are the same in both passes.
    """
    return Aside(_checked(held))


def other_model(model: Model, *held: Gate) -> Aside:
    """A pass of another model over the same inputs: a source for `patch`, for grafting from another seed or checkpoint.

    No gradient flows into the other model.
    """
    if not isinstance(model, Model):
        found = f"it is of type {type(model).__name__}, not a model"
        raise BadGate(f"other_model({type(model).__name__})", found, next_step="load it: op.load(module)")
    return Aside(_checked(held), model)


def _checked(held: Sequence[Gate]) -> tuple[Gate, ...]:
    for gate in held:
        if not isinstance(gate, Gate):
            found = f"it is of type {type(gate).__name__}, not a gate"
            raise BadGate(f"a pass with {gate!r}", found, next_step="make one, like op.zero(site)")
        if gate.when is not None or gate.openness is not None or gate.actuator.aside is not None:
            found = "a pass aside has neither schedules, nor conditions, nor passes of its own"
            raise BadGate(f"a pass with {gate}", found, next_step="put them on the gate that takes its values")
    return tuple(held)


OPTIONS: Final = ("strength", "scope", "detach", "each", "when", "openness", "rows")
"""Keyword arguments that every gate takes."""

KINDS: dict[str, Callable[..., Gate]] = {"zero": zero, "mean": mean, "resample": resample, "patch": patch}
"""Ablations that need nothing but a task, by the names the command line takes."""


def gate_of(
    site: str | SiteName, actuator: Actuator, *, strength: float = 1.0, scope: Scope = "all", detach: bool = False,
    each: str | tuple[str, ...] = (), when: Schedule | None = None, openness: Openness | None = None,
    rows: int | Sequence[int] | None = None, **unknown: Any,
) -> Gate:  # fmt: skip
    if unknown:
        name = next(iter(unknown))
        raise BadGate(f"option {name}= of {actuator} at {site}", "no such option", nearest=nearest(name, OPTIONS) or OPTIONS)
    for number in (strength, *(getattr(actuator, part, None) for part in ("factor", "value", "low", "high"))):
        if isinstance(number, (int, float)) and not math.isfinite(number):
            raise GateNotFinite(f"{actuator} at {site}", f"{number} is not a finite number", next_step="give a finite one")
    where = parse(site) if isinstance(site, str) else site
    axes = (each,) if isinstance(each, str) else tuple(each)
    chosen = (rows,) if isinstance(rows, int) else None if rows is None else tuple(rows)
    return Gate(where, actuator, strength, scope, detach, axes, when, openness, chosen)


def _check_source(source: Source) -> Source:
    if isinstance(source, str) and source not in WORLDS:
        raise BadGate(
            f"source {source!r}", "not a world", nearest=nearest(source, WORLDS) or WORLDS,
            next_step="give 'clean', 'corrupt', a Recording or a tensor",
        )  # fmt: skip
    if not isinstance(source, (str, Recording, Tensor, Aside)):
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
