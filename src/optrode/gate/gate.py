"""The gate contract:  h' = h + M[r,t] * g * s * (f(h) - h)  at one site, row r, position t.

A gate is data. `f` is its actuator (`gate/kinds.py`), `s` its strength, `M` its scope, rows and selectors, `g` its openness:
a schedule over training steps (`gate/openness.py`), times what a condition says of the pass (`gate/conditions.py`).
`gate/place.py` holds gates on a model.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.axes import POS
from optrode.errors import BadGate, nearest
from optrode.gate.openness import Openness, Schedule
from optrode.model.model import Model
from optrode.model.names import SiteName
from optrode.site.recording import Recording
from optrode.site.site import Moment, Site, selection

Scope = Literal["all", "prompt", "generated"]
SCOPES: Final = ("all", "prompt", "generated")
WORLDS: Final = ("clean", "corrupt")
EACH: Final = ("layer", "head", "pos", "feature")


class Actuator(ABC):
    """What a gate drives the site towards: f(h)."""

    is_pointwise: ClassVar[bool] = False
    """Whether the target at a position depends on nothing but h at that position (and what was recorded there)."""

    @abstractmethod
    def __str__(self) -> str:
        """The actuator as it prints, with every argument that matters."""

    @abstractmethod
    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        """f(h), in the shape of h. May return h where it has nothing to say (outside a recording)."""

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        """The tensors that it brings to a site, to be checked before the gate is placed."""
        return ()

    @property
    def world(self) -> str | None:
        """The world ("clean" or "corrupt") that it still waits to be given a recording of."""
        return None

    def bound(self, recording: Recording) -> "Actuator":
        """The same actuator with its world replaced by a recording of it."""
        return self

    @property
    def reads(self) -> tuple[SiteName, ...]:
        """Sites of the same pass that it is computed from."""
        return ()

    @property
    def aside(self) -> "Aside | None":
        """The pass aside that its values come from."""
        return None

    @property
    def is_computed(self) -> bool:
        """Whether it needs to know more of the pass under way than the site's own tensor."""
        return bool(self.reads) or self.aside is not None


@final
@dataclass(frozen=True, eq=False)
class Aside:
    """Another pass over the same inputs, made before each pass: where gates can take their values from.

    Attributes:
        gates: held during that pass.
        model: whose pass it is; None for the model that the gate is held on.
    """

    gates: tuple["Gate", ...] = ()
    model: Model | None = None

    def __str__(self) -> str:
        who = "a first pass" if self.model is None else f"a pass of {self.model.name}"
        held = f" with {len(self.gates)} gate(s)" if self.gates else ""
        return who + held


