"""One writer per run folder. The lock is the operating system's: it goes with its process, however that ends."""

import os
import sys
from pathlib import Path
from typing import Final, final

from filelock import FileLock, Timeout

from optrode.errors import RunBusy
from optrode.store.disk import refusal

_LOCK: Final = ".lock"
_PID: Final = ".lock.pid"
_WAIT_S: Final = 0.3  # whoever looks (see `holder`) holds the lock for microseconds; a writer, for long


@final
class WriterLock:
    """The right to write into a run folder, held until `release`.

    Raises:
        RunBusy: it is held, by another process or elsewhere in this one.
        BadFile: the folder cannot be written.
        StoreFull: the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._pid = folder / _PID
        self._lock = FileLock(folder / _LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=_WAIT_S)
        except Timeout:
            raise _busy(folder) from None
        except OSError as error:
            raise refusal(folder, error) from error
        try:
            self._pid.write_text(f"{os.getpid()}\n")
        except OSError as error:
            self.release()
            raise refusal(folder, error) from error

    def release(self) -> None:
        """Let others write. May be called twice: the second time, the process id there may be another writer's."""
        if self._lock.is_locked:
            self._pid.unlink(missing_ok=True)
            self._lock.release()


def holder(folder: Path) -> int | None:
    """The process id of the writer of a run folder; None when nobody writes. Works where nothing can be written."""
    pid = _pid(folder)
    return pid if pid is not None and _is_held(folder / _LOCK) else None


def _pid(folder: Path) -> int | None:
    try:
        return int((folder / _PID).read_text())
    except (OSError, ValueError):
        return None


def _is_held(path: Path) -> bool:
    """A process id alone could be that of a killed writer, given to another process since."""
    if sys.platform == "win32":
        return True  # no shared look is possible there
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held; or a file system without locks, where the process id is all there is
        return True
    finally:
        os.close(handle)
    return False


def _busy(folder: Path) -> RunBusy:
    pid = _pid(folder)
    who = "this process" if pid == os.getpid() else "another process"
    found = f"{who} writes there" + (f" (process id {pid})" if pid else "")
    return RunBusy(f"run folder {folder}", found, next_step="wait until it has finished, or choose another --out")
