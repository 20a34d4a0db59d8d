"""Cost of a training step with gates held, against one without. Run by `make bench-training`.

Writes docs/benchmark-training.json and its page. All contenders run in this process, in turn.
"""
# ruff: noqa: T201

import argparse
import gc
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from machine import describe
from process import HERE, PLACE
from training_cases import CONTENDERS, FULL, QUICK, RANDOM_SEED, TARGET, Shape, model_of, tokens_of
from training_page import judged, result_table, worst, write

import optrode as op


def stepping(model: op.Model, tokens: torch.Tensor, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """One step of training."""

    def step() -> None:
        optimizer.zero_grad()
        logits = model.module(tokens).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()

    return step


def rounds_of(shape: Shape, n_rounds: int) -> list[dict[str, Any]]:
    """All turns of all contenders on one model."""
    model, tokens = model_of(shape), tokens_of(shape)
    optimizer = torch.optim.Adam(model.module.parameters(), lr=1e-4)
    step, names, found = stepping(model, tokens, optimizer), list(CONTENDERS), []
    for number in range(n_rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            with op.gates(model, *CONTENDERS[name][1](shape), optimizer=optimizer):
                step()
                gc.collect()
                started = time.perf_counter()
                for _ in range(shape.n_steps):
                    step()
                seconds = (time.perf_counter() - started) / shape.n_steps
            found.append({"shape": shape.name, "contender": name, "round": number + 1, "seconds": seconds})
        print(f"{shape.name:6} round {number + 1:2} of {n_rounds}", flush=True)
    return found


def measure(quick: bool, n_rounds: int | None) -> dict[str, Any]:
    """The content of benchmark-training.json."""
    shapes, load = QUICK if quick else FULL, os.getloadavg()[0]
    runs = [run for shape in shapes for run in rounds_of(shape, n_rounds or shape.n_rounds)]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "quick": quick, "load": load, "machine": describe(),
        "threads": torch.get_num_threads(), "random_seed": RANDOM_SEED, "shapes": [asdict(shape) for shape in shapes],
        "versions": {"torch": torch.__version__} | {name: version(name) for name in ("optrode", "transformers")},
        "runs": runs,
    }  # fmt: skip


def faults(results: dict[str, Any]) -> list[str]:
    """What must not be published without a word: a target missed."""
    is_met = results["quick"] or worst(results) <= TARGET
    return [] if is_met else [f"the target of {TARGET} was missed: {judged(results)}"]


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small models, three rounds; writes to .bench/quick")
    parser.add_argument("--rounds", type=int, help="how many rounds of each model")
    asked = parser.parse_args()
    started = time.monotonic()
    folder = PLACE / "quick" if asked.quick else HERE.parent / "docs"
    folder.mkdir(parents=True, exist_ok=True)
    results = measure(asked.quick, asked.rounds)
    results["took_s"] = round(time.monotonic() - started)
    write(folder, results)
    print(f"\n{result_table(results)}\n\nTarget: {judged(results)}\n")
    if found := faults(results):
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
