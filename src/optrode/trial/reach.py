"""What a trial can change: which rows, from which layer and position on.

In a causal model a position sees only itself and earlier ones. If every gate of a trial leaves every recorded value
before position p as it is, then nothing before p differs from the plain run, at any layer; and before the first layer
with a gate nothing differs at all. A row that no gate changes has the plain run's metric. All of it rests on gates that
treat each position by itself (`Actuator.is_pointwise`), and is read off the recordings, bit for bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from optrode.axes import POS
from optrode.gate.gate import Gate
from optrode.gate.place import check_value, gates
from optrode.model.model import Model
from optrode.site.select import select_sites
from optrode.site.site import Site, selection
from optrode.trial.blocks import blocks_of, replaced
from optrode.trial.trial import Trial
from optrode.trial.worlds import Worlds, read_logits

UNRECORDED: Final = ("attn.scores", "attn.pattern", "attn.result", "logits")
"""Sites whose recording would switch attention or cost much memory: what a gate changes there is not looked up."""

N_KEPT: Final = 100_000
"""How many gates' reach is kept, so that it is looked up once for the plan and the run."""

Starts = tuple[tuple[int, int], ...]
"""((layer, first position that can differ from there on), ...), layers ascending and positions descending."""


@dataclass(frozen=True)
class Act:
    """A gate at one site, in a layer; layer -1 is before the blocks and n_layers after them."""

    layer: int
    site: Site
    gate: Gate


@final
@dataclass(frozen=True, eq=False)
class Strip:
    """Rows of one trial that can differ from the plain run at the same places.

    Attributes:
        trial: the trial's index.
        world, group, rows: which prompts.
        starts: from which layer and position on they can differ.
        acts: the trial's gates from the first block on, in the order given.
        stream: [batch, pos, d_model] what enters the first block, where gates before it changed that.
    """

    trial: int
    world: str
    group: int
    rows: tuple[int, ...]
    starts: Starts
    acts: tuple[Act, ...]
    stream: Tensor | None = None


def acts_of(model: Model, trial: Trial) -> tuple[Act, ...]:
    """Each gate of a trial at each of its sites."""
    return tuple(
        Act(layer_of(model, site), site, gate) for gate in trial.gates for site in select_sites(model, gate.site)
    )


def layer_of(model: Model, site: Site) -> int:
    """The layer that a site is in; -1 before the blocks (or anywhere unknown), n_layers after them."""
    if site.name.layers is not None:
        return site.name.layers.single or 0
    if site.name.is_module:
        prefixes = [f"{name}." for block in blocks_of(model) for name, m in model.module.named_modules() if m is block]
        return next((ix for ix, prefix in enumerate(prefixes) if f"{site.place.path}.".startswith(prefix)), -1)
    return model.table.n_layers if site.name.kind in ("final_norm", "logits") else -1


def is_recorded(gate: Gate) -> bool:
    """Whether what a gate changes can be read off recordings: a named site with positions, a pointwise actuator."""
    return gate.actuator.is_pointwise and not gate.site.is_module and gate.site.kind not in UNRECORDED


def strips_of(worlds: Worlds, trial: Trial, index: int, *, skip_null: bool = True) -> list[Strip] | None:
    """A trial's strips; none where it changes nothing, and None where a gate selects nothing in some group.

    Args:
        skip_null: leave out what the gates do not change, bit for bit; else what they do not select.
    """
    acts = acts_of(worlds.model, trial)
    stem = tuple(act.gate for act in acts if act.layer < 0)  # each has one site: none is in a block
    later = tuple(act for act in acts if act.layer >= 0)
    found: list[Strip] = []
    for group in range(len(worlds.groups)):
        reached = [(act, _firsts(worlds, act, trial.world, group, skip_null)) for act in acts]
        if any(firsts is None for _, firsts in reached):
            return None
        columns = [(act.layer, firsts) for act, firsts in reached if firsts is not None and act.layer >= 0]
        stream = _stem(worlds, stem, trial.world, group) if stem else None
        if stream is not None:
            plain = worlds.walk(trial.world, group).streams[0]
            columns.append((0, _first_true(stream != plain if skip_null else torch.ones_like(stream, dtype=torch.bool), 1)))
        found += [
            Strip(index, trial.world, group, rows, starts, later, stream)
            for starts, rows in _by_starts(worlds, columns, group).items()
        ]
    return found


