"""A sweep: many trials over the same prompts, one per step along the axes that its gates name in `each`."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from optrode.errors import BadGate, BadOption, nearest
from optrode.gate.actuators import Patch
from optrode.gate.gate import WORLDS, Gate
from optrode.model.model import Model
from optrode.model.names import ALL, SiteName
from optrode.provenance import provenance
from optrode.site.recording import record
from optrode.site.select import select_sites
from optrode.site.site import Site
from optrode.trial.example import Example
from optrode.trial.grid import Axis, Grid
from optrode.trial.kept import keeping
from optrode.trial.metric import Metric
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress
from optrode.trial.trial import Trial, World
from optrode.trial.worlds import inputs_of


def sweep(
    model: Model, task: Task, gate: Gate | Sequence[Gate], *, metric: str | Metric | None = None,
    world: World | None = None, doses: Sequence[float] = (), out: str | Path | None = None, skip_null: bool = True,
    memory_gib: float | None = None, progress: Progress = no_progress, bench: Bench | None = None,
) -> Grid:  # fmt: skip
    """Run one trial per cell of the grid that the gates' `each` axes span.

    Args:
        gate: e.g. `op.patch("blocks.*.resid_pre", each=("layer", "pos"))` or `op.zero("blocks.*.attn.z",
            each=("layer", "head"))`; or several gates, all held in every cell: each brings its own axes.
        metric: another metric than the task's.
        world: the prompts that the model reads. By default the world that the gate does not patch from, and the
            clean one for zero and mean ablation.
        doses: a further axis, last: strengths that multiply that of the last gate.
        out: a run folder that keeps every finished cell, so that the same call goes on where it was broken off.
        skip_null: give cells whose gates change nothing, bit for bit, the plain run's values without a run.
        memory_gib: what recordings and runs may take; by default half of what is free.
        progress: called as cells finish.
        bench: to share recordings with other work on the same model and task; it has its own metric, memory and store.

    Raises:
        BadOption: no such metric or world, or too little memory.
        BadGate: an axis of `each` does not fit the site, or positions are swept over prompts of unequal length.
        RunBusy, BadStore, StoreFull: from the run folder.
        Everything that `gates` raises.
    """
    if world is not None and world not in WORLDS:
        raise BadOption(f"world {world!r}", "no such world", nearest=nearest(world, WORLDS) or WORLDS)
    bench = bench or Bench(model, task, metric, skip_null=skip_null, memory_gib=memory_gib)
    held = (gate,) if isinstance(gate, Gate) else tuple(gate)
    axes, cells = expand_all(model, task, held, doses)
    title = " with ".join(map(str, held))
    with keeping(out, model, title=title, task=task.name, n_trials=len(cells)) as store, bench.keeping(store):
        return _run(bench, held, axes, cells, world, progress)


def _run(
    bench: Bench, held: Sequence[Gate], axes: tuple[Axis, ...], cells: Sequence[tuple[Gate, ...]], world: World | None,
    progress: Progress,
) -> Grid:  # fmt: skip
    started, before, passes = time.monotonic(), bench.work, bench.worlds.n_passes
    source = next((found for found in map(_source_world, held) if found), None)
    world = world or ("corrupt" if source == "clean" else "clean")
    trials = [Trial(cell, world, bench.metric.name) for cell in cells]
    plan = bench.plan(trials)
    found = dict(bench.each(trials, plan, progress, f"sweep {held[0].site}"))
    null = set(plan.null)
    return Grid(
        title=" with ".join(map(str, held)), task=bench.task.name, metric=bench.metric.name, unit=bench.metric.unit,
        axes=axes, sites=tuple(" + ".join(str(gate.site) for gate in cell) for cell in cells),
        values=tuple(found[ix] for ix in range(len(cells))), base=bench.base(world),
        source=bench.base(source) if source and source != world else None,
        is_null=tuple(ix in null for ix in range(len(cells))),
        provenance=provenance(
            bench.model.name, bench.model.weights_hash, bench.task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes - passes,
        ),
        work=bench.tally.since(before),
    )  # fmt: skip


def expand_all(
    model: Model, task: Task, held: Sequence[Gate], doses: Sequence[float] = ()
) -> tuple[tuple[Axis, ...], tuple[tuple[Gate, ...], ...]]:
    """The axes of all gates' grids, one after another, and the gates of each cell in row-major order."""
    if not held:
        raise BadOption("sweep", "no gate was given", next_step='write op.sweep(model, task, op.zero("blocks.*.attn.z"))')
    grids = [expand(model, task, gate) for gate in held]
    axes: list[Axis] = []
    for own, _ in grids:
        taken = [axis.name.split()[0] for axis in axes]
        axes += [Axis(f"{a.name} {taken.count(a.name) + 1}" if a.name in taken else a.name, a.labels) for a in own]
    cells = [tuple(cell) for cell in product(*(cells for _, cells in grids))]
    if not doses:
        return tuple(axes), tuple(cells)
    dosed = [(*c[:-1], replace(c[-1], strength=c[-1].strength * float(dose))) for c in cells for dose in doses]
    return (*axes, Axis("dose", tuple(f"{dose:g}" for dose in doses))), tuple(dosed)


