"""The clean and the corrupt world of a task: prompts in groups of equal length, and what was recorded of their runs."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from optrode.errors import NoPairs
from optrode.gate.gate import WORLDS, Gate, apply_gate
from optrode.model.model import Model
from optrode.model.names import parse
from optrode.site.recording import Recording, recording, run
from optrode.site.select import select_sites
from optrode.site.site import Moment, Site
from optrode.trial.blocks import Walk, walking
from optrode.trial.example import Example
from optrode.trial.kernels import fast
from optrode.trial.prompts import Pair, Task, groups_by_length


@final
class Worlds:
    """Both worlds of a task on a model, recorded as far as they were needed.

    Args:
        positions: which positions the metric reads of a pair.
        linears: layers that go through the faster matrix product.

    Attributes:
        groups: indices of pairs of equal length; each group is one batch without padding.
        n_passes: forward passes so far, whoever made them.
        reached, checked: what `reach.py` found out about gates and recorded values, to be found out once.
    """

    def __init__(
        self, model: Model, task: Task, positions: Callable[[Pair], tuple[int, ...]], linears: Sequence[nn.Linear] = ()
    ) -> None:
        if not task.pairs:
            raise NoPairs(f"task {task.name}", "it holds no pair", next_step="give one; find and prove take one each")
        self.model, self.task = model, task
        self.groups = groups_by_length(task.pairs)
        self.n_passes = 0
        self.reached: dict[tuple[Any, ...], tuple[Gate, list[int | None] | None]] = {}
        self.checked: set[tuple[str | None, str, int]] = set()
        self._positions, self._linears = positions, linears
        self._recordings: dict[tuple[str, int], Recording] = {}
        self._walks: dict[tuple[str, int], Walk] = {}
        self._logits: dict[tuple[str, int], Tensor] = {}

    def pairs(self, group: int) -> list[Pair]:
        """The pairs of one group."""
        return [self.task.pairs[ix] for ix in self.groups[group]]

    def tokens(self, world: str, group: int) -> list[list[int]]:
        """Token ids of one group's prompts."""
        return [list(pair.world(world)) for pair in self.pairs(group)]

    def inputs(self, world: str, group: int) -> Tensor:
        """Token ids of one group's prompts, [batch, pos], or the examples of a module that reads no tokens."""
        return inputs_of(self.model, self.pairs(group), world)

    @property
    def has_tokens(self) -> bool:
        """Whether the prompts are token ids."""
        return not isinstance(self.task.pairs[0], Example)

    def length(self, group: int) -> int:
        """Number of tokens of each of a group's prompts."""
        return self.pairs(group)[0].length

    def positions(self, group: int) -> tuple[int, ...]:
        """Positions whose logits the metric reads, ascending."""
        return self._positions(self.pairs(group)[0])

    def remember(self, held: Iterable[Gate], world: str | None = None) -> None:
        """Record what these gates need: the worlds that they patch from, and `world`, in which they will be held."""
        held = list(held)
        wanted = {str(site.name.whole) for gate in held for site in select_sites(self.model, gate.site)}
        for name in {gate.actuator.world for gate in held} | {world}:
            if name is not None:
                self._extend(name, wanted, walks=name == world)

    def observe(self, world: str, sites: Iterable[str], *, walks: bool) -> None:
        """Record whole sites of a world's plain run, and how it goes through the blocks, in one pass of each group."""
        self._extend(world, set(sites), walks=walks)

    @property
    def walked(self) -> set[str]:
        """The worlds whose way through the blocks is known."""
        return {world for world, _ in self._walks}

    @property
    def held(self) -> set[tuple[str, str]]:
        """(world, site) of every recording."""
        return {(world, site) for (world, _), recording in self._recordings.items() for site in recording.tensors}

    def recording(self, world: str, group: int, sites: Iterable[str] = ()) -> Recording:
        """A world's recording, extended by whole sites, for one group."""
        self._extend(world, set(sites))
        return self._recordings.setdefault((world, group), Recording())

    def walk(self, world: str, group: int) -> Walk:
        """How the plain run of a world went through the blocks."""
        self._extend(world, set(), walks=True)
        return self._walks[world, group]

    def logits(self, world: str, group: int) -> Tensor:
        """[batch, read, vocab] logits of the plain run at the positions that the metric reads."""
        if (world, group) not in self._logits:
            self._visit(world, group, set(), walks=False)
        return self._logits[world, group]

    def bound(self, gate: Gate, group: int) -> Gate:
        """The gate with its world, if it names one, replaced by that world's recording."""
        return gate.bound({world: self.recording(world, group) for world in WORLDS})

    def change(self, gate: Gate, world: str, group: int) -> Tensor:
        """f(h) - h of a gate at its one site: what it would change in a world's run."""
        (site,) = select_sites(self.model, gate.site)
        h, new = self.gated(gate, site, world, group)
        return torch.zeros_like(h) if new is None else new - h

    def gated(self, gate: Gate, site: Site, world: str, group: int) -> tuple[Tensor, Tensor | None]:
        """A recorded tensor, and the same with the gate applied; None where the gate selects nothing."""
        h = self.recording(world, group)[site.name.whole]
        return h, apply_gate(self.bound(gate, group), site, h, self.moment(group))

    def moment(self, group: int) -> Moment:
        """A whole run of a group's prompts."""
        if not self.has_tokens:
            return Moment(None, None, 0)
        n_rows, n_pos, device = len(self.groups[group]), self.length(group), self.model.device
        row_pos = torch.arange(n_pos, device=device).expand(n_rows, n_pos)
        return Moment(row_pos, torch.full((n_rows,), n_pos, device=device), 0)

    def _extend(self, world: str, wanted: set[str], *, walks: bool = False) -> None:
        for group in range(len(self.groups)):
            held = self._recordings.get((world, group), Recording())
            missing = wanted - set(held.tensors)
            if missing or (walks and (world, group) not in self._walks):
                self._visit(world, group, missing, walks=walks and (world, group) not in self._walks)

    def _visit(self, world: str, group: int, sites: set[str], *, walks: bool) -> None:
        """One plain run of a group: the sites, the walk, and the logits that the metric reads, in one pass."""
        self.n_passes += 1
        with ExitStack() as stack, torch.no_grad(), fast(self._linears):
            found = stack.enter_context(recording(self.model, sorted(sites)))
            walk = stack.enter_context(walking(self.model)) if walks else None
            whole = any(parse(site).kind == "logits" for site in sites)
            logits = read_logits(self.model, self.inputs(world, group), self.positions(group), whole=whole)
        held = self._recordings.setdefault((world, group), Recording())
        held.tensors.update(found.tensors)
        held.lengths = (self.length(group),) * len(self.groups[group])
        self._logits.setdefault((world, group), logits)
        if walk is not None:
            self._walks[world, group] = walk


def inputs_of(model: Model, pairs: Sequence[Pair], world: str) -> Tensor:
    """What the model reads in a world: token ids [batch, pos], or a batch of examples."""
    if isinstance(pairs[0], Example):
        return torch.stack([cast(Tensor, pair.world(world)) for pair in pairs]).to(model.device)
    return torch.tensor([list(pair.world(world)) for pair in pairs], device=model.device)


def read_logits(model: Model, inputs: Tensor, positions: Iterable[int], *, whole: bool = False) -> Tensor:
    """[batch, read, vocab] logits at these positions; no others are computed, unless the model knows no other way.

    Args:
        whole: compute all of them first, as a gate at the logits needs.
    """
    if inputs.is_floating_point():
        output = run(model, inputs)
        logits: Tensor = getattr(output, "logits", output)
        return logits[:, None] if logits.dim() == 2 else logits[:, :1]
    read = torch.tensor(list(positions), device=model.device)
    names = set(inspect.signature(model.module.forward).parameters)
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in names else {}
    if whole or "logits_to_keep" not in names:
        everything: Tensor = model.module(input_ids=inputs, **options).logits
        return everything[:, read]
    kept: Tensor = model.module(input_ids=inputs, logits_to_keep=read, **options).logits
    return kept
