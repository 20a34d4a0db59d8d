"""A grid as a table: every number comes back from CSV and Parquet, one row per cell and prompt."""

import csv
import subprocess
import sys

import pytest
import samples
from pyarrow import parquet

from optrode.cli import main
from optrode.errors import BadFile, BadOption
from optrode.reports.export import AFTER, BEFORE, export
from optrode.reports.folder import write_run
from optrode.trial.grid import Axis, Grid

HOSTILE = 'a "quoted", label\nof two lines, = ü'


def grid(title="zero", source=(9.5, 8.25), axes=(("layer", 2), ("pos", 3))):
    """A small grid whose values are no round numbers."""
    made = tuple(Axis(name, tuple(f"{ix} {HOSTILE}" if name == "pos" else str(ix) for ix in range(n))) for name, n in axes)
    n_cells = 1
    for _, n in axes:
        n_cells *= n
    values = tuple((ix / 3, -ix / 7) for ix in range(n_cells))
    sites = tuple(f"blocks.{ix}.resid_pre" for ix in range(n_cells))
    is_null = tuple(ix == 0 for ix in range(n_cells))
    base = (0.1, 1e-300)
    return Grid(title, "ioi", "logit_gap", "logits", made, sites, values, base, source, is_null, samples.provenance())


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(text):
    return float(text) if text else None


def expected(name, made):
    """Value, base, source and whether null, by grid, site and prompt."""
    source = made.source or (None, None)
    return {
        (name, site, prompt): (made.values[cell][prompt], made.base[prompt], source[prompt], made.is_null[cell])
        for cell, site in enumerate(made.sites)
        for prompt in range(len(made.base))
    }


RECORDS = {"grid": grid(), "heads": grid("patch", source=None, axes=(("layer", 2), ("head", 2))), "task": samples.task()}
VALUES = expected("grid", RECORDS["grid"]) | expected("heads", RECORDS["heads"])


def test_csv_gives_every_number_back(tmp_path):
    path = tmp_path / "new" / "out.csv"
    assert export(RECORDS, path) == len(VALUES) == 20
    rows = read_csv(path)
    assert tuple(rows[0]) == (*BEFORE, "layer", "pos", "head", *AFTER)
    found = {
        (row["grid"], row["site"], int(row["prompt"])): (
            float(row["value"]), float(row["base"]), number(row["source"]), row["is_null"] == "True"
        )
        for row in rows
    }  # fmt: skip
    assert found == VALUES and all(float(r["effect"]) == float(r["value"]) - float(r["base"]) for r in rows)
    assert rows[0]["pos"] == f"0 {HOSTILE}" and rows[0]["head"] == "" and rows[-1]["pos"] == "" and rows[-1]["head"] == "1"
    assert [path.name for path in path.parent.iterdir()] == ["out.csv"]


def test_parquet_gives_every_number_back_with_its_type(tmp_path):
    assert export(RECORDS, tmp_path / "out.PARQUET") == 20
    table = parquet.read_table(tmp_path / "out.PARQUET")
    kinds = dict(zip(table.schema.names, map(str, table.schema.types), strict=True))
    assert tuple(kinds) == (*BEFORE, "layer", "pos", "head", *AFTER)
    some = {"value": "double", "source": "double", "prompt": "int64", "is_null": "bool", "pos": "string"}
    assert kinds.items() >= some.items()
    rows = table.to_pylist()
    keys = [(row["grid"], row["site"], row["prompt"]) for row in rows]
    cells = [(row["value"], row["base"], row["source"], row["is_null"]) for row in rows]
    assert dict(zip(keys, cells, strict=True)) == VALUES
    assert rows[0]["pos"] == f"0 {HOSTILE}" and rows[0]["head"] is None and rows[-1]["title"] == "patch"


def test_a_grid_without_axes_has_one_cell(tmp_path):
    assert export({"grid": grid(axes=())}, tmp_path / "one.csv") == 2
    assert [row["prompt"] for row in read_csv(tmp_path / "one.csv")] == ["0", "1"]


@pytest.mark.parametrize("name", ["empty.csv", "empty.parquet"])
def test_a_grid_without_cells_is_a_table_without_rows(tmp_path, name):
    assert export({"grid": grid(axes=(("layer", 0),))}, tmp_path / name) == 0
    assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize("name", ["out.xls", "out", "csv"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(BadOption, match=r"is not known. Nearest: .csv, .parquet"):
        export(RECORDS, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_run_without_grids_is_refused(tmp_path):
    with pytest.raises(BadOption, match="the run holds task, and no grid. Next: `optrode sweep"):
        export({"task": samples.task()}, tmp_path / "out.csv")


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadOption, match=r"pyarrow is not installed. Next: pip install 'optrode\[parquet\]', or"):
        export(RECORDS, tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir()) and export(RECORDS, tmp_path / "out.csv")


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    (tmp_path / "out.csv").write_text("before")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BadFile, match="cannot be written .No space left on device"):
        export(RECORDS, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(BadFile, match="cannot be written"):
        export(RECORDS, tmp_path / "out.csv")


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_the_command(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "run", {"grid": grid()})
    monkeypatch.setattr(sys, "argv", ["optrode", "export", str(tmp_path / "run"), "--to", str(tmp_path / "out.csv")])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code and capsys.readouterr() == (f"{tmp_path / 'out.csv'}: 12 rows\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "--to", "out.xls"], "[bad-option] export to out.xls: '.xls' is not known. Nearest: .csv, .parquet."),
        (["nowhere", "--to", "out.csv"], "[bad-file] run folder nowhere: no such folder."),
    ],
)
@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_wrong_inputs_of_the_command(tmp_path, monkeypatch, capsys, words, message):
    write_run(tmp_path / "run", {"grid": grid()})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["optrode", "export", *("run" if word == "RUN" else word for word in words)])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert left.value.code == 2 and out == "" and err.startswith(f"optrode: {message}") and err.count("\n") == 1


def test_it_needs_no_torch():
    code = "import sys, optrode.reports.export; print(sorted({'torch', 'transformers', 'pyarrow'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "[]\n", ran.stderr
