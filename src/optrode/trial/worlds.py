"""The clean and the corrupt world of a task: prompts in groups of equal length, and what was recorded of their runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from optrode.axes import POS
from optrode.errors import NoPairs
from optrode.gate.gate import WORLDS, Gate, apply_gate
from optrode.model.model import Model
from optrode.site.recording import Recording, record
from optrode.site.select import select_sites
from optrode.site.site import Moment, Site, selection
from optrode.trial.prompts import Pair, Task, groups_by_length


@dataclass(frozen=True, slots=True)
class Span:
    """Which positions a gate reaches in the run of one world.

    Attributes:
        first: the first position at which it changes a recorded value, or None if it changes none, bit for bit.
        last: the last position that it selects, or None if it selects none.
    """

    first: int | None
    last: int | None


@final
class Worlds:
    """Both worlds of a task on a model, recorded as far as they were needed.

    Attributes:
        groups: indices of pairs of equal length; each group is one batch without padding.
        n_passes: forward passes so far, whoever made them.
    """

    def __init__(self, model: Model, task: Task) -> None:
        if not task.pairs:
            raise NoPairs(f"task {task.name}", "it holds no pair", next_step="give one; find and prove take one each")
        self.model, self.task = model, task
        self.groups = groups_by_length(task.pairs)
        self.n_passes = 0
        self._recordings: dict[tuple[str, int], Recording] = {}

    def pairs(self, group: int) -> list[Pair]:
        """The pairs of one group."""
        return [self.task.pairs[ix] for ix in self.groups[group]]

    def tokens(self, world: str, group: int) -> list[list[int]]:
        """Token ids of one group's prompts."""
        return [list(pair.world(world)) for pair in self.pairs(group)]

    def remember(self, held: Iterable[Gate], world: str | None = None) -> None:
        """Record what these gates need: the worlds that they patch from, and `world` at their sites."""
        held = list(held)
        wanted = {str(site.name.whole) for gate in held for site in select_sites(self.model, gate.site)}
        for name in {gate.actuator.world for gate in held} | {world}:
            if name is not None and wanted:
                self._extend(name, wanted)

    def recording(self, world: str, group: int, sites: Iterable[str] = ()) -> Recording:
        """A world's recording, extended by whole sites, for one group."""
        self._extend(world, set(sites))
        return self._recordings.setdefault((world, group), Recording())

    def bound(self, gate: Gate, group: int) -> Gate:
        """The gate with its world, if it names one, replaced by that world's recording."""
        return gate.bound({world: self.recording(world, group) for world in WORLDS})

    def change(self, gate: Gate, world: str, group: int) -> Tensor:
        """f(h) - h of a gate at its one site: what it would change in a world's run."""
        (site,) = select_sites(self.model, gate.site)
        h, new = self._gated(gate, site, world, group)
        return torch.zeros_like(h) if new is None else new - h

    def span(self, gate: Gate, world: str, group: int) -> Span:
        """Which positions a gate reaches, over all of its sites."""
        firsts, lasts = [], []
        for site in select_sites(self.model, gate.site):
            h, new = self._gated(gate, site, world, group)
            axes = site.axes(h.dim())
            mask = selection(site, h, self._moment(group, h), gate.scope)
            selected = torch.ones_like(h, dtype=torch.bool) if mask is None else mask.expand(h.shape)
            lasts += _positions(selected, axes)[-1:]
            firsts += [] if new is None else _positions(new != h, axes)[:1]
        return Span(min(firsts, default=None), max(lasts, default=None))

    def _gated(self, gate: Gate, site: Site, world: str, group: int) -> tuple[Tensor, Tensor | None]:
        """A recorded tensor, and the same with the gate applied as if it came by now."""
        h = self.recording(world, group)[site.name.whole]
        return h, apply_gate(self.bound(gate, group), site, h, self._moment(group, h))

    def _moment(self, group: int, h: Tensor) -> Moment:
        n_rows, n_pos = len(self.groups[group]), len(self.pairs(group)[0].clean)
        row_pos = torch.arange(n_pos, device=h.device).expand(n_rows, n_pos)
        return Moment(row_pos, torch.full((n_rows,), n_pos, device=h.device), 0)

    def _extend(self, world: str, wanted: set[str]) -> None:
        for group in range(len(self.groups)):
            held = self._recordings.setdefault((world, group), Recording())
            missing = sorted(wanted - set(held.tensors))
            if missing:
                self.n_passes += 1
                new = record(self.model, self.tokens(world, group), missing)
                held.tensors.update(new.tensors)
                held.lengths = new.lengths


def _positions(hit: Tensor, axes: Sequence[str]) -> list[int]:
    """Positions with a true element, in order."""
    at = axes.index(POS)
    found: list[int] = hit.movedim(at, 0).flatten(1).any(1).nonzero()[:, 0].tolist()
    return found
