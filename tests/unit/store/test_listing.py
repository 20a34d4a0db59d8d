"""`optrode runs` says of every run folder what it holds and how far it is, whoever writes there."""

import json
import os
import subprocess
import sys

import pytest

from optrode.cli import main
from optrode.records import write_record
from optrode.store import Store
from optrode.store.listing import list_runs

from .conftest import chunk

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

STARTED = "2025-11-22T03:00:00+00:00"
PLAN = {"n_trials": 6, "title": "zero at blocks.*.attn.z", "task": "ioi", "model": "smollm2", "started": STARTED}


def write(folder, file, **record):
    write_record(folder / f"{file}.json", {"format": 1, "kind": file.title(), "record": record})


def proven(folder):
    """A run folder with records and no store."""
    source = {"model": "owner/tiny", "date": "2025-11-20T10:00:00+00:00"}
    write(folder, "task", name="ioi", pairs=[])
    write(folder, "circuit", task="ioi", provenance=source)
    write(folder, "proof", task="ioi", provenance=source | {"date": "2025-11-21T10:00:00+00:00"})


def begun(folder, n_chunks=1, **notes):
    with Store(folder) as store:
        store.note("plan", PLAN)
        for ix in range(n_chunks):
            store.commit(chunk(ix))
        for key, value in notes.items():
            store.note(key, value)


def test_records_without_a_store(tmp_path):
    proven(tmp_path / "a")
    (run,) = list_runs(tmp_path)
    assert (run.name, run.holds, run.task, run.model) == ("a", ("circuit", "proof"), "ioi", "owner/tiny")
    assert (run.state, run.date, run.n_done, run.n_trials) == ("finished", "2025-11-21T10:00:00+00:00", None, None)
    assert run.n_bytes == sum(path.stat().st_size for path in (tmp_path / "a").iterdir())


def test_a_store_without_records(tmp_path):
    begun(tmp_path / "a")
    (run,) = list_runs(tmp_path)
    assert (run.holds, run.title, run.task, run.model, run.date) == ((), PLAN["title"], "ioi", "smollm2", STARTED)
    assert (run.state, run.n_done, run.n_trials, run.pid) == ("interrupted", 3, 6, None)


def test_states(tmp_path):
    begun(tmp_path / "done", 2, finished="2025-11-22T03:05:00+00:00")
    begun(tmp_path / "again", 2, finished=None)  # finished once, and begun again
    begun(tmp_path / "deep" / "er" / "damaged")
    (tmp_path / "deep" / "er" / "damaged" / "trials.sqlite").write_bytes(b"nothing like it" * 99)
    with Store(tmp_path / "now"):
        runs = {run.name: run for run in list_runs(tmp_path)}
    states = {name: run.state for name, run in runs.items()}
    assert states == {"again": "interrupted", "deep/er/damaged": "damaged", "done": "finished", "now": "running"}
    assert list(runs) == sorted(runs) and runs["now"].pid == os.getpid()


def test_the_root_may_be_a_run_itself(tmp_path):
    proven(tmp_path / "ioi")
    assert [run.name for run in list_runs(tmp_path / "ioi")] == ["ioi"]


def test_torn_records_are_named_and_other_json_files_are_not_runs(tmp_path):
    proven(tmp_path / "a")
    (tmp_path / "a" / "proof.json").write_text('{"format": 1, "ki')
    for name, text in {"list": "[1]", "plain": '{"x": 1}', "torn": "{", "empty": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "package.json").write_text(text)
    (run,) = list_runs(tmp_path)
    assert run.holds == ("circuit", "proof (torn)")


def test_notes_of_another_shape(tmp_path):
    begun(tmp_path / "a", plan=["soon"])
    (run,) = list_runs(tmp_path)
    assert (run.n_done, run.n_trials, run.task, run.state) == (3, None, "", "interrupted")


@pytest.fixture
def said(monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["optrode", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0, *capsys.readouterr()

    return command


def test_the_table(said, tmp_path):
    proven(tmp_path / "names[b]")
    begun(tmp_path / "half")
    code, out, err = said("runs", tmp_path)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and err == "" and lines[0] == ["run", "holds", "task", "model", "trials", "state", "date", "size"]
    assert "3 of 6 interrupted 2025-11-22" in " ".join(lines[1])
    (named,) = [line for line in lines if line[0] == "names[b]"]
    assert " ".join(named).startswith("names[b] circuit + proof ioi tiny finished 2025-11-21") and named[-1] == "bytes"
    assert max(map(len, out.splitlines())) <= 80


def test_the_table_of_long_names_keeps_state_date_and_size_whole(said, tmp_path):
    plan = PLAN | {"n_trials": 3360, "task": "a_task_of_my_own", "model": "owner/A-Rather-Long-Name-135M-Instruct"}
    with Store(tmp_path / "a rather long name of a run") as store:
        store.note("plan", plan)
        _, out, _ = said("runs", tmp_path)
    first, second = (line.split() for line in out.splitlines()[1:3])
    assert {"running", "2025-11-22", "kB"} <= set(first) and f"{os.getpid()})" in second
    assert max(map(len, out.splitlines())) <= 80


def test_the_table_as_json(said, tmp_path):
    begun(tmp_path / "half")
    with Store(tmp_path / "half"):
        code, out, err = said("runs", tmp_path, "--json")
    (run,) = json.loads(out)
    assert code == 0 and err == "" and (run["state"], run["pid"], run["n_done"]) == ("running", os.getpid(), 3)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("nowhere", "no such folder. Nearest: "),
        ("empty", "no run folder is there. Next: "),
        ("file", "this is a file. Next: "),
        ("quite/elsewhere", "no such folder. Next: "),
    ],
)
def test_no_runs_is_one_line(said, tmp_path, root, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "nowheer").mkdir()
    (tmp_path / "file").touch()
    code, out, err = said("runs", tmp_path / root)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith(f"optrode: [bad-file] runs below {tmp_path / root}: {message}") and "`optrode find --out" in err


def test_it_needs_no_torch(tmp_path):
    begun(tmp_path / "half")
    code = (
        f"import atexit, sys; sys.argv = ['optrode', 'runs', {str(tmp_path)!r}]\n"
        "atexit.register(lambda: print('LOADED', sorted({'torch', 'transformers', 'plotly'} & set(sys.modules))))\n"
        "from optrode.cli import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "half" in ran.stdout and "LOADED []" in ran.stdout, ran.stderr
