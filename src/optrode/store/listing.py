"""Which runs there are, and how far each is. Reads files only, and disturbs no writer."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from optrode.errors import BadFile, BadStore, nearest
from optrode.records import read_json
from optrode.store.peek import Peek, is_store, peek
from optrode.store.tensors import FOLDER

_STEP: Final = "`optrode find --out runs/NAME` or `optrode sweep --out runs/NAME` writes one"


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        name: its path below the root.
        holds: names of its records, e.g. "circuit"; the task is left out unless it is all there is.
        title: what is swept, as the gate prints; "" where only records say what was done.
        task, model: names; "" where nothing says.
        n_done, n_trials: finished trials, and all that were planned; None without a store, or without a plan.
        state: "finished", "interrupted", "running" or "damaged" (its store cannot be read).
        pid: process id of the writer while it runs.
        date: when it started, or when its last record was made; UTC, ISO 8601.
        n_bytes: size of everything in the folder.
    """

    name: str
    folder: str
    holds: tuple[str, ...]
    title: str
    task: str
    model: str
    n_done: int | None
    n_trials: int | None
    state: str
    pid: int | None
    date: str
    n_bytes: int


def list_runs(root: Path) -> tuple[Run, ...]:
    """Every run folder at or below `root`, by name.

    Raises:
        BadFile: there is no such folder, or no run in it.
    """
    if root.exists() and not root.is_dir():
        raise BadFile(f"runs below {root}", "this is a file", next_step=_STEP)
    if not root.exists():
        siblings = {path.name: str(path) for path in root.parent.glob("*") if path.is_dir()}
        near = [siblings[name] for name in nearest(root.name, siblings)]
        raise BadFile(f"runs below {root}", "no such folder", nearest=near, next_step=_STEP)
    runs = tuple(sorted(_runs(root), key=lambda run: run.name))
    if not runs:
        raise BadFile(f"runs below {root}", "no run folder is there", next_step=_STEP)
    return runs


def _runs(root: Path) -> Iterator[Run]:
    for place, below, _ in os.walk(root):
        below[:] = [name for name in below if name != FOLDER and not name.startswith(".")]
        folder = Path(place)
        records = _records(folder)
        if is_store(folder) or any(records.values()):
            yield _run(root, folder, records)


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> record as JSON data, {} for one that is torn. Other JSON files are somebody else's."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            data = read_json(path)
        except (BadFile, OSError):
            found[path.stem] = {}
            continue
        if isinstance(data, dict) and {"format", "kind", "record"} <= data.keys() and isinstance(data["record"], dict):
            found[path.stem] = data["record"]
    return found


def _run(root: Path, folder: Path, records: dict[str, dict[str, Any]]) -> Run:
    seen, is_damaged = _seen(folder)
    plan = _dict(seen.meta.get("plan")) if seen else {}
    about = [_about(record) for record in records.values()]
    named = [f"{name}{'' if record else ' (torn)'}" for name, record in records.items()]
    return Run(
        name=str(folder.relative_to(root)) if folder != root else folder.resolve().name,
        folder=str(folder),
        holds=tuple(name for name in named if name != "task") or tuple(named),
        title=str(plan.get("title", "")),
        task=_first(plan.get("task"), *(task for task, _, _ in about)),
        model=_first(plan.get("model"), *(model for _, model, _ in about)),
        n_done=seen.n_done if seen else None,
        n_trials=_int(plan.get("n_trials")),
        state="damaged" if is_damaged else _state(seen),
        pid=seen.pid if seen else None,
        date=_first(plan.get("started"), max((date for _, _, date in about), default="")),
        n_bytes=_size(folder),
    )


def _seen(folder: Path) -> tuple[Peek | None, bool]:
    """What its store holds, if it has one; and whether that cannot be read."""
    try:
        return (peek(folder), False) if is_store(folder) else (None, False)
    except (BadStore, OSError):
        return None, True


def _state(seen: Peek | None) -> str:
    if seen is not None and seen.pid is not None:
        return "running"
    return "finished" if seen is None or seen.meta.get("finished") else "interrupted"


def _about(record: dict[str, Any]) -> tuple[str, str, str]:
    """Task, model and date of a record; a Task itself has a name only."""
    source = _dict(record.get("provenance"))
    task = record.get("task") or (record.get("name") if "pairs" in record else "")
    return str(task or ""), str(source.get("model", "")), str(source.get("date", ""))


def _first(*values: Any) -> str:
    return next((str(value) for value in values if value), "")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _size(folder: Path) -> int:
    """Bytes; a file that goes away while we look counts nothing."""
    n_bytes = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                n_bytes += (Path(place) / name).stat().st_size
            except OSError:
                continue
    return n_bytes
