"""The store gives back what was committed, bit for bit, and notices what is torn."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from optrode.errors import BadOption, BadStore, StoreFull
from optrode.store import Store, peek, rows
from optrode.store.tensors import FOLDER

from .conftest import ODD, bits, chunk, key

FEW = settings(max_examples=12, deadline=None)


def tensor_files(run):
    return sorted((run / FOLDER).iterdir())


def test_committed_values_come_back_after_reopening(run):
    first, second = chunk(1), chunk(2, width=7)
    with Store(run) as store:
        store.commit(first)
        store.commit(second)
        assert store.read([*second, *first]) == second | first and len(store) == 6
    with Store(run) as store:
        assert list(store.read([*second, *first])) == [*second, *first]
        assert store.read([*first, *second]) == first | second and store.n_torn == 0


def test_values_that_text_loses_come_back_bit_for_bit(store):
    store.commit({key("odd"): ODD})
    assert bits(store.read([key("odd")])) == bits({key("odd"): ODD})


@FEW
@given(st.lists(st.lists(st.floats(width=64), min_size=2, max_size=2), min_size=1, max_size=5))
def test_any_float_comes_back_bit_for_bit(values):
    committed = {key(ix): tuple(row) for ix, row in enumerate(values)}
    with TemporaryDirectory() as folder, Store(folder) as store:
        store.commit(committed)
        assert bits(store.read(list(committed))) == bits(committed)


# A step: open the folder again, or commit values to some of nine trials.
steps = st.lists(st.none() | st.dictionaries(st.integers(0, 8), st.floats(-9, 9), min_size=1, max_size=4), max_size=8)


@FEW
@given(steps)
def test_any_order_of_commits_and_reopenings_keeps_the_last_value_of_each_trial(drawn):
    expected: dict[str, tuple[float, ...]] = {}
    with TemporaryDirectory() as folder:
        store = Store(folder)
        for step in drawn:
            if step is None:
                store.close()
                store = Store(folder)
            else:
                values = {key(ix): (value, -value) for ix, value in step.items()}
                store.commit(values)
                expected |= values
            assert store.read([key(ix) for ix in range(9)]) == expected and len(store) == len(expected)
        store.close()


def test_unknown_trials_are_left_out(store):
    store.commit(chunk(1))
    assert store.read([]) == {} and store.read([key("other")]) == {}
    assert store.read([key("other"), *chunk(1)]) == chunk(1)


def test_more_trials_than_one_query_holds(store):
    many = chunk(1, n=1201)
    store.commit(many)
    assert store.read(list(many)) == many


def test_a_second_commit_replaces_and_the_old_file_goes_with_the_next_opening(run):
    with Store(run) as store:
        store.commit(chunk(1))
        store.commit(dict.fromkeys(chunk(1), (0.5,)))
        assert set(store.read(list(chunk(1))).values()) == {(0.5,)} and len(store) == 3
    with Store(run) as store:
        assert len(tensor_files(run)) == 1 and len(store.read(list(chunk(1)))) == 3


def test_the_same_values_under_other_keys_do_not_mix(run, store):
    store.commit({key("a"): (1.0, 2.0)})
    store.commit({key("b"): (1.0, 2.0)})
    store.commit({key("b"): (1.0, 2.0)})
    assert len(tensor_files(run)) == 2 and len(store.read([key("a"), key("b")])) == 2


def test_a_tensor_file_is_plain_safetensors_named_by_its_hash(run, store):
    from hashlib import sha256

    store.commit(chunk(1))
    (file,) = tensor_files(run)
    assert file.name == sha256(file.read_bytes()).hexdigest() + ".safetensors"
    held = load_file(file)
    values = held["values"]
    assert [bytes(name).hex() for name in held["keys"]] == list(chunk(1))
    assert values.dtype == np.float64 and values.tolist() == [list(row) for row in chunk(1).values()]


def test_notes_come_back_as_json_data(run):
    with Store(run) as store:
        assert store.noted("plan") is None
        store.note("plan", {"n_trials": 420, "each": ("layer", "pos")})
        store.note("finished", None)
        store.note("plan", {"n_trials": 421, "each": ("layer", "pos")})
    with Store(run) as store:
        assert store.noted("plan") == {"n_trials": 421, "each": ["layer", "pos"]} and store.noted("finished") is None


def test_notes_hold_no_nan(store):
    with pytest.raises(ValueError):
        store.note("plan", {"share": float("nan")})
    store.note("plan", {"share": 0.5})
    assert store.noted("plan") == {"share": 0.5}


def test_an_empty_store_is_true_and_an_empty_chunk_is_nothing(run, store):
    store.commit({})
    assert store and len(store) == 0 and tensor_files(run) == []


def test_a_closed_store_is_plain_files_that_can_be_copied(run, tmp_path):
    with Store(run) as store:
        store.commit(chunk(1))
    assert sorted(path.name for path in run.iterdir()) == [".lock", "tensors", "trials.sqlite"]
    run.rename(tmp_path / "moved")
    with Store(tmp_path / "moved") as store:
        assert store.read(list(chunk(1))) == chunk(1)


def test_closing_twice_does_no_harm(run):
    first = Store(run)
    first.close()
    with Store(run) as second:
        first.close()
        assert peek(run).pid is not None
        second.commit(chunk(1))


def test_the_log_is_synchronised_at_every_commit(store):
    connection = store._rows._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_without_write_ahead_log_it_works_all_the_same(run, monkeypatch):
    def without_shared_memory(path, mode):
        uri = f"{path.absolute().as_uri()}?mode={mode}&vfs=unix-dotfile"
        return sqlite3.connect(uri, uri=True, timeout=0.1, isolation_level=None)

    monkeypatch.setattr(rows, "connect", without_shared_memory)
    with Store(run) as store:
        store.commit(chunk(1))
        assert store._rows._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    with Store(run) as store:
        assert store.read(list(chunk(1))) == chunk(1)


def test_folder_names_that_an_address_would_change(tmp_path):
    for name in ("50%41", "a?mode=ro", "b#c", "wörter und mehr"):
        with Store(tmp_path / name) as store:
            store.commit(chunk(1))
        assert peek(tmp_path / name).n_done == 3 and (tmp_path / name / "trials.sqlite").is_file()


def test_it_needs_no_torch():
    code = "import sys; from optrode.store import Store; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "[]\n", ran.stderr


@pytest.mark.parametrize(
    "values", [{"abc": (1.0,)}, {"G" * 64: (1.0,)}, {key(1): (1.0,), key(2): (1.0, 2.0)}, {key(1): ()}]
)
def test_a_wrong_chunk_is_refused_and_nothing_of_it_kept(run, store, values):
    with pytest.raises(BadOption):
        store.commit(values)
    assert len(store) == 0 and tensor_files(run) == []


# Torn files

DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "header": lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_file_is_noticed_and_only_its_trials_are_forgotten(run, damage):
    with Store(run) as store:
        store.commit(chunk(1))
        (torn,) = tensor_files(run)
        store.commit(chunk(2))
        DAMAGES[damage](torn)
        assert store.read([*chunk(1), *chunk(2)]) == chunk(2)
        assert store.n_torn == 3 and len(store) == 3
        store.commit(chunk(1))  # measured again: the same bytes, so the same name
        assert store.read(list(chunk(1))) == chunk(1) and store.n_torn == 3
    with Store(run) as store:
        assert store.read([*chunk(1), *chunk(2)]) == chunk(1) | chunk(2) and store.n_torn == 0


def test_rows_that_point_to_other_trials_are_forgotten(run, store):
    store.commit(chunk(1))
    store.commit(chunk(2))
    (first, *_), (second, *_) = chunk(1), chunk(2)
    store._rows._connection.execute("UPDATE trials SET row = 1 WHERE key = ?", (first,))
    assert store.read([first]) == {} and store.n_torn == 3
    store._rows._connection.execute("UPDATE trials SET row = 3 WHERE key = ?", (second,))
    assert store.read([second]) == {} and store.n_torn == 6 and len(store) == 0


def test_a_damaged_database_gives_no_wrong_value(run):
    with Store(run) as store:
        store.note("plan", {"n_trials": 6})
        store.commit(chunk(1))
        store.commit(chunk(2))
    expected, outcomes = chunk(1) | chunk(2), set()
    whole, rng = (run / "trials.sqlite").read_bytes(), random.Random(3)
    used = [at for at, byte in enumerate(whole) if byte]
    for at in rng.sample(used, 40):
        damaged = run.parent / str(at)
        shutil.copytree(run, damaged)
        (damaged / "trials.sqlite").write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        try:
            with Store(damaged) as store:
                store.noted("plan")
                found = store.read(list(expected))
        except BadStore:
            outcomes.add("refused")
        else:
            assert found.items() <= expected.items()
            outcomes.add(len(found))
    assert {"refused", 6} <= outcomes


def test_a_file_that_cannot_be_read_is_told_not_forgotten(run, store, monkeypatch):
    store.commit(chunk(1))

    def broken(path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", broken)
        with pytest.raises(BadStore, match="it cannot be read"):
            store.read(list(chunk(1)))
    assert store.read(list(chunk(1))) == chunk(1)


def test_a_chunk_killed_before_its_rows_leaves_no_trace(run):
    with Store(run) as store:
        store.commit(chunk(1))
    kept = tensor_files(run)
    (run / FOLDER / f"{'0' * 64}.safetensors").write_bytes(b"orphan")
    (run / FOLDER / f".{'1' * 64}.safetensors.77").write_bytes(b"half")
    (run / FOLDER / "notes.txt").write_text("somebody's own")
    with Store(run) as store:
        assert store.read(list(chunk(1))) == chunk(1)
    assert tensor_files(run) == sorted([*kept, run / FOLDER / "notes.txt"])


# Looking


def test_a_look_while_a_process_writes(run, store):
    store.note("plan", {"n_trials": 6})
    store.commit(chunk(1))
    seen = peek(run)
    assert (seen.n_done, seen.meta) == (3, {"plan": {"n_trials": 6}}) and seen.n_bytes > 0
    store.commit(chunk(2))
    assert peek(run).n_done == 6


def test_a_look_changes_nothing(run):
    with Store(run) as store:
        store.commit(chunk(1))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert peek(str(run)).n_done == 3 and peek(run).pid is None
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_look_before_anything_is_written(run):
    run.mkdir(parents=True)
    (run / "trials.sqlite").touch()
    assert peek(run).n_done == 0 and peek(run).meta == {}


def test_meta_is_the_json_that_was_noted(run, store):
    store.note("plan", {"b": 1, "a": [1, 2]})
    with sqlite3.connect(run / "trials.sqlite") as connection:
        ((text,),) = connection.execute("SELECT value FROM meta").fetchall()
    connection.close()
    assert text == json.dumps({"a": [1, 2], "b": 1}, separators=(",", ":"))


# Full disks


def test_a_full_disk_at_the_tensor_file(run, store, monkeypatch):
    store.commit(chunk(1))

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(StoreFull):
            store.commit(chunk(2))
    assert len(tensor_files(run)) == 1 and store.read([*chunk(1), *chunk(2)]) == chunk(1)
    store.commit(chunk(2))
    assert store.read([*chunk(1), *chunk(2)]) == chunk(1) | chunk(2)


def test_a_full_disk_at_the_rows(run):
    with Store(run) as store:
        store.commit(chunk(1))
        connection = store._rows._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreFull):
            store.commit(chunk(2, n=500))
        assert len(store) == 3 and store.read([*chunk(1), *chunk(2, n=500)]) == chunk(1)
        connection.execute("PRAGMA max_page_count=1000000")
        store.commit(chunk(2, n=500))
    with Store(run) as store:
        assert len(store) == 503 and len(tensor_files(run)) == 2
