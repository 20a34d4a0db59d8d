"""A look into a run's store that disturbs nobody: no lock is kept and nothing is written."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optrode.errors import BadFile, BadStore
from optrode.store.lock import holder
from optrode.store.rows import FILE, Rows
from optrode.store.tensors import FOLDER


@dataclass(frozen=True)
class Peek:
    """What a store holds at this moment.

    Attributes:
        n_done: finished trials.
        meta: everything that was noted.
        n_bytes: size of the store on disk.
        pid: process id of its writer; None when nobody writes.
    """

    n_done: int
    meta: dict[str, Any]
    n_bytes: int
    pid: int | None


def is_store(folder: Path | str) -> bool:
    """Whether a run folder has a store."""
    return (Path(folder) / FILE).is_file()


def peek(folder: Path | str) -> Peek:
    """Look into a run's store, also while a process writes there and where nothing can be written.

    Raises:
        BadFile: there is no store.
        BadStore: it is another program's, of a newer format, or damaged.
    """
    folder = Path(folder)
    if not is_store(folder):
        step = "give a run folder; `optrode runs` lists them"
        raise BadFile(f"store of {folder}", "no such file" if folder.is_dir() else "no such folder", next_step=step)
    n_done, meta = _look(folder)
    return Peek(n_done, meta, _size(folder), holder(folder))


def _look(folder: Path) -> tuple[int, dict[str, Any]]:
    try:
        return _counted(folder / FILE, "ro")
    except BadStore:
        return _look_at_a_copy(folder)


def _look_at_a_copy(folder: Path) -> tuple[int, dict[str, Any]]:
    """A killed writer leaves a log that only someone with the right to write can read: so read a copy."""
    with TemporaryDirectory() as place:
        for path in folder.glob(f"{FILE}*"):
            if not path.name.endswith("-shm"):  # an index of the log, made again from it
                shutil.copyfile(path, Path(place) / path.name)
        try:
            return _counted(Path(place) / FILE, "rw")
        except BadStore as error:
            raise BadStore(f"store {folder / FILE}", error.found, next_step=error.next_step) from error


def _counted(path: Path, mode: str) -> tuple[int, dict[str, Any]]:
    rows = Rows(path, mode)
    try:
        return len(rows), rows.notes()
    finally:
        rows.leave()


def _size(folder: Path) -> int:
    """Bytes; a file that goes away while we look counts nothing."""
    sizes = []
    for path in (*folder.glob(f"{FILE}*"), *(folder / FOLDER).glob("*")):
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            continue
    return sum(sizes)
