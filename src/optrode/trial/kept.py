"""A run folder that keeps trials while they run."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from optrode.model.model import Model
from optrode.store.peek import is_store, peek
from optrode.store.store import Store


@contextmanager
def keeping(
    folder: str | Path | None, model: Model, *, title: str, task: str = "", n_trials: int | None = None
) -> Iterator[Store | None]:
    """The store of a run folder, with a note of what runs; None without a folder.

    Raises:
        RunBusy, BadStore, StoreFull: from the run folder.
    """
    if folder is None:
        yield None
        return
    folder = Path(folder)
    missing = _missing(folder)
    try:
        with Store(folder) as store:
            yield from _noted(store, model, title, task, n_trials)
    except BaseException:
        if missing and missing.exists() and not (is_store(folder) and peek(folder).n_done):
            shutil.rmtree(missing)  # a wrong input leaves no run behind
        raise


def _missing(folder: Path) -> Path | None:
    """The topmost folder on the way that is not there yet."""
    return next((path for path in [*reversed(folder.parents), folder] if not path.exists()), None)


def _noted(store: Store, model: Model, title: str, task: str, n_trials: int | None) -> Iterator[Store]:
    plan = {"n_trials": n_trials, "title": title, "task": task, "model": model.name, "started": _now()}
    store.note("plan", plan)
    store.note("finished", None)
    yield store
    store.note("finished", _now())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
