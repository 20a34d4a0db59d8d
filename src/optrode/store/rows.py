"""Which trials are finished, and where their values are: one SQLite row per trial, and a few notes about the run."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final

from optrode.errors import BadStore
from optrode.records import canonical
from optrode.store.disk import full

FILE: Final = "trials.sqlite"
FORMAT: Final = 1
_APPLICATION: Final = int.from_bytes(b"Optr")  # in the file's header: tells it from any other database
_WAIT_S: Final = 2.0  # for somebody who looks (see `peek`), which takes milliseconds
_AT_ONCE: Final = 500  # SQLite allows 999 parameters in its smallest build
_TABLES: Final = (
    "CREATE TABLE trials (key TEXT PRIMARY KEY, file TEXT NOT NULL, row INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
# SQLite calls a disk full by the first; over a quota, or where the index of its log cannot grow, by the others.
_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


@final
class Rows:
    """The open database of one run folder.

    Raises (every method):
        BadStore: the file is not such a database, is of a newer format, or is damaged.
        StoreFull: the disk is full.
    """

    def __init__(self, path: Path, mode: str = "rwc") -> None:
        self.path = path
        with told(path):
            self._connection = connect(path, mode)
        try:
            with told(path):
                self._prepare(mode)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, mode: str) -> None:
        self.is_new = _is_new(self._connection, self.path)
        if mode == "ro":
            return
        with suppress(sqlite3.OperationalError):  # a file system without shared memory keeps its own journal
            self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        if self.is_new:
            self._create()

    def _create(self) -> None:
        with self._writing() as connection:
            for table in _TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={FORMAT}")
        self.is_new = False

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: everything in it is on disk afterwards, or nothing."""
        with told(self.path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _select(self, query: str, *values: Any) -> list[Any]:
        with told(self.path):
            return [] if self.is_new else self._connection.execute(query, values).fetchall()

    def add(self, file: str, keys: Sequence[str]) -> None:
        """Point each key to its row of a tensor file, in one transaction."""
        with self._writing() as connection:
            rows = [(key, file, row) for row, key in enumerate(keys)]
            connection.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?)", rows)

    def find(self, keys: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Tensor file and row of those keys that are there."""
        found: dict[str, tuple[str, int]] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            query = f"SELECT key, file, row FROM trials WHERE key IN ({','.join('?' * len(some))})"
            with told(self.path):
                found |= {str(key): (str(file), int(row)) for key, file, row in self._select(query, *some)}
        return found

    def drop(self, file: str) -> int:
        """Delete the rows that point to a tensor file, and give their number."""
        with self._writing() as connection:
            return connection.execute("DELETE FROM trials WHERE file = ?", (file,)).rowcount

    def files(self) -> set[str]:
        """Every tensor file that a row points to."""
        return {str(file) for (file,) in self._select("SELECT DISTINCT file FROM trials")}

    def __len__(self) -> int:
        counted = self._select("SELECT count(*) FROM trials")
        return int(counted[0][0]) if counted else 0

    def note(self, key: str, value: Any) -> None:
        """Keep something about the run, as canonical JSON."""
        text = canonical(value)
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))

    def notes(self) -> dict[str, Any]:
        """Everything that was noted."""
        noted = self._select("SELECT key, value FROM meta ORDER BY key")
        with told(self.path):
            return {str(key): json.loads(value) for key, value in noted}

    def close(self) -> None:
        """Fold the log into the one file, so that the folder can be copied and read anywhere."""
        with suppress(sqlite3.Error):  # on a full disk, or while somebody looks, the log stays: nothing is lost
            self._connection.execute("PRAGMA journal_mode=DELETE")
        self._connection.close()

    def leave(self) -> None:
        """Close a database that was only looked at."""
        self._connection.close()


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """An SQLite connection in mode "rwc" or "ro", without implicit transactions."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Say an SQLite error in Optrode's words; also what Python makes of text and numbers that are damaged."""
    try:
        yield
    except (sqlite3.Error, ValueError, TypeError) as error:
        if getattr(error, "sqlite_errorcode", None) in _FULL:
            raise full(path.parent) from error
        step = "choose another --out, or delete the file: its trials are then measured again"
        raise BadStore(f"store {path}", f"it cannot be used ({error})", next_step=step) from error


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the database is still empty.

    Raises:
        BadStore: it belongs to another program or a newer version.
    """
    queries = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    application, version, n_tables = (connection.execute(query).fetchone()[0] for query in queries)
    if application == n_tables == 0:
        return True
    if application != _APPLICATION:
        raise BadStore(f"store {path}", "it is the database of another program", next_step="choose another --out")
    if version > FORMAT:
        found = f"its format is {version}, this version reads {FORMAT}"
        raise BadStore(f"store {path}", found, next_step="update Optrode, or choose another --out")
    return False