def expand(model: Model, task: Task, gate: Gate) -> tuple[tuple[Axis, ...], tuple[Gate, ...]]:
    """The axes of a gate's grid, and one gate per cell in row-major order."""
    steps = [_steps(model, task, gate.site, axis) for axis in gate.each]
    axes = tuple(Axis(axis, labels) for axis, (labels, _) in zip(gate.each, steps, strict=True))
    cells = [
        gate.at(gate.site.at(**dict(zip(gate.each, chosen, strict=True))))
        for chosen in product(*(indices for _, indices in steps))
    ]
    return axes, tuple(cells)


def _steps(model: Model, task: Task, name: SiteName, axis: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Labels and indices along one swept axis."""
    if axis == "pos" and not isinstance(task.pairs[0], Example):
        return _positions(task, name)
    sites = select_sites(model, name)
    if axis == "layer":
        if name.layers is None:
            raise BadGate(f"each={axis!r} at {name}", "the site stands outside the blocks", next_step="sweep without layer")
        layers = tuple(site.name.layers.single or 0 for site in sites if site.name.layers is not None)
        return tuple(map(str, layers)), layers
    axes = sites[0].place.view.axes
    if axis not in axes:
        has = f"the site has the axes {', '.join(axes)}" if axes else "a module's own site has no named axes"
        raise BadGate(f"each={axis!r} at {name}", has, next_step=f"sweep without {axis}")
    size = model.table.size(name.kind, axis) or _size(model, task, sites[0], axes.index(axis))
    indices = (name.index(axis) or ALL).resolve(size)
    return tuple(map(str, indices)), indices


def _size(model: Model, task: Task, site: Site, at: int) -> int:
    """Length of an axis, read off a run of the first prompt."""
    whole = site.name.whole
    return int(record(model, inputs_of(model, task.pairs[:1], "clean"), whole)[whole].shape[at])


def _positions(task: Task, name: SiteName) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if task.length is None:
        lengths = sorted({pair.length for pair in task.pairs})
        raise BadGate(
            f"each='pos' at {name}", f"the prompts have {lengths[0]} to {lengths[-1]} tokens: a position has no one meaning",
            next_step="use prompts of one length, or sweep without pos",
        )  # fmt: skip
    asked = name.index("pos") or ALL
    indices = asked.resolve(task.length)
    outside = [p for p in asked.parts if isinstance(p, int) and not -task.length <= p < task.length]
    if outside or not indices:
        found = f"the prompts have the positions 0 to {task.length - 1}"
        raise BadGate(f"each='pos' at {name}", found, next_step="select among them")
    tokens = task.pairs[0].clean_tokens or ("",) * task.length
    return tuple(f"{ix} {tokens[ix]}".rstrip() for ix in indices), indices


def _source_world(gate: Gate) -> World | None:
    world = gate.actuator.world
    is_patch = isinstance(gate.actuator, Patch)
    return ("clean" if world == "clean" else "corrupt") if world and is_patch else None
