"""A training run that is killed at any moment, again and again, ends with the bits of an undisturbed one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

N_KILLS = 30

SCRIPT = """
import hashlib, json, os, signal, sys, time
from pathlib import Path
from random import Random

import torch
from torch import nn

import optrode as op
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.train import Measure, Plan, Stop, adamw, evenly, fit

n_kills, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
rng = Random(0)

def make(random_seed):
    '''Tied embeddings, and dropout of the attention pattern.'''
    small = dict(hidden_size=48, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, num_hidden_layers=2)
    options = dict(attention_dropout=0.2, tie_word_embeddings=True, attn_implementation="eager")
    return from_source(tiny("llama", random_seed=random_seed, **small, **options))

def batch(number, generator):
    return torch.randint(0, 61, (8, 12), generator=generator)

def loss(model, tokens):
    logits = model.module(tokens).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

def size(model):
    torch.rand(2)
    return float(model.module(torch.arange(10)[None]).logits.square().mean())

PLAN = Plan(
    "killed", make, batch, loss, n_steps=80, optimizer=adamw(3e-3), clip_norm=1.0, n_parts=2,
    gates=(
        op.zero("blocks.0.attn.z[head=1]", when=op.when(until=20)),
        op.scale("blocks.1.mlp_out", 0.5, when=op.when(10, ramp=30)),
        op.patch("blocks.1.attn.pattern", op.first_pass(op.zero("blocks.0.mlp_out")), when=op.when(30, 40)),
    ),
    measures={"size": Measure(size), "free": Measure(size, is_free=True)}, measure_at=evenly(80, 7), keep_at=evenly(80, 16),
    keep_when=(Stop("loss", below=4.0),),
)

def outcome(trained):
    '''Everything but the time that it took.'''
    digest = hashlib.sha256()
    weights = [trained.model.module.state_dict(), *(trained.weights_at(one.step) for one in trained.run.checkpoints)]
    for held in weights:
        for name, tensor in sorted(held.items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    run = trained.run
    measures = {name: [series.steps, series.values] for name, series in run.measures.items()}
    kept = [[one.step, one.weights_hash] for one in run.checkpoints]
    return json.dumps([digest.hexdigest(), run.loss.values, measures, kept, run.n_steps])

def begin(out, note):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        note.write_text(outcome(fit(PLAN, out=out, save_every=3)))
        code = 0
    finally:
        os._exit(code)

def saved(out):
    file = out / "state.json"
    return json.loads(file.read_text())["step"] if file.exists() else 0

note = folder / "note"
fit(PLAN.but(n_steps=2, gates=(), measure_at=(), keep_at=()))  # imports are done once, before the forks
first = time.monotonic()
os.waitpid(begin(folder / "undisturbed", note), 0)
duration, wanted = time.monotonic() - first, note.read_text()
kills, finished, ix = [], [], 0
while len(kills) < n_kills or not finished:
    out = folder / f"killed {ix}"
    note.unlink(missing_ok=True)
    pid = begin(out, note)
    if len(kills) < n_kills:
        time.sleep(rng.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        kills.append([ix, saved(out)])
    elif status == 0:
        finished.append(note.read_text() == wanted)
        ix += 1
    else:
        raise SystemExit(f"a run failed with {status}")
_, status = os.waitpid(begin(folder / f"killed {ix}", note), 0)
finished.append(status == 0 and note.read_text() == wanted)
print(json.dumps({"kills": kills, "finished": finished, "duration": duration, "undisturbed": json.loads(wanted)[3:]}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its runs")
def test_thirty_kills_leave_the_bits_of_an_undisturbed_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(N_KILLS), str(tmp_path)], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    kept, n_steps = found["undisturbed"]
    assert n_steps == 80 and len(kept) >= 6
    assert len(found["kills"]) == N_KILLS and found["finished"] and all(found["finished"])
    steps = {}
    for run, step in found["kills"]:
        assert step >= steps.get(run, 0)  # what was saved is never lost
        steps[run] = step
    assert any(0 < step < 80 for _, step in found["kills"])  # some went on, and not to the end
    for folder in Path(tmp_path).glob("killed *"):
        assert len(list(folder.glob("state-*.safetensors"))) == 1
        assert not list(folder.glob(".*.safetensors.*")) and not list(folder.glob("checkpoints/.*"))
