"""What survives: kills at any moment, a second writer, disks that are full or cannot be written."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from optrode.errors import RunBusy, StoreFull
from optrode.store import Store, peek
from optrode.store.tensors import FOLDER

from .conftest import chunk, key

KEYS = 3
"""Trials per chunk."""

COMMITS = """
import sys
from optrode.records import content_hash
from optrode.store import Store

with Store(sys.argv[1]) as store:
    store.note("plan", {"n_trials": 1000})
    print("open", flush=True)
    for ix in range(int(sys.argv[2]), 1000):
        store.commit({content_hash((ix, row)): [ix + row / 10 + pos / 1000 for pos in range(4)] for row in range(3)})
        print(ix, flush=True)
"""


@contextmanager
def writer(run, first=0):
    """A process that commits one chunk after another; killed at the end of the block."""
    words = [sys.executable, "-c", COMMITS, str(run), str(first)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def chunks_done(store, n):
    """Which of the first n chunks are there; each is whole or not there at all."""
    done = []
    for ix in range(n):
        found = store.read(list(chunk(ix)))
        assert found in ({}, chunk(ix))
        done += [ix] if found else []
    return done


def test_kills_at_any_moment_leave_whole_chunks_and_lose_none_that_was_committed(run):
    rng, returned, done = random.Random(7), -1, []
    for _ in range(10):
        with writer(run, returned + 1) as process:
            for _ in range(rng.randrange(4)):
                returned = int(process.stdout.readline())
            time.sleep(rng.random() * 0.01)
            process.send_signal(signal.SIGKILL)
            returned = max([returned, *map(int, process.stdout.read().split())])
        assert peek(run).pid is None and peek(run).n_done % KEYS == 0
        with Store(run) as store:  # the killed writer's lock does not hold
            done = chunks_done(store, returned + 3)
            assert done[: returned + 1] == list(range(returned + 1)) and store.n_torn == 0
            assert store._rows._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert len(store) == KEYS * len(done) and len(list((run / FOLDER).iterdir())) == len(done)
    assert len(done) > 10


def test_a_second_writer_is_refused_with_the_process_id_of_the_first(run):
    with writer(run) as process:
        with pytest.raises(RunBusy, match=rf"another process writes there \(process id {process.pid}\)"):
            Store(run)
        seen = peek(run)
        assert seen.pid == process.pid and seen.meta == {"plan": {"n_trials": 1000}}
        assert process.stdout.readline() == "0\n"  # it was not disturbed
    with Store(run) as store:
        assert len(store) >= KEYS


def test_the_same_process_is_refused_too(run, store):
    with pytest.raises(RunBusy, match=rf"this process writes there \(process id {os.getpid()}\)"):
        Store(run)
    store.commit(chunk(1))
    assert peek(run).pid == os.getpid()


def test_a_stale_process_id_is_not_taken_for_a_writer(run):
    with Store(run) as store:
        store.commit(chunk(1))
    (run / ".lock.pid").write_text(str(os.getpid()))  # of a killed writer, and given to another process since
    assert peek(run).pid is None
    (run / ".lock.pid").write_text("")
    assert peek(run).pid is None
    with Store(run):
        assert peek(run).pid == os.getpid()


def test_those_who_look_do_not_keep_a_writer_out(run):
    with Store(run):
        pass
    code = (
        "import sys; from pathlib import Path; from optrode.store.lock import _is_held\n"
        "print(flush=True)\nwhile True: _is_held(Path(sys.argv[1]))"
    )
    words = [sys.executable, "-c", code, str(run / ".lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as looking:
        looking.stdout.readline()
        try:
            for _ in range(20):
                Store(run).close()
        finally:
            looking.kill()


# Disks of their own


@pytest.fixture
def disk(tmp_path):
    """A small file system: a folder, and a function that mounts it again with other options."""

    def mount(*words):
        return subprocess.run(["mount", "-t", "tmpfs", *words, "tmpfs", str(folder)], capture_output=True, text=True)

    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        made = mount("-o", "size=256k")
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield folder, mount
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("ballast", [0, 60_000, 150_000])
def test_a_disk_that_is_really_full(disk, ballast):
    folder, mount = disk
    (folder / "ballast").write_bytes(bytes(ballast))
    done = 0
    with Store(folder / "run") as store:
        with pytest.raises(StoreFull):
            for done in range(1000):
                store.commit(chunk(done))
        assert chunks_done(store, done + 2) == list(range(done)) and done > 0
        with pytest.raises(StoreFull):
            store.commit(chunk(done, width=2000))
    assert peek(folder / "run").n_done == KEYS * done
    assert mount("-o", "remount,size=1m").returncode == 0
    with Store(folder / "run") as store:
        assert chunks_done(store, done + 2) == list(range(done))
        store.commit(chunk(done))
        assert chunks_done(store, done + 2) == list(range(done + 1)) and store.n_torn == 0


def test_a_disk_without_room_for_a_store(disk):
    folder, _ = disk
    with pytest.raises(OSError, match="No space"), (folder / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(StoreFull):
        Store(folder / "run")
    (folder / "ballast").unlink()
    with Store(folder / "run") as store:
        store.commit(chunk(1))


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_look_where_nothing_can_be_written(disk, is_killed):
    folder, mount = disk
    if is_killed:  # its log is still there, and not folded in
        with writer(folder / "run") as process:
            assert [int(process.stdout.readline()) for _ in range(3)] == [0, 1, 2]
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert (folder / "run" / "trials.sqlite-wal").stat().st_size > 0
    else:
        with Store(folder / "run") as store:
            for ix in range(3):
                store.commit(chunk(ix))
    (folder / "run" / "trials.sqlite-shm").unlink(missing_ok=True)
    assert mount("-o", "remount,ro").returncode == 0
    seen = peek(folder / "run")
    assert seen.n_done >= 3 * KEYS and seen.pid is None


def test_a_look_at_a_log_that_only_its_writer_may_read(run, monkeypatch):
    """Where looking in place fails, a copy is read."""
    from optrode.store import rows

    with writer(run) as process:
        assert process.stdout.readline() == "0\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    whole = rows.connect

    def no_place(path, mode):
        if mode == "ro":
            raise sqlite3.OperationalError("unable to open database file")
        return whole(path, mode)

    monkeypatch.setattr(rows, "connect", no_place)
    assert peek(run).n_done >= KEYS and key(0, 0) in chunk(0)
