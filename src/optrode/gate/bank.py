"""Adding vectors is fused: all adds that are held at one site become one add, from a bank of vectors.

`h + C V`: C has the dose of every vector at each row and position (strength, openness, scope and rows multiplied), V the
vectors. A row without a gate has zeros in C and stays as it is. `gates(..., fused=False)` is the plain twin.
"""

from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.axes import POS, RESIDUAL_AXES
from optrode.gate.actuators import Add, wrong_shape
from optrode.gate.gate import Gate
from optrode.gate.opening import Open
from optrode.site.site import Moment, Site, selection


@runtime_checkable
class Placed(Protocol):
    """A gate at a site, as the bank needs it."""

    gate: Gate
    site: Site

    def open_now(self, h: Tensor) -> Open:
        """G in the pass under way; counts that the site came by."""
        ...

    def fired(self) -> None:
        """Count that the gate acted."""
        ...


def is_fusable(gate: Gate, site: Site) -> bool:
    """Whether a gate adds one vector at positions of a residual-like site, whole ones."""
    if not isinstance(gate.actuator, Add) or gate.actuator.vector.dim() != 1 or gate.detach:
        return False
    is_whole = all(axis == POS for axis, _ in site.name.select)
    return is_whole and site.place.view.axes == RESIDUAL_AXES and site.place.how in ("port", "mid")


@final
class Doses:
    """C by what it is computed from, shared by the banks of all sites in one pass."""

    def __init__(self) -> None:
        self._pass = -1
        self._found: dict[tuple[object, ...], tuple[Tensor | None, tuple[bool, ...]]] = {}

    def of(
        self, members: Sequence[Placed], opens: Sequence[Open], h: Tensor, moment: Moment, pass_ix: int
    ) -> tuple[Float[Tensor, "rows pos vector"] | None, tuple[bool, ...]]:
        """C, or None where nothing is open; and which members are open anywhere."""
        if pass_ix != self._pass:
            self._pass = pass_ix
            self._found.clear()
        parts = tuple(
            (one.site.name.select, one.gate.scope, one.gate.strength, value if isinstance(value, float) else id(value))
            for one, value in zip(members, opens, strict=True)
        )
        key = (h.shape[:2], h.dtype, *parts)
        if key not in self._found:
            self._found[key] = _doses(members, opens, h, moment)
        return self._found[key]


def _doses(
    members: Sequence[Placed], opens: Sequence[Open], h: Tensor, moment: Moment
) -> tuple[Tensor | None, tuple[bool, ...]]:
    opened = [_open_at(one, value, h, moment) for one, value in zip(members, opens, strict=True)]
    acting = tuple(bool(g.detach().any()) for g in opened)
    each = [one.gate.strength * g for one, g in zip(members, opened, strict=True)]
    if not any(acts and one.gate.strength for one, acts in zip(members, acting, strict=True)):
        return None, acting
    return torch.stack(torch.broadcast_tensors(*each), -1), acting


def _open_at(one: Placed, value: Open, h: Tensor, moment: Moment) -> Float[Tensor, "rows pos"]:
    """M g of one vector at each row and position, or at all of them alike ([1, 1], [rows, 1])."""
    found = value.to(h.dtype)[:, -h.shape[1] :] if isinstance(value, Tensor) else h.new_full((1, 1), value)
    mask = selection(one.site, h, moment, one.gate.scope)
    return found if mask is None else torch.where(mask[..., 0], found, torch.zeros_like(found))


@final
class Bank:
    """Adds at one site."""

    def __init__(self, members: Sequence[Placed], doses: Doses) -> None:
        self.members, self.doses = tuple(members), doses
        vectors = [one.gate.actuator.vector for one in members if isinstance(one.gate.actuator, Add)]
        self._vectors = vectors
        self._has_grad = any(vector.requires_grad for vector in vectors)
        self._stacked: tuple[tuple[object, ...], Tensor] | None = None

    def see(self, h: Tensor, moment: Moment, pass_ix: int) -> Tensor | None:
        """The site's tensor with everything added, or None where nothing is open."""
        opens = [one.open_now(h) for one in self.members]
        doses, acting = self.doses.of(self.members, opens, h, moment, pass_ix)
        for one, acts in zip(self.members, acting, strict=True):
            if acts:
                one.fired()
        return None if doses is None else h + doses @ self._stack(h)

    def _stack(self, h: Tensor) -> Float[Tensor, "vector feature"]:
        key = (h.dtype, *(vector._version for vector in self._vectors))
        if self._has_grad or self._stacked is None or self._stacked[0] != key:
            for one, vector in zip(self.members, self._vectors, strict=True):
                if vector.shape[-1] not in (1, h.shape[-1]):
                    raise wrong_shape(vector, h, one.site)
            self._stacked = key, torch.stack([vector.expand(h.shape[-1]) for vector in self._vectors]).to(h.dtype)
        return self._stacked[1]
