"""The store of one run folder: what was measured stays measured, whatever happens to the process."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

import numpy as np

from optrode.errors import BadOption
from optrode.store.disk import make_folder, refusal
from optrode.store.lock import WriterLock
from optrode.store.rows import FILE, Rows
from optrode.store.tensors import FOLDER, Chunk, read_chunk, sweep_chunks, write_chunk

_HEX: Final = frozenset("0123456789abcdef")
_KEY_LENGTH: Final = 64


@final
class Store:
    """Finished trials of one run folder. One writer at a time.

    A trial is kept under its content hash as one float64 value per prompt, in its metric's unit. A chunk of trials is
    there entirely or not at all: its tensor file is on disk before one transaction adds its rows.

    Args:
        folder: the run folder; created where it is missing.

    Attributes:
        n_torn: number of trials found torn or missing on disk since the store was opened; they are to be measured again.

    Raises:
        RunBusy: another process writes there.
        BadFile: the folder is a file, or cannot be written.
        BadStore: its database is another program's, of a newer format, or damaged.
        StoreFull: the disk is full.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.n_torn = 0
        make_folder(self.folder)
        self._lock = WriterLock(self.folder)
        try:
            self._rows = Rows(self.folder / FILE)
            self._clean()
        except BaseException:
            self._lock.release()
            raise

    def _clean(self) -> None:
        self._tensors = self.folder / FOLDER
        try:
            make_folder(self._tensors)
            sweep_chunks(self._tensors, self._rows.files())
        except OSError as error:
            self._rows.close()
            raise refusal(self._tensors, error) from error
        except BaseException:
            self._rows.close()
            raise

    def read(self, keys: Sequence[str]) -> dict[str, tuple[float, ...]]:
        """The values of those trials that are there and whole, in the order asked for: key -> [prompt].

        Every tensor file is checked against its hash. Where one is torn or missing, its trials are forgotten, so that
        they are measured again, and counted in `n_torn`.

        Raises:
            BadStore: a file is there and cannot be read, or the database is damaged.
        """
        wanted: dict[str, dict[str, int]] = defaultdict(dict)
        for key, (file, row) in self._rows.find(keys).items():
            wanted[file][key] = row
        found: dict[str, tuple[float, ...]] = {}
        for file, rows in wanted.items():
            chunk = read_chunk(self._tensors, file)
            if chunk is None or not all(chunk.has(key, row) for key, row in rows.items()):
                self.n_torn += self._rows.drop(file)
            else:
                found |= {key: tuple(chunk.values[row].tolist()) for key, row in rows.items()}
        return {key: found[key] for key in keys if key in found}

    def commit(self, values: Mapping[str, Sequence[float]]) -> None:
        """Add one chunk of trials: trial hash -> [prompt] value in the metric's unit; replaces those already there.

        On return they are on disk for good. After an error none of them is, and the store can be used on.

        Raises:
            BadOption: a key is no trial hash, or the trials differ in their number of prompts.
            StoreFull: the disk is full.
        """
        if not values:
            return
        chunk = _chunk(values)
        try:
            file = write_chunk(self._tensors, chunk)
        except OSError as error:
            raise refusal(self.folder, error) from error
        self._rows.add(file, chunk.keys)

    def note(self, key: str, value: Any) -> None:
        """Keep something about the run: a record, or what JSON can hold. Replaces what was noted under that key.

        Raises:
            ValueError: it holds NaN or infinity.
            StoreFull: the disk is full.
        """
        self._rows.note(key, value)

    def noted(self, key: str) -> Any | None:
        """What was noted under a key, as JSON data (tuples are lists); None when nothing was."""
        return self._rows.notes().get(key)

    def __len__(self) -> int:
        """Number of finished trials."""
        return len(self._rows)

    def __bool__(self) -> bool:
        """True also while it is empty: a store is not "no store"."""
        return True

    def close(self) -> None:
        """Fold everything into plain files and let others write. May be called twice."""
        self._rows.close()
        self._lock.release()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _chunk(values: Mapping[str, Sequence[float]]) -> Chunk:
    step = "commit a mapping from each trial's content hash to one value per prompt"
    for key in values:
        if len(key) != _KEY_LENGTH or not _HEX.issuperset(key):
            raise BadOption(f"commit of {key!r}", "a trial's key has 64 hexadecimal digits", next_step=step)
    lengths = sorted({len(row) for row in values.values()})
    if len(lengths) > 1 or not lengths[0]:
        found = f"its trials have {', '.join(map(str, lengths))} values"
        raise BadOption(f"commit of {len(values)} trials", found, next_step=step)
    return Chunk(tuple(values), np.array([tuple(row) for row in values.values()], dtype=np.float64))
