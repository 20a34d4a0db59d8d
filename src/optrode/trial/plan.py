"""Which way each trial takes, and which trials go together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from optrode.errors import BadOption
from optrode.gate.gate import Gate
from optrode.site.select import select_sites
from optrode.trial.blocks import blocks_of
from optrode.trial.memory import recorded_gib
from optrode.trial.reach import Strip, acts_of, is_recorded, strips_of
from optrode.trial.trial import Trial
from optrode.trial.worlds import Worlds

Route = Literal["packed", "by layer", "in full"]


@dataclass(frozen=True)
class Abilities:
    """What a model's trials can share.

    Attributes:
        packs: tokens of many trials in one pass.
        restarts: a trial can start at a layer.
        reason: why not more.
    """

    packs: bool
    restarts: bool
    reason: str = ""


@dataclass(frozen=True)
class Chunk:
    """Trials that run together, and are finished together.

    Attributes:
        route: how they run.
        trials: indices, ascending by the layer that they start at.
        layer: the block that the route "by layer" starts at.
        reason: why they are not packed.
    """

    route: Route
    trials: tuple[int, ...]
    layer: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """All trials: those that change nothing, and the chunks of the others.

    The chunks depend on the trials and on a number of tokens only, so that a run that was broken off has the same ones
    again.
    """

    null: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Way:
    """One trial's route, the layer that it starts at, how many tokens it has in flight at the end, and why."""

    route: Route | None
    layer: int = 0
    n_tokens: int = 0
    reason: str = ""


def remember(worlds: Worlds, trials: Sequence[Trial], budget_gib: float, *, shares: bool = True) -> float:
    """Record what trials need, each world in one pass; returns the memory it takes, in GiB.

    Raises:
        BadOption: the recordings would take more than the budget.
    """
    model = worlds.model
    can_walk = shares and bool(blocks_of(model))
    held: dict[str, dict[int, Gate]] = {}
    for trial in trials:
        held.setdefault(trial.world, {}).update((id(gate), gate) for gate in trial.gates)
    wanted: set[tuple[str, str]] = set()
    for world, gates in held.items():
        for gate in gates.values():
            sites = [str(site.name.whole) for site in select_sites(model, gate.site)]
            sources = {gate.actuator.world} - {None} | ({world} if can_walk and is_recorded(gate) else set())
            wanted |= {(source, site) for source in sources if source for site in sites}
    needed = recorded_gib(worlds, wanted | worlds.held, len(set(held) | worlds.walked) if can_walk else 0)
    if needed > budget_gib:
        raise BadOption(
            f"{budget_gib:.3g} GiB of memory for task {worlds.task.name}", f"its recordings alone take {needed:.3g} GiB",
            next_step=f"give memory_gib={1.2 * needed:.2g} or more, fewer prompts, or fewer sites at a time",
        )  # fmt: skip
    for name in sorted({source for source, _ in wanted} | (set(held) if can_walk else set())):
        worlds.observe(name, {site for source, site in wanted if source == name}, walks=can_walk and name in held)
    return needed


def way_of(worlds: Worlds, trial: Trial, can: Abilities, skip_null: bool) -> Way:
    """The shortest way to a trial's numbers."""
    if not trial.gates:
        return Way(None)
    acts = acts_of(worlds.model, trial)
    if not can.restarts:
        return Way("in full", reason=can.reason)
    unknown = [gate for gate in trial.gates if not is_recorded(gate)]
    layer = min(act.layer for act in acts)
    if unknown:
        return _by_layer(layer, f"what a gate changes at {unknown[0].site.kind} is not looked up")
    strips = strips_of(worlds, trial, 0, skip_null=skip_null)
    if strips is None:
        return Way("in full")  # a gate selects nothing: the full run raises the right error
    if not strips:
        return Way(None)
    if not can.packs:
        return _by_layer(layer, can.reason)
    return Way("packed", min(strip.starts[0][0] for strip in strips), n_tokens_of(worlds, strips))


def make_plan(trials: Sequence[Trial], ways: Sequence[Way], n_tokens: int) -> Plan:
    """Put trials together.

    Args:
        n_tokens: how many tokens a chunk has in flight, about.
    """
    null = tuple(ix for ix, way in enumerate(ways) if way.route is None)
    alone = [Chunk(w.route, (ix,), w.layer, w.reason) for ix, w in enumerate(ways) if w.route and w.route != "packed"]
    packed = [ix for ix, way in enumerate(ways) if way.route == "packed"]
    packed.sort(key=lambda ix: (trials[ix].world, ways[ix].layer, ix))
    return Plan(null, (*_packed_chunks(trials, ways, packed, n_tokens), *alone))


def _by_layer(layer: int, reason: str) -> Way:
    return Way("by layer", layer, reason=reason) if layer > 0 else Way("in full", reason=reason)


def n_tokens_of(worlds: Worlds, strips: Sequence[Strip]) -> int:
    """How many tokens strips have in flight at the end."""
    is_causal = worlds.model.table.is_causal
    ends = [max(worlds.positions(s.group)) + 1 if is_causal else worlds.length(s.group) for s in strips]
    return sum(len(s.rows) * (end - s.starts[-1][1]) for s, end in zip(strips, ends, strict=True))


def _packed_chunks(
    trials: Sequence[Trial], ways: Sequence[Way], order: Sequence[int], n_tokens: int
) -> list[Chunk]:
    chunks: list[list[int]] = []
    total = 0
    for ix in order:
        fits = chunks and total + ways[ix].n_tokens <= n_tokens and trials[chunks[-1][-1]].world == trials[ix].world
        if fits:
            chunks[-1].append(ix)
        else:
            chunks.append([ix])
            total = 0
        total += ways[ix].n_tokens
    return [Chunk("packed", tuple(chunk)) for chunk in chunks]
