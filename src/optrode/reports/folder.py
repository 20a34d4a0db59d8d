"""A run folder: one JSON file per record, each naming its kind, and the page made of them. Needs no model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from optrode.circuit.circuit import Circuit, HeadScores, Proof, Scores
from optrode.circuit.edge import artefact
from optrode.circuit.edge.artefact import about
from optrode.claims import Figures, StudyRun
from optrode.control.records import Evaluation, GateQuality
from optrode.errors import BadFile, nearest
from optrode.records import read_named, write_named
from optrode.train.records import Emergence, TrainingRun
from optrode.trial.grid import Grid
from optrode.trial.prompts import Task

KINDS: Final[dict[str, type]] = {
    kind.__name__: kind
    for kind in (
        Task, Grid, Scores, Circuit, Proof, HeadScores, *artefact.KINDS.values(), StudyRun, Figures, TrainingRun, Emergence,
        Evaluation, GateQuality,
    )
}  # fmt: skip
_STATE: Final = "state.json"
"""From which a training run goes on; no record."""


def write_run(folder: Path, records: Mapping[str, Any]) -> None:
    """Write records as `<name>.json`, each whole or not at all; the arrays of one go to `<name>.safetensors`."""
    for name, record in records.items():
        write_named(folder / f"{name}.json", record, about(record))


def read_run(folder: Path) -> dict[str, Any]:
    """Every record of a run folder: name -> record. One that holds training runs alone, in folders of their own, is of all.

    Raises:
        BadFile: no such folder, no record in it, or a file that is not a whole record.
    """
    if not folder.is_dir():
        siblings = [str(p) for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        found = "this is a file" if folder.exists() else "no such folder"
        step = "give a folder that `optrode find --out FOLDER` wrote"
        raise BadFile(f"run folder {folder}", found, nearest=nearest(str(folder), siblings), next_step=step)
    paths = _records(folder)
    records = {path.relative_to(folder).with_suffix("").as_posix(): read_named(path, KINDS, about) for path in paths}
    if not records:
        raise BadFile(f"run folder {folder}", "it holds no record", next_step="`optrode find --out FOLDER` writes one")
    return records


def _records(folder: Path) -> list[Path]:
    """The files of records; of training runs below where there is none."""
    own = sorted(path for path in folder.glob("*.json") if path.name != _STATE)
    return own or sorted((*folder.glob("*/training.json"), *folder.glob("*/emergence.json")))
