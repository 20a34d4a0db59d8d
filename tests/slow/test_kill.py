"""A sweep that is killed at any moment, again and again, ends with the bits of an undisturbed one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

N_KILLS = 30

SCRIPT = """
import json, os, shutil, signal, sys, time
from pathlib import Path
from random import Random

import torch

import optrode as op
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.store.store import Store
from optrode.trial import memory
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench

n_kills, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
memory.N_TOKENS["cpu"] = 400
rng = Random(0)
sizes = dict(hidden_size=128, num_attention_heads=8, num_key_value_heads=4, num_hidden_layers=6, intermediate_size=512)
model = from_source(tiny("llama", vocab_size=500, **sizes))
pairs = []
for n_tokens in (16, 13, 16, 16, 13, 16):
    clean, corrupt = (tuple(rng.randrange(500) for _ in range(n_tokens)) for _ in range(2))
    pairs.append(Pair(clean, corrupt, (rng.randrange(500),), (rng.randrange(500),)))
task = Task("toy", "A toy.", "logit_gap", tuple(pairs))
gate = op.resample("blocks.*.attn.z", each=("layer", "head"))
run_chunk = Bench.run_chunk

def begin(out, log):
    '''A process that sweeps, notes the trials of every chunk that it starts, and writes the grid at the end.'''
    pid = os.fork()
    if pid:
        return pid
    notes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def noted(bench, chunk, trials):
        os.write(notes, f"{len(chunk.trials)} ".encode())
        return run_chunk(bench, chunk, trials)

    Bench.run_chunk = noted
    code = 1
    try:
        grid = op.sweep(model, task, gate, doses=(0.5, 1.0, 2.0), out=out)
        Path(f"{log}.grid").write_text(json.dumps([grid.values, grid.base, grid.is_null]))
        code = 0
    finally:
        os._exit(code)

def started(log):
    return [int(n) for n in Path(log).read_text().split()] if Path(log).exists() else []

def stored(out):
    if not out.exists():
        return 0
    with Store(out) as store:
        return len(store) if not store.n_torn else -1

log, kills, n_whole = folder / "log", [], 0
first = time.monotonic()
_, status = os.waitpid(begin(folder / "undisturbed", log), 0)
duration = time.monotonic() - first
chunks = started(log)
wanted = Path(f"{log}.grid").read_text()
finished, ix = [], 0
while len(kills) < n_kills or not finished:
    out = folder / f"killed {ix}"
    before = stored(out)
    log.unlink(missing_ok=True)
    Path(f"{log}.grid").unlink(missing_ok=True)
    pid = begin(out, log)
    if len(kills) < n_kills:
        time.sleep(rng.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        kills.append((before, started(log), stored(out)))
    elif status == 0:
        finished.append((before, started(log), stored(out), Path(f"{log}.grid").read_text() == wanted))
        ix += 1
    else:
        raise SystemExit(f"a sweep failed with {status}")
# the last one that was killed, to its end
_, status = os.waitpid(begin(folder / f"killed {ix}", log), 0)
finished.append((0, [], stored(folder / f"killed {ix}"), Path(f"{log}.grid").read_text() == wanted))
print(json.dumps({"chunks": chunks, "kills": kills, "finished": finished, "duration": duration}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its sweeps")
def test_thirty_kills_leave_the_bits_of_an_undisturbed_sweep_and_lose_one_chunk_each_at_most(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(N_KILLS), str(tmp_path)], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    n_trials, largest = sum(found["chunks"]), max(found["chunks"])
    assert len(found["chunks"]) > 8 and n_trials == 144
    assert len(found["kills"]) == N_KILLS
    for before, started, after in found["kills"]:
        assert 0 <= before <= after <= n_trials
        assert before + sum(started) - after <= largest  # at most the chunk under way is lost
    assert any(before < after < n_trials for before, _, after in found["kills"])  # some went on, and not to the end
    assert found["finished"] and all(is_same and n_stored == n_trials for _, _, n_stored, is_same in found["finished"])
    assert all(before + sum(started) == n_trials for before, started, *_ in found["finished"][:-1])
    assert not list(Path(tmp_path).glob("*/tensors/*.tmp"))
