"""A run folder: one JSON file per record, each naming its kind, and the page made of them. Needs no model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from optrode.circuit.circuit import Circuit, HeadScores, Proof, Scores
from optrode.errors import BadFile, nearest
from optrode.records import read_json, restore, write_record
from optrode.trial.grid import Grid
from optrode.trial.prompts import Task

KINDS: Final[dict[str, type]] = {kind.__name__: kind for kind in (Task, Grid, Scores, Circuit, Proof, HeadScores)}
FORMAT: Final = 1


@dataclass(frozen=True)
class _Envelope:
    """How a record stands in its file."""

    format: int
    kind: str
    record: Any


def write_run(folder: Path, records: Mapping[str, Any]) -> None:
    """Write records as `<name>.json`, each whole or not at all."""
    for name, record in records.items():
        write_record(folder / f"{name}.json", _Envelope(FORMAT, type(record).__name__, record))


def read_run(folder: Path) -> dict[str, Any]:
    """Every record of a run folder: name -> record.

    Raises:
        BadFile: no such folder, no record in it, or a file that is not a whole record.
    """
    if not folder.is_dir():
        siblings = [str(p) for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        found = "this is a file" if folder.exists() else "no such folder"
        step = "give a folder that `optrode find --out FOLDER` wrote"
        raise BadFile(f"run folder {folder}", found, nearest=nearest(str(folder), siblings), next_step=step)
    records = {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}
    if not records:
        raise BadFile(f"run folder {folder}", "it holds no record", next_step="`optrode find --out FOLDER` writes one")
    return records


def _read(path: Path) -> Any:
    data = read_json(path)
    step = "run the command that wrote it again"
    if not isinstance(data, dict) or data.get("kind") not in KINDS:
        raise BadFile(f"record {path}", "it does not say what kind of record it is", next_step=step)
    if data.get("format") != FORMAT:
        raise BadFile(f"record {path}", f"its format is {data.get('format')}, this version reads {FORMAT}", next_step=step)
    try:
        return restore(KINDS[data["kind"]], data["record"])
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
        found = f"not a whole {data['kind']} ({type(error).__name__}: {error})"
        raise BadFile(f"record {path}", found, next_step=step) from error
