"""How much faster two Ray workers of one thread run a sweep than one does. Run by `make bench-ray`; prints the ratio.

Starting Ray and loading the model into the workers is left out: throughput is counted from the first finished chunk of
each worker to the last chunk.
"""
# ruff: noqa: T201

import argparse
import json
import time
from statistics import median

import torch

import optrode as op
from optrode.trial import memory


def throughput(model: op.Model, task: op.Task, n_workers: int) -> float:
    """Trials per second."""
    seen: list[tuple[float, int]] = []
    bench = op.Bench(model, task, executor=op.on_ray(n_workers, n_threads=1))
    gate = op.patch("blocks.*.attn.z", each=("layer", "head"))
    op.sweep(model, task, gate, bench=bench, progress=lambda stage, done, total: seen.append((time.perf_counter(), done)))
    (start, first), (end, last) = seen[n_workers], seen[-1]  # seen[0] is the start, before any chunk
    return (last - first) / (end - start)


def main() -> None:
    """Measure in alternating order and print JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    rounds = options.parse_args().rounds
    torch.set_num_threads(1)
    memory.N_TOKENS["cpu"] = 480  # more, smaller chunks: fewer of them wait for the last one
    model = op.load("smollm2")
    task = op.tasks.ioi(model, n=16, random_seed=0)
    found: dict[int, list[float]] = {1: [], 2: []}
    for ix in range(rounds):
        for n_workers in (1, 2) if ix % 2 == 0 else (2, 1):
            found[n_workers].append(throughput(model, task, n_workers))
    ratios = [two / one for one, two in zip(found[1], found[2], strict=True)]
    print(json.dumps({"trials_per_s": found, "ratios": ratios, "median_ratio": median(ratios), "random_seed": 0}, indent=1))


if __name__ == "__main__":
    main()
