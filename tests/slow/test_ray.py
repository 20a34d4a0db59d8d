"""Sweeps on Ray: the same bits as here, also when a worker is killed in mid-sweep, on a cluster of one's own too."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial import memory
from tests.unit.trial.test_run import make_task

pytest.importorskip("ray", reason="the extra ray is not installed: make slow installs it")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
GATE = op.patch("blocks.*.attn.z", each=("layer", "head"))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setitem(memory.N_TOKENS, "cpu", 24)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers: rounding depends on it
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model():
    return from_source(tiny("llama", hidden_size=240, intermediate_size=500, num_hidden_layers=5))


def sweep(model, progress=lambda *step: None, **options):
    task = make_task((9,) * 6)
    return op.sweep(model, task, GATE, bench=op.Bench(model, task, **options), progress=progress)


def test_workers_give_the_same_bits_and_count_their_work(model):
    here, there = sweep(model), sweep(model, executor=op.on_ray(2, n_threads=1))
    assert there.values == here.values and there.work.token_layers == here.work.token_layers


def test_a_killed_worker_loses_nothing(model):
    here, killed = sweep(model), []

    def kill_one(stage, done, total):
        workers = [p for p in psutil.process_iter(["cmdline"]) if "ray::_Worker" in " ".join(p.info["cmdline"] or [])]
        if done and workers and not killed:
            killed.append(workers[0].pid)
            workers[0].kill()

    there = sweep(model, kill_one, executor=op.on_ray(2, n_threads=1))
    assert killed and there.values == here.values


def test_a_cluster_that_runs_already(model):
    ray = str(Path(sys.executable).with_name("ray"))
    subprocess.run([ray, "start", "--head", "--num-cpus=2", "--include-dashboard=false"], check=True, capture_output=True)
    try:
        assert sweep(model, executor=op.on_ray(2, address="auto", n_threads=1)).values == sweep(model).values
    finally:
        subprocess.run([ray, "stop", "--force"], check=True, capture_output=True)


def test_no_cluster_at_the_address(model):
    with pytest.raises(BadOption, match="ray start --head"):
        sweep(model, executor=op.on_ray(1, address="auto"))


def test_no_worker():
    with pytest.raises(BadOption, match="at least one"):
        op.on_ray(0)