def _firsts(worlds: Worlds, act: Act, world: str, group: int, skip_null: bool) -> list[int | None] | None:
    """[row] the first position that a gate changes; None for all if it selects nothing."""
    own = () if act.gate.actuator.world else act.gate.actuator.tensors(act.site)
    key = (id(act.gate), act.site.name.layers, world, group, skip_null, tuple(tensor._version for tensor in own))
    if key not in worlds.reached:
        if len(worlds.reached) > N_KEPT:
            worlds.reached.clear()
        worlds.reached[key] = (act.gate, _look(worlds, act, world, group, skip_null))
    return worlds.reached[key][1]


def _look(worlds: Worlds, act: Act, world: str, group: int, skip_null: bool) -> list[int | None] | None:
    source = (act.gate.actuator.world, str(act.site.name.whole), group)
    if source[0] is None or source not in worlds.checked:
        check_value(worlds.model, worlds.bound(act.gate, group), act.site)
        worlds.checked.add(source)
    h, new = worlds.gated(act.gate, act.site, world, group)
    if new is None:
        return None
    if skip_null:
        return _first_true(new != h, act.site.axes(h.dim()).index(POS))
    mask = selection(act.site, h, worlds.moment(group), act.gate.scope)
    selected = torch.ones_like(h, dtype=torch.bool) if mask is None else mask.expand(h.shape)
    return _first_true(selected, act.site.axes(h.dim()).index(POS))


def _stem(worlds: Worlds, held: Sequence[Gate], world: str, group: int) -> Tensor:
    """What enters the first block with gates held before it."""
    bound = [worlds.bound(gate, group) for gate in held]
    try:
        with torch.no_grad(), replaced(blocks_of(worlds.model)[0], _stop), gates(worlds.model, *bound):
            read_logits(worlds.model, worlds.inputs(world, group), worlds.positions(group))
    except _AtFirstBlock as reached:
        return reached.stream
    raise AssertionError("the first block was not reached")


class _AtFirstBlock(Exception):
    def __init__(self, stream: Tensor) -> None:
        super().__init__("at the first block")
        self.stream = stream


def _stop(stream: Tensor, *args: object, **kwargs: object) -> None:
    raise _AtFirstBlock(stream)


def _first_true(hit: Tensor, at: int) -> list[int | None]:
    by_pos = hit.movedim(at, 1).flatten(2).any(2) if hit.dim() > 2 else hit
    first = by_pos.int().argmax(1).tolist()
    return [p if any_ else None for p, any_ in zip(first, by_pos.any(1).tolist(), strict=True)]


def _by_starts(
    worlds: Worlds, columns: Sequence[tuple[int, Sequence[int | None]]], group: int
) -> dict[Starts, tuple[int, ...]]:
    """Rows that start alike; those that change nothing that the metric can see are left out."""
    end = max(worlds.positions(group)) + 1
    found: dict[Starts, tuple[int, ...]] = {}
    for row in range(len(worlds.groups[group])):
        own = [(layer, firsts[row]) for layer, firsts in columns]
        starts = tuple(_descend(sorted((at, p) for at, p in own if p is not None), end, worlds.model.table.is_causal))
        if starts:
            found[starts] = (*found.get(starts, ()), row)
    return found


def _descend(own: Sequence[tuple[int, int]], end: int, is_causal: bool) -> Iterator[tuple[int, int]]:
    """The steps at which the first position that can differ comes down."""
    lowest = end
    for layer, first in own:
        first = first if is_causal else 0
        if first < lowest:
            lowest = first
            yield layer, first
