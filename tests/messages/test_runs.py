"""What a user is told about run folders that are not there, torn, or of another version."""

import pytest

import optrode as op
from optrode.errors import BadFile
from optrode.reports.folder import read_run, write_run
from tests.messages.conftest import refused


@pytest.fixture
def run(model, tmp_path):
    folder = tmp_path / "ioi"
    write_run(folder, {"task": op.tasks.ioi(model, n=2, require_accuracy=0.0)})
    return folder


def test_whole_records_come_back(run, model):
    assert read_run(run) == {"task": op.tasks.ioi(model, n=2, require_accuracy=0.0)}
    assert [path.name for path in run.iterdir()] == ["task.json"]


def test_folders_that_are_not_there(run, tmp_path):
    with refused(BadFile, f"run folder {tmp_path / 'ioj'}", "no such folder", f"Nearest: {run}"):
        read_run(tmp_path / "ioj")
    (tmp_path / "empty").mkdir()
    with refused(BadFile, "it holds no record", "`optrode find --out FOLDER` writes one"):
        read_run(tmp_path / "empty")


TEXTS = {
    "": "the file is empty",
    '{"format": 1, "kind": "Ta': "not JSON, or torn",
    "[1]": "does not say what kind of record",
    '{"format": 1, "kind": "Trick", "record": {}}': "does not say what kind of record",
    '{"format": 9, "kind": "Task", "record": {}}': "its format is 9, this version reads 1",
    '{"format": 1, "kind": "Task", "record": {"name": "x"}}': "not a whole Task",
    '{"format": 1, "kind": "Task", "record": {"name": "x", "pairs": [3]}}': "not a whole Task",
}


@pytest.mark.parametrize("text", TEXTS)
def test_torn_records(run, text):
    (run / "task.json").write_text(text)
    with refused(BadFile, str(run / "task.json"), TEXTS[text], "run the command that wrote it again"):
        read_run(run)
    assert (run / "task.json").read_text() == text


def test_records_cut_anywhere(run):
    whole = (run / "task.json").read_bytes()
    for n in range(0, len(whole) - 2, 97):
        (run / "task.json").write_bytes(whole[:n])
        with refused(BadFile, "run the command that wrote it again"):
            read_run(run)


def test_records_that_are_not_text(run):
    (run / "task.json").write_bytes(b"\xff\xfe\x00")
    with refused(BadFile, str(run / "task.json"), "run the command that wrote it again"):
        read_run(run)
