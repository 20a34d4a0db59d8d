"""A sweep: many trials over the same prompts, one per step along the axes that its gate names in `each`."""

import time
from itertools import product

from optrode.errors import BadGate, BadOption, nearest
from optrode.gate.actuators import Patch
from optrode.gate.gate import WORLDS, Gate
from optrode.model.model import Model
from optrode.model.names import ALL, SiteName
from optrode.provenance import provenance
from optrode.site.select import select_sites
from optrode.trial.grid import Axis, Grid
from optrode.trial.metric import Metric
from optrode.trial.prefix import can_be_shared
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress
from optrode.trial.trial import Trial, World


def sweep(
    model: Model, task: Task, gate: Gate, *, metric: str | Metric | None = None, world: World | None = None,
    progress: Progress = no_progress, bench: Bench | None = None,
) -> Grid:  # fmt: skip
    """Run one trial per cell of a gate's `each` axes.

    Args:
        gate: e.g. `op.patch("blocks.*.resid_pre", each=("layer", "pos"))` or `op.zero("blocks.*.attn.z",
            each=("layer", "head"))`.
        metric: another metric than the task's.
        world: the prompts that the model reads. By default the world that the gate does not patch from, and the
            clean one for zero and mean ablation.
        progress: called after every cell.
        bench: to share recordings with other work on the same model and task.

    Raises:
        BadOption: no such metric or world.
        BadGate: an axis of `each` does not fit the site, or positions are swept over prompts of unequal length.
        Everything that `gates` raises.
    """
    started = time.monotonic()
    if world is not None and world not in WORLDS:
        raise BadOption(f"world {world!r}", "no such world", nearest=nearest(world, WORLDS) or WORLDS)
    bench = bench or Bench(model, task, metric)
    source: World | None = _source_world(gate)
    world = world or ("corrupt" if source == "clean" else "clean")
    axes, cells = expand(model, task, gate)
    bench.worlds.remember([gate], world if can_be_shared(gate) else None)
    values, is_null = [], []
    for ix, cell in enumerate(cells):
        trial = Trial((cell,), world, bench.metric.name)
        is_null.append(all(start.position is None for start in bench.starts(trial)))
        values.append(bench.run(trial))
        progress(f"sweep {gate.site}", ix + 1, len(cells))
    return Grid(
        title=str(gate), task=task.name, metric=bench.metric.name, unit=bench.metric.unit, axes=axes,
        sites=tuple(str(cell.site) for cell in cells), values=tuple(values), base=bench.base(world),
        source=bench.base(source) if source and source != world else None, is_null=tuple(is_null),
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes,
        ),
    )  # fmt: skip


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
    if axis == "pos":
        return _positions(task, name)
    sites = select_sites(model, name)
    if axis == "layer":
        if name.layers is None:
            raise BadGate(f"each={axis!r} at {name}", "the site stands outside the blocks", next_step="sweep without layer")
        layers = tuple(site.name.layers.single or 0 for site in sites if site.name.layers is not None)
        return tuple(map(str, layers)), layers
    size = model.table.size(name.kind, axis) if not name.is_module else None
    axes = sites[0].place.view.axes
    if axis not in axes:
        has = f"the site has the axes {', '.join(axes)}" if axes else "a module's own site has no named axes"
        raise BadGate(f"each={axis!r} at {name}", has, next_step=f"sweep without {axis}")
    if size is None:
        found = f"how many {axis}s it has is not known before a run"
        raise BadGate(f"each={axis!r} at {name}", found, next_step=f"sweep without {axis}")
    indices = (name.index(axis) or ALL).resolve(size)
    return tuple(map(str, indices)), indices


def _positions(task: Task, name: SiteName) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if task.length is None:
        lengths = sorted({len(pair.clean) for pair in task.pairs})
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
