"""The gate contract:  h' = h + M[r,t] * s * (f(h) - h)  at one site, row r, position t.

A gate is data. `f` is its actuator (`gate/kinds.py`), `s` its strength, `M` its scope and selectors. `gate/place.py`
holds gates on a model. The further factor of the design, the openness g, is 1 here.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor

from optrode.errors import BadGate, nearest
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
    """

    site: SiteName
    actuator: Actuator
    strength: float = 1.0
    scope: Scope = "all"
    detach: bool = False
    each: tuple[str, ...] = ()

    def __post_init__(self) -> None:
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
        return ", ".join([f"{self.actuator} at {self.site}", *extras])

    def at(self, site: SiteName) -> "Gate":
        """The same gate at another site, no longer swept."""
        return replace(self, site=site, each=())

    def bound(self, worlds: Mapping[str, Recording]) -> "Gate":
        """The same gate with its world, if it names one, replaced by that world's recording."""
        world = self.actuator.world
        return self if world is None else replace(self, actuator=self.actuator.bound(worlds[world]))


def apply_gate(gate: Gate, site: Site, h: Tensor, moment: Moment) -> Tensor | None:
    """The gated tensor, or None when the gate selects nothing here."""
    mask = selection(site, h, moment, gate.scope)
    if mask is not None and not bool(mask.any()):
        return None
    target = gate.actuator.target(h, site, moment)
    if gate.strength != 1.0:
        target = h + gate.strength * (target - h)
    if gate.detach:
        target = target.detach()
    return target if mask is None else torch.where(mask, target, h)
