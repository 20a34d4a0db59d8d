"""Memory: what is estimated before a run holds while it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.trial import memory
from optrode.trial.memory import chunk_gib, n_tokens_within, recorded_gib
from optrode.trial.run import Bench
from tests.parity.cases import model_of
from tests.unit.trial.test_packed import make_task

SLACK_GIB = 60 / 1024
"""For what the allocator keeps, hooks, and small change."""


@pytest.fixture(scope="module")
def worlds():
    return Bench(model_of("llama", "sdpa", torch.float64), make_task()).worlds


def test_a_chunk_is_halved_until_it_fits(worlds):
    whole = memory.N_TOKENS["cpu"]
    assert n_tokens_within(worlds, 1e3, 0.0, [5], 2) == whole
    for halvings in (1, 3, 5):
        budget = chunk_gib(worlds, whole >> halvings, 2)
        assert n_tokens_within(worlds, budget, 0.0, [5], 2) == whole >> halvings
        assert n_tokens_within(worlds, 0.5 + budget, 0.5, [5], 2) == whole >> halvings  # beside recordings
        assert n_tokens_within(worlds, 0.99 * budget, 0.0, [5], 2) == whole >> halvings + 1


def test_logits_take_their_part(worlds):
    budget = chunk_gib(worlds, 640, 2)
    assert n_tokens_within(worlds, budget, 0.0, [5], 5_000) < 640 == n_tokens_within(worlds, budget, 0.0, [5], 2)


def test_one_trial_must_fit(worlds):
    budget = chunk_gib(worlds, 100, 2)
    assert n_tokens_within(worlds, budget, 0.0, [5, 100], 2) <= 100
    with pytest.raises(BadOption, match="one trial"):
        n_tokens_within(worlds, budget, 0.0, [5, 101], 2)
    with pytest.raises(BadOption, match="recordings take about 1 GiB"):
        n_tokens_within(worlds, 1.0, 1.0, [5], 2)


def test_the_number_of_tokens_is_enough_for_one_trial(worlds):
    assert n_tokens_within(worlds, chunk_gib(worlds, 100, 2), 0.0, [5, 100], 2) >= 100


def test_estimates_grow_with_what_they_count(worlds):
    one = recorded_gib(worlds, [("clean", "blocks.1.mlp_out")], 0)
    assert one == recorded_gib(worlds, [("clean", "blocks.1.mlp_out")] * 2, 0) >= site_gib()
    two = recorded_gib(worlds, [("clean", site) for site in ("blocks.1.mlp_out", "embed")], 0)
    assert two == pytest.approx(one + site_gib())
    assert recorded_gib(worlds, [(world, "embed") for world in ("clean", "corrupt")], 0) == pytest.approx(2 * one)
    assert recorded_gib(worlds, [], 2) == 2 * recorded_gib(worlds, [], 1) > 4 * site_gib()  # a walk: a stream per layer


def site_gib():
    return 33 * 48 * 8 / 2**30  # 33 tokens, 48 wide, 8 bytes each


def test_the_plan_keeps_to_the_budget():
    model, task = model_of("llama", "sdpa", torch.float64), make_task()
    trials = [op.Trial((op.zero(f"blocks.0.attn.z[head={head}]"),), "clean", "logit_gap") for head in range(6)]
    large = Bench(model, task)
    assert len(large.plan(trials).chunks) == 1
    small = Bench(model, task, memory_gib=(budget := large.work.memory_gib / 10))
    assert len(small.plan(trials).chunks) > 1 and small.work.memory_gib <= budget
    for one, other in zip(small.run_many(trials), large.run_many(trials), strict=True):
        assert one == pytest.approx(other, abs=1e-12)


MEASURE = """
import ctypes, gc, json, sys
from contextlib import suppress
from random import Random

import optrode as op
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.prompts import Pair, Task

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20

rng = Random(0)
sizes = dict(hidden_size=256, num_attention_heads=8, num_key_value_heads=4, num_hidden_layers=6, intermediate_size=1024)
model = from_source(tiny("llama", vocab_size=2000, **sizes))
pairs = []
for _ in range(24):
    clean, corrupt = ([rng.randrange(2000) for _ in range(24)] for _ in range(2))
    pairs.append(Pair(tuple(clean), tuple(corrupt), (rng.randrange(2000),), (rng.randrange(2000),)))
task = Task("toy", "A toy.", "logit_gap", tuple(pairs))
gate = op.patch("blocks.*.resid_pre[pos=-4:]", each=("layer", "pos"))
op.sweep(model, task.take(2), op.patch("blocks.5.resid_pre[pos=-1]", each="layer"))  # what is loaded once
found = []
for metric, budget in json.loads(sys.argv[1]):
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    grid = op.sweep(model, task, gate, metric=metric, memory_gib=budget)
    found.append((status("VmHWM") - before, grid.work.memory_gib, len(grid.values)))
    del grid
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can say a process's peak anew")
def test_the_measured_peak_of_a_sweep_stays_below_what_was_announced():
    budgets = [["logit_gap", 0.08], ["kl", 0.15], ["logit_gap", None]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(budgets)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    for (peak, announced, n_cells), (_, budget) in zip(json.loads(done.stdout), budgets, strict=True):
        assert n_cells == 24 and announced <= (budget or 1.0)
        assert 0 < peak < announced + SLACK_GIB
