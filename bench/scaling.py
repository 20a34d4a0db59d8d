"""How a sweep's time grows with the number of cells, layers, prompt length and width. Run by `make bench`.

Random Llamas of small sizes; clean and corrupt prompts of random tokens, so that no cell is without effect and no prompt
has a beginning in common with another.
"""
# ruff: noqa: T201

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import optrode as op
from optrode.trial.run import Bench

HERE: Final = Path(__file__).parent
VOCABULARY: Final = 512
N_PAIRS: Final = 8
REPEATS: Final = 3
RANDOM_SEED: Final = 0
PLAIN_LIMIT_S: Final = 8.0
"""The plain twin is run where it is expected to take less than this."""

T_95: Final = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}
"""Two-sided 95 % points of Student's t, by degrees of freedom."""

WORDS: Final = f"""## How time grows

A residual-stream sweep (`blocks.*.resid_pre`, each layer and position) of random Llamas in float32, {N_PAIRS} pairs of
random tokens, one thing varied at a time; medians of {REPEATS} after one run to warm up. The exponent is that of a power
fitted to the medians, with its 95 % interval. The last column is the same sweep with every trial run in full, where that is
short. More layers, or longer prompts, also mean as many times more cells."""


@dataclass(frozen=True, slots=True)
class Size:
    """One model with its prompts: every `step`-th position is swept."""

    n_layers: int = 8
    length: int = 16
    width: int = 128
    step: int = 1


BASE: Final = Size()
SERIES: Final = {
    "cells": ("number of cells", [replace(BASE, step=step) for step in (16, 8, 4, 2, 1)]),
    "layers": ("number of layers", [replace(BASE, n_layers=n) for n in (2, 4, 8, 16, 32)]),
    "length": ("prompt length", [replace(BASE, length=n) for n in (8, 16, 32, 64)]),
    "width": ("width of the model", [replace(BASE, width=n) for n in (64, 128, 256, 512)]),
}


def value_of(name: str, size: Size) -> int:
    """The number on the axis of a series."""
    cells = size.n_layers * (size.length // size.step)
    return {"cells": cells, "layers": size.n_layers, "length": size.length, "width": size.width}[name]


def model_of(size: Size) -> op.Model:
    """A random Llama."""
    config = AutoConfig.for_model(
        "llama", vocab_size=VOCABULARY, hidden_size=size.width, num_hidden_layers=size.n_layers,
        num_attention_heads=size.width // 32, num_key_value_heads=size.width // 32, intermediate_size=3 * size.width,
        max_position_embeddings=256, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(RANDOM_SEED)
    return op.load(AutoModelForCausalLM.from_config(config).eval(), check=False)


def task_of(size: Size) -> op.Task:
    """Pairs of random tokens."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    drawn = torch.randint(0, VOCABULARY, (N_PAIRS, 2 * size.length + 2), generator=generator)
    pairs = [
        op.Pair(tuple(row[: size.length]), tuple(row[size.length : -2]), (row[-2],), (row[-1],)) for row in drawn.tolist()
    ]
    return op.Task("random", "Random tokens.", "logit_gap", tuple(pairs), RANDOM_SEED)


def time_sweep(model: op.Model, task: op.Task, size: Size, *, shares: bool = True) -> float:
    """Seconds of one sweep, with its recordings."""
    positions = "|".join(map(str, range(0, size.length, size.step)))
    gate = op.patch(f"blocks.*.resid_pre[pos={positions}]", each=("layer", "pos"))
    started = time.perf_counter()
    op.sweep(model, task, gate, bench=None if shares else Bench(model, task, shares=False))
    return time.perf_counter() - started


def point_of(name: str, size: Size, repeats: int) -> dict[str, Any]:
    """Times of one size, with and without sharing."""
    model, task = model_of(size), task_of(size)
    time_sweep(model, task, replace(size, step=size.length))
    times = [time_sweep(model, task, size) for _ in range(repeats)]
    plain_s = _plain_seconds(model, task, size)
    print(f"{name:8}{value_of(name, size):5}: {median(times):.3f} s, plain {plain_s or math.nan:.3f} s", flush=True)
    return {
        "size": value_of(name, size), "of": asdict(size), "times_s": times, "median_s": median(times), "plain_s": plain_s,
    }  # fmt: skip


def _plain_seconds(model: op.Model, task: op.Task, size: Size) -> float | None:
    """One run of the plain twin, unless one of its columns shows that all would take too long."""
    column_s = time_sweep(model, task, replace(size, step=size.length), shares=False)
    expected_s = column_s * (size.length // size.step)
    return time_sweep(model, task, size, shares=False) if expected_s < PLAIN_LIMIT_S else None


def fit(points: list[dict[str, Any]]) -> dict[str, float]:
    """Exponent of a power fitted to medians, by least squares of logarithms, with its 95 % interval."""
    xs, ys = [math.log(point["size"]) for point in points], [math.log(point["median_s"]) for point in points]
    middle, level = fmean(xs), fmean(ys)
    spread = sum((x - middle) ** 2 for x in xs)
    slope = sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True)) / spread
    left = sum((y - level - slope * (x - middle)) ** 2 for x, y in zip(xs, ys, strict=True))
    free = len(xs) - 2
    half = T_95[free] * math.sqrt(left / free / spread) if free else math.inf
    return {"exponent": slope, "low": slope - half, "high": slope + half}


def series_of(name: str, quick: bool) -> dict[str, Any]:
    """All sizes along one axis; the three smallest when quick."""
    words, sizes = SERIES[name]
    points = [point_of(name, size, 1 if quick else REPEATS) for size in (sizes[:3] if quick else sizes)]
    return {"name": name, "words": words, "points": points, **fit(points)}


def main() -> None:
    """Measure every series and write scaling.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes once; writes to .bench/quick")
    quick = parser.parse_known_args()[0].quick  # other flags are those of run.py
    folder = HERE.parent / (".bench/quick" if quick else "docs")
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    series = [series_of(name, quick) for name in SERIES]
    took_s = round(time.monotonic() - started)
    found = {"words": WORDS, "quick": quick, "random_seed": RANDOM_SEED, "took_s": took_s, "series": series}
    (folder / "scaling.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
