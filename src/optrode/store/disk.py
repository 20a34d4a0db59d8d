"""Files that are there whole or not at all, also after a power cut; and what is said when the disk refuses."""

import errno
import os
import sys
from pathlib import Path
from typing import Final

from optrode.errors import BadFile, RunError, StoreFull

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_SYNC: Final = (errno.EINVAL, errno.ENOTSUP)


def write_whole(path: Path, data: bytes) -> None:
    """Write bytes whole or not at all: a sibling file is written, synchronised, and renamed over the target.

    Raises:
        OSError: the disk refused. The target is then as it was.
    """
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder last: a renamed file is only safe once its folder is synchronised too."""
    if sys.platform == "win32":
        return  # no folder can be opened there
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:  # some network file systems synchronise by themselves
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Create a folder that lasts.

    Raises:
        BadFile: it is a file, or cannot be created.
        StoreFull: the disk is full.
    """
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise refusal(folder, error) from error


def refusal(path: Path, error: OSError) -> RunError:
    """What to raise when the disk refused to write at `path`."""
    if error.errno in FULL:
        return full(path)
    is_file = isinstance(error, (FileExistsError, NotADirectoryError))
    found = "this is a file, not a folder" if is_file else f"it cannot be written ({error.strerror or error})"
    return BadFile(f"run folder {path}", found, next_step="choose another --out")


def full(path: Path) -> StoreFull:
    """What to raise when the disk takes no more."""
    found = "the disk is full; every trial committed so far is on disk and whole"
    return StoreFull(f"write to {path}", found, next_step="free space and run the same command again: it goes on from there")
