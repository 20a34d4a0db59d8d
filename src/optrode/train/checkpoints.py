"""Anything that can be made of a model, made of each checkpoint of its training, and kept where it was made."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import make_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from optrode.arrays import read_arrays
from optrode.errors import BadFile, BadOption
from optrode.model.model import Model
from optrode.records import content_hash, read_json, read_named, restore, write_record
from optrode.train.loop import RUN, Trained
from optrode.train.records import TrainingRun
from optrode.train.state import load_weights
from optrode.trial.key import fingerprint
from optrode.trial.run import Progress, no_progress

ALONG: Final = "along"
KINDS: Final[dict[str, type]] = {"TrainingRun": TrainingRun}


def load_run(folder: Path | str, model: Model) -> Trained:
    """A run that `fit` left in a folder, over a model of its architecture, whose weights stay as they are.

    Raises:
        BadFile: no finished run is there.
    """
    run = read_named(Path(folder) / RUN, KINDS)
    return Trained(model, run, Path(folder), {})


def at_step(trained: Trained, step: int) -> Model:
    """A copy of a run's model with the weights of the checkpoint before the update of that number.

    Raises:
        BadOption: no checkpoint was kept there.
        BadFile: the checkpoint is that of another architecture.
    """
    weights = trained.weights_at(step)
    module = copy.deepcopy(trained.model.module)
    load_weights(module, weights, f"checkpoint of step {step} of {trained.run.name!r}")
    return Model(module.eval(), trained.model.table, trained.model.tokenizer, f"{trained.model.name} at step {step}")


def along(
    trained: Trained, look: Callable[[Model], Any], *, kind: Any = None, steps: Sequence[int] | None = None,
    progress: Progress = no_progress,
) -> dict[int, Any]:  # fmt: skip
    """What a function makes of the model at each checkpoint: a recording's arrays, scores, a circuit, a measure.

    A run with a folder keeps each result there as soon as it is made, under a key of the checkpoint's weights and the
    function, so that a sweep that was killed goes on.

    Args:
        look: of the model; returns a number, a mapping of numbers, a NumPy array or a record.
        kind: type of what it returns, e.g. `op.EdgeCircuit`, `dict[str, float]`; needed to keep it. Without it, nothing is.
        steps: of the checkpoints; all that were kept by default.

    Raises:
        BadOption: no checkpoint was kept at one of the steps.
    """
    chosen = [one.step for one in trained.run.checkpoints] if steps is None else list(steps)
    if not chosen:
        hint = "name steps in the plan's keep_at"
        raise BadOption(f"checkpoints of {trained.run.name!r}", "the run kept none", next_step=hint)
    found: dict[int, Any] = {}
    for done, step in enumerate(chosen):
        found[step] = _made_or_read(trained, look, kind, step)
        progress("checkpoints", done + 1, len(chosen))
    return found


def _made_or_read(trained: Trained, look: Callable[[Model], Any], kind: Any, step: int) -> Any:
    hashes = {one.step: one.weights_hash for one in trained.run.checkpoints}
    if trained.folder is None or kind is None or step not in hashes:
        return look(at_step(trained, step))
    key = content_hash([version("optrode"), hashes[step], fingerprint(look)])
    path = trained.folder / ALONG / f"{step:08d}-{key[:16]}.json"
    if path.exists():
        return _read(path, kind)
    value = _plain(look(at_step(trained, step)))
    try:
        write_record(path, {"value": value, "step": step})
    except ValueError:  # JSON has no NaN: what is not a number is given back, and made again next time
        return value
    except TypeError as error:
        found = f"a {type(value).__name__} cannot be kept ({error})"
        hint = "return what `along` takes, or leave out `kind`"
        raise BadOption(f"along with kind={kind}", found, next_step=hint) from None
    return value


def _plain(value: Any) -> Any:
    """As `write_record` takes it and `_read` gives it back: tensors become arrays."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _read(path: Path, kind: Any) -> Any:
    data = read_json(path)
    result: Any = make_dataclass("Result", [("value", NDArray[Any] if kind is np.ndarray else kind)], frozen=True)
    try:
        return restore(result, {"value": data["value"]}, read_arrays(path, data)).value
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration) as error:
        step = f"delete {path.name} to have it made again"
        raise BadFile(f"result {path}", f"not a {kind} ({error})", next_step=step) from error
