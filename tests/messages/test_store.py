"""What a user is told about stores that are busy, full, damaged, or no stores at all."""

import os
import sqlite3

import pytest

from optrode.errors import BadFile, BadOption, BadStore, RunBusy, StoreFull
from optrode.records import content_hash
from optrode.store import Store, peek
from tests.messages.conftest import refused

KEY = content_hash("a trial")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "ioi"
    with Store(folder) as store:
        store.commit({KEY: (1.0, 2.0)})
    return folder


def change(run, *statements):
    connection = sqlite3.connect(run / "trials.sqlite", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_folder_that_somebody_writes_to(run):
    with Store(run) as store:
        pid = f"process id {os.getpid()}"
        with refused(RunBusy, f"run folder {run}", pid, "wait until it has finished, or choose another --out"):
            Store(run)
        assert store.read([KEY]) == {KEY: (1.0, 2.0)}


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "ioi").write_text("notes")
    for folder in (tmp_path / "ioi", tmp_path / "ioi" / "deep" / "er"):
        with refused(BadFile, f"run folder {folder}", "this is a file, not a folder", "choose another --out"):
            Store(folder)
    assert (tmp_path / "ioi").read_text() == "notes"


def test_a_file_in_place_of_the_tensors(tmp_path):
    (tmp_path / "tensors").write_text("notes")
    with refused(BadFile, str(tmp_path / "tensors"), "this is a file, not a folder", "choose another --out"):
        Store(tmp_path)
    (tmp_path / "tensors").unlink()
    Store(tmp_path).close()  # the lock was let go


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with refused(BadFile, "it cannot be written (Permission denied)", "choose another --out"):
        Store(tmp_path)
    with refused(BadFile, "it cannot be written (Permission denied)", "choose another --out"):
        Store(tmp_path / "new")


NOT_DATABASES = {"text": b"trials: none\n" * 99, "zeros": bytes(4096), "page": b"<!doctype html>" * 400}


@pytest.mark.parametrize("content", NOT_DATABASES)
def test_a_file_that_is_no_database(run, content):
    (run / "trials.sqlite").write_bytes(NOT_DATABASES[content])
    for look in (Store, peek):
        with refused(BadStore, f"store {run / 'trials.sqlite'}", "(file is not a database)", "choose another --out"):
            look(run)
    assert (run / "trials.sqlite").read_bytes() == NOT_DATABASES[content]


def test_a_folder_in_place_of_the_database(tmp_path):
    (tmp_path / "trials.sqlite").mkdir()
    with refused(BadStore, "unable to open database file", "choose another --out"):
        Store(tmp_path)


def test_the_database_of_another_program(run):
    (run / "trials.sqlite").unlink()
    change(run, "CREATE TABLE songs (title TEXT)", "INSERT INTO songs VALUES ('x')")
    before = (run / "trials.sqlite").read_bytes()
    for look in (Store, peek):
        with refused(BadStore, f"store {run / 'trials.sqlite'}", "the database of another program", "choose another --out"):
            look(run)
    assert (run / "trials.sqlite").read_bytes() == before


def test_a_newer_format(run):
    change(run, "PRAGMA user_version=9")
    before = (run / "trials.sqlite").read_bytes()
    for look in (Store, peek):
        with refused(BadStore, "its format is 9, this version reads 1", "update Optrode, or choose another --out"):
            look(run)
    assert (run / "trials.sqlite").read_bytes() == before and len(list((run / "tensors").iterdir())) == 1


def test_a_damaged_database(run):
    change(run, "DROP TABLE trials")
    for look in (Store, peek):
        with refused(BadStore, "no such table: trials", "its trials are then measured again"):
            look(run)
    (run / "trials.sqlite").unlink()
    with Store(run) as store:  # what the message says
        assert store.read([KEY]) == {}


def test_a_database_cut_short(run):
    whole = (run / "trials.sqlite").read_bytes()
    for n in range(100, 8000, 1000):  # its third page is empty yet
        (run / "trials.sqlite").write_bytes(whole[:n])
        with refused(BadStore, str(run / "trials.sqlite"), "it cannot be used", "its trials are then measured again"):
            peek(run)


def test_a_full_disk(run, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    with Store(run) as store, monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        whole, again = "every trial committed so far is on disk and whole", "free space and run the same command again"
        with refused(StoreFull, f"write to {run}", "the disk is full", whole, again):
            store.commit({KEY: (3.0,)})
        assert store.read([KEY]) == {KEY: (1.0, 2.0)}


def test_a_disk_that_fails(run, monkeypatch):
    def broken(handle):
        raise OSError(5, "Input/output error")

    with Store(run) as store, monkeypatch.context() as patched:
        patched.setattr("os.fsync", broken)
        with refused(BadFile, f"run folder {run}", "it cannot be written (Input/output error)", "choose another --out"):
            store.commit({KEY: (3.0,)})


def test_trials_that_are_none(run):
    with Store(run) as store:
        with refused(BadOption, "commit of 'L3'", "64 hexadecimal digits", "content hash"):
            store.commit({"L3": (1.0,)})
        with refused(BadOption, "commit of 2 trials", "its trials have 1, 2 values", "one value per prompt"):
            store.commit({KEY: (1.0,), content_hash("b"): (1.0, 2.0)})


def test_a_look_where_there_is_no_store(tmp_path):
    with refused(BadFile, f"store of {tmp_path}", "no such file", "`optrode runs` lists them"):
        peek(tmp_path)
    with refused(BadFile, f"store of {tmp_path / 'iio'}", "no such folder", "`optrode runs` lists them"):
        peek(tmp_path / "iio")


def test_a_closed_store(run):
    store = Store(run)
    store.close()
    with refused(BadStore, "Cannot operate on a closed database"):
        store.read([KEY])
