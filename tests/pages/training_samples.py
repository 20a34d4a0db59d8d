"""Made-up training runs, shaped like real ones: a free and a clamped one, their measures, what their checkpoints show."""

import math
import random

import numpy as np

from optrode.provenance import Provenance
from optrode.train.plan import log_spaced
from optrode.train.records import Emergence, Kept, Series, TrainingRun, Watched

N_STEPS = 1000
KEPT = log_spaced(N_STEPS)
GATE = "clamp at blocks.0.attn.pattern[head=3], strength 1"
MIDDLE = {"free": 480.0, "clamped": 90.0}
TOKENS = (" a", "A", " b", "B", " a")
N_LAYERS, N_HEADS = 2, 8


def rise(step, middle, power=6.0):
    return 1 / (1 + (middle / max(step, 0.5)) ** power)


def provenance(seed=0):
    versions = {"optrode": "0.1.0", "torch": "2.13.0", "python": "3.11.9"}
    date = "2026-11-20T10:11:12+00:00"
    return Provenance("attention-only", "ab" * 32, seed, versions, "x86_64, 2 cores", "python runs.py", date, 8.4, N_STEPS)


def training_run(name="free", random_seed=0, n_steps=N_STEPS):
    rng, middle = random.Random(random_seed), MIDDLE[name] * (1 + 0.1 * random_seed)
    loss = [
        0.69 * (1 - rise(step, middle)) + 0.9 * math.exp(-step / 6) + abs(rng.gauss(0, 0.04)) * (1 - rise(step, middle))
        for step in range(n_steps)
    ]
    at = tuple(range(0, n_steps + 1, 20))
    measures = {
        "induction": Series(at, tuple(0.9 * rise(step, middle) for step in at)),
        "accuracy on held-out pairs": Series(at, tuple(0.5 + 0.48 * rise(step, 1.2 * middle) for step in at)),
        "previous token": Series(at, tuple(1.0 if name == "clamped" else 0.8 * rise(step, 0.6 * middle) for step in at)),
    }
    kept = tuple(Kept(step, f"checkpoints/{step}.safetensors", f"{step:064d}") for step in KEPT)
    gates = (GATE,) if name == "clamped" else ()
    return TrainingRun(
        name, gates, n_steps, False, Series(tuple(range(n_steps)), tuple(loss)), measures, kept, provenance(random_seed)
    )


def patterns(name, steps):
    """Heads of layer 1 turn to induction, heads of layer 0 to the previous token, each at its own pace."""
    n = len(TOKENS)
    found = np.zeros((len(steps), N_LAYERS, N_HEADS, n, n), dtype=np.float32)
    even = np.tril(np.ones((n, n))) / np.arange(1, n + 1)[:, None]
    for layer in range(N_LAYERS):
        for head in range(N_HEADS):
            goal = np.eye(n, k=-1) if layer == 0 else np.eye(n, k=-3)
            goal[goal.sum(1) == 0, 0] = 1
            for at, step in enumerate(steps):
                share = rise(step, MIDDLE[name] * (0.7 + 0.1 * head)) * (1 - head / 10)
                found[at, layer, head] = share * goal + (1 - share) * even
    return found


def emergence(name="free", gates=()):
    size = {step: 40 - 30 * rise(step, MIDDLE[name]) for step in KEPT}
    circuits = {
        "size of the circuit (nodes)": Series(KEPT, tuple(round(size[step]) + 0.0 for step in KEPT)),
        "faithfulness": Series(KEPT[1:], tuple(0.1 + 0.85 * rise(step, MIDDLE[name]) for step in KEPT[1:])),
    }
    watched = (Watched(TOKENS, patterns(name, KEPT)),)
    return Emergence(name, gates, KEPT, tuple(range(N_LAYERS)), watched, circuits, provenance())


def everything():
    return training_run("free"), training_run("clamped"), emergence("free"), emergence("clamped", (GATE,))
