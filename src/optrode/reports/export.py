"""Grids as one table for other programs: one row per cell and prompt, as CSV or Parquet. Needs no model."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final

from optrode.errors import BadFile, BadOption
from optrode.store.disk import write_whole
from optrode.trial.grid import Grid

BEFORE: Final = ("grid", "title", "task", "metric", "unit")
AFTER: Final = ("site", "prompt", "value", "base", "source", "effect", "is_null")


def export(records: Mapping[str, Any], path: Path) -> int:
    """Write every Grid among named records as a table, whole or not at all, and give its number of rows.

    Columns: grid (the record's name), title, task, metric, unit, one per axis with the step's label, site, prompt
    (index), value, base, source, effect (value - base; all four in `unit`), is_null. A cell is empty where a grid lacks
    that axis or has no source world.

    Args:
        records: as `read_run` gives them.
        path: a file that ends in .csv or .parquet.

    Raises:
        BadOption: another suffix, no grid among the records, or Parquet without pyarrow.
        BadFile: the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in WRITERS:
        raise BadOption(f"export to {path}", f"{kind or 'no suffix'!r} is not known", nearest=tuple(WRITERS))
    grids = {name: record for name, record in records.items() if isinstance(record, Grid)}
    if not grids:
        found = f"the run holds {', '.join(sorted(records)) or 'nothing'}, and no grid"
        raise BadOption(f"export to {path}", found, next_step="`optrode sweep --out FOLDER` writes one")
    axes = tuple(dict.fromkeys(axis.name for grid in grids.values() for axis in grid.axes))
    rows = [row for name, grid in grids.items() for row in _rows(name, grid, axes)]
    data = WRITERS[kind](axes, rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        step = "give another file, or make room"
        raise BadFile(f"export to {path}", f"it cannot be written ({error.strerror})", next_step=step) from error
    return len(rows)


def _rows(name: str, grid: Grid, axes: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    head = (name, grid.title, grid.task, grid.metric, grid.unit)
    source = grid.source or (None,) * len(grid.base)
    steps = product(*(axis.labels for axis in grid.axes))
    for labels, site, cell, is_null in zip(steps, grid.sites, grid.values, grid.is_null, strict=True):
        at = dict(zip((axis.name for axis in grid.axes), labels, strict=True))
        place = (*head, *(at.get(axis) for axis in axes), site)
        for prompt, (value, base, other) in enumerate(zip(cell, grid.base, source, strict=True)):
            yield (*place, prompt, value, base, other, value - base, is_null)


def _csv(axes: tuple[str, ...], rows: list[tuple[Any, ...]]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow((*BEFORE, *axes, *AFTER))
    table.writerows(rows)
    return text.getvalue().encode()


def _parquet(axes: tuple[str, ...], rows: list[tuple[Any, ...]]) -> bytes:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        step = "pip install 'optrode[parquet]', or export to .csv"
        raise BadOption("export to Parquet", "the package pyarrow is not installed", next_step=step) from error
    words, floats = (*BEFORE, *axes, "site"), ("value", "base", "source", "effect")
    kinds = dict.fromkeys(words, pa.string()) | dict.fromkeys(floats, pa.float64())
    kinds |= {"prompt": pa.int64(), "is_null": pa.bool_()}
    schema = pa.schema([(name, kinds[name]) for name in (*BEFORE, *axes, *AFTER)])
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    table = pa.table([pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)], schema=schema)
    written = io.BytesIO()
    parquet.write_table(table, written)
    return written.getvalue()


WRITERS: Final[dict[str, Callable[[tuple[str, ...], list[tuple[Any, ...]]], bytes]]] = {".csv": _csv, ".parquet": _parquet}
