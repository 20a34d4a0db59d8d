"""Checkpoints and measures of a training loop of one's own, kept as `fit` keeps them.

    with op.gates(model, *clamps, optimizer=optimizer):
        for step, batch in enumerate(batches):
            if step in op.train.log_spaced(10_000):
                op.train.keep(model, "runs/own", step, loss=loss, induction=score(model))

The folder then serves `op.train.load_run`, `op.train.along`, and the page, like one that `fit` wrote.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.records import read_named, write_named
from optrode.train.checkpoints import KINDS
from optrode.train.loop import CHECKPOINTS, RUN
from optrode.train.records import Kept, Series, TrainingRun
from optrode.train.state import write_tensors


def keep(model: Model, folder: Path | str, step: int, **measures: float) -> TrainingRun:
    """Keep the model's weights as they are now, and what was measured of it, in a folder; `loss` is drawn as the loss.

    What the folder holds of later steps is forgotten: a loop that starts again from a checkpoint goes on from there.

    Raises:
        BadOption: the step is negative.
        BadFile: the folder holds a damaged record.
    """
    if step < 0:
        raise BadOption(f"checkpoint of step {step}", "steps count from 0", next_step="give the number of updates made")
    where = Path(folder)
    (where / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    file = f"{CHECKPOINTS}/step-{step:08d}.safetensors"
    write_tensors(where / file, model.module.state_dict())
    before = _before(_read(where, model), step)
    run = replace(
        before, n_steps=step, loss=_grown(before.loss, step, measures.get("loss")),
        measures=_measures(before, step, measures),
        checkpoints=(*before.checkpoints, Kept(step, file, model.weights_hash)),
        provenance=provenance(model.name, model.weights_hash, before.provenance.random_seed, n_passes=step),
    )  # fmt: skip
    write_named(where / RUN, run)
    return run


def _read(where: Path, model: Model) -> TrainingRun:
    if (where / RUN).exists():
        run: TrainingRun = read_named(where / RUN, KINDS)
        return run
    nothing = Series((), ())
    return TrainingRun(where.name, (), 0, False, nothing, {}, (), provenance(model.name, model.weights_hash, 0))


def _before(run: TrainingRun, step: int) -> TrainingRun:
    """What a run held before a step."""
    measures = {name: _cut(series, step) for name, series in run.measures.items()}
    kept = tuple(one for one in run.checkpoints if one.step < step)
    return replace(run, loss=_cut(run.loss, step), measures=measures, checkpoints=kept)


def _cut(series: Series, step: int) -> Series:
    n = sum(at < step for at in series.steps)
    return Series(series.steps[:n], series.values[:n])


def _grown(series: Series, step: int, value: float | None) -> Series:
    return series if value is None else Series((*series.steps, step), (*series.values, float(value)))


def _measures(run: TrainingRun, step: int, found: Mapping[str, float]) -> dict[str, Series]:
    names = dict.fromkeys((*run.measures, *(name for name in found if name != "loss")))
    return {name: _grown(run.measures.get(name, Series((), ())), step, found.get(name)) for name in names}