@dataclass(frozen=True)
class Gate:
    """What is done at a site; data, not code that runs by itself.

    Attributes:
        site: name or pattern.
        actuator: f in the formula.
        strength: s in the formula, the dose.
        scope: "all" positions, those of the "prompt", or the "generated" ones.
        detach: keep gradients from flowing through the computed gate value.
        each: axes over which a sweep makes one trial each: any of layer, head, pos, feature.
        when: in which training steps it is open; None for always.
        openness: how open it is at each row and position, decided from the pass; None for 1.
        rows: of the batch that it acts on (prompts, where beams make several rows of one); None for all.
    """

    site: SiteName
    actuator: Actuator
    strength: float = 1.0
    scope: Scope = "all"
    detach: bool = False
    each: tuple[str, ...] = ()
    when: Schedule | None = None
    openness: Openness | None = None
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.openness is not None and not isinstance(self.openness, Openness):
            found = f"it is of type {type(self.openness).__name__}, not a condition"
            step = "make one, like op.probe(site, weight, above=0.5); a number goes to strength="
            raise BadGate(f"openness={self.openness!r} of {self.actuator}", found, next_step=step)
        if self.rows is not None and (not self.rows or min(self.rows) < 0 or len(set(self.rows)) < len(self.rows)):
            found = "rows are different numbers from 0"
            raise BadGate(f"rows={self.rows} of {self.actuator}", found, next_step="leave it out for all rows")
        if self.when is not None and not isinstance(self.when, Schedule):
            found = f"it is of type {type(self.when).__name__}, not a schedule"
            raise BadGate(f"when={self.when!r} of {self.actuator}", found, next_step="make one, like op.when(until=1000)")
        if self.scope not in SCOPES:
            raise BadGate(f"scope {self.scope!r}", "not a scope", nearest=nearest(self.scope, SCOPES) or SCOPES)
        for axis in self.each:
            if axis not in EACH:
                raise BadGate(f"each={axis!r}", "not an axis to sweep", nearest=nearest(axis, EACH) or EACH)
        if len(set(self.each)) < len(self.each):
            raise BadGate(f"each={self.each!r}", "an axis is named twice", nearest=tuple(dict.fromkeys(self.each)))

    def __str__(self) -> str:
        extras = [] if self.strength == 1.0 else [f"strength={self.strength:g}"]
        extras += [] if self.scope == "all" else [f"scope={self.scope}"]
        extras += [f"each={'×'.join(self.each)}"] if self.each else []
        extras += [] if self.when is None else [str(self.when)]
        extras += [] if self.openness is None else [f"open {self.openness}"]
        extras += [] if self.rows is None else [f"rows={', '.join(map(str, self.rows))}"]
        return ", ".join([f"{self.actuator} at {self.site}", *extras])

    def at(self, site: SiteName) -> "Gate":
        """The same gate at another site, no longer swept."""
        return replace(self, site=site, each=())

    def bound(self, worlds: Mapping[str, Recording]) -> "Gate":
        """The same gate with its world, if it names one, replaced by that world's recording."""
        world = self.actuator.world
        return self if world is None else replace(self, actuator=self.actuator.bound(worlds[world]))


def apply_gate(
    gate: Gate, site: Site, h: Tensor, moment: Moment, openness: "float | Float[Tensor, 'rows columns']" = 1.0
) -> Tensor | None:
    """The gated tensor, or None when the gate is closed or selects nothing here.

    Args:
        openness: g in the formula, one number, or by row and column (the last columns of h's positions, or one for all).
    """
    if isinstance(openness, Tensor):
        return _apply_by_row(gate, site, h, moment, openness)
    mask = selection(site, h, moment, gate.scope) if openness else None
    if not openness or mask is not None and not bool(mask.any()):
        return None
    target = _target(gate, site, h, moment)
    dose = gate.strength * openness
    if dose != 1.0:
        target = h + dose * (target - h)
    if gate.detach:
        target = target.detach()
    return target if mask is None else torch.where(mask, target, h)


def _target(gate: Gate, site: Site, h: Tensor, moment: Moment) -> Tensor:
    target = gate.actuator.target(h, site, moment)
    return target if target.dtype == h.dtype else target.to(h.dtype)  # autocast computes h in another type


def _apply_by_row(
    gate: Gate, site: Site, h: Tensor, moment: Moment, openness: Float[Tensor, "rows columns"]
) -> Tensor | None:
    """Where it is closed, h stays bit for bit, and where it is wholly open, the target is taken whole."""
    g = along_rows(openness.to(h.dtype), site, h)
    mask, is_open = selection(site, h, moment, gate.scope), g != 0
    mask = is_open if mask is None else mask & is_open
    if not bool(mask.any()):
        return None
    target, dose = _target(gate, site, h, moment), gate.strength * g
    target = torch.where(dose == 1.0, target, h + dose * (target - h))
    return torch.where(mask, target.detach() if gate.detach else target, h)


def along_rows(values: Float[Tensor, "rows columns"], site: Site, h: Tensor) -> Tensor:
    """Values by row and column, in a shape that broadcasts to a site's tensor.

    Raises:
        BadGate: there are values by column, and the site has no positions.
    """
    axes, shape = site.axes(h.dim()), [1] * h.dim()
    shape[0] = len(values)
    if POS not in axes:
        if values.shape[1] > 1:
            found = "the site has no positions, and the openness differs from one to the next"
            raise BadGate(f"gate at {site.name}", found, next_step='decide once: read="prompt"')
        return values.reshape(shape)
    if values.shape[1] > 1:
        values = values[:, -h.shape[axes.index(POS)] :]
        shape[axes.index(POS)] = values.shape[1]
    return values.reshape(shape)
