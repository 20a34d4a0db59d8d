"""Time and memory of edge attribution against plain forward + backward passes. Run by `make bench-edges` and `make bench`.

Writes docs/benchmark-edges.json and its page. All contenders are timed in this process, in turn; the memory of each is
that of a process of its own.
"""
# ruff: noqa: T201

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from edge_cases import CONTENDERS, FULL, METHODS, PLAIN, QUICK, RANDOM_SEED, Case, Shape, Turn, order
from edge_page import result_tables, target_table, write
from edge_runs import RUNS, counting, disagreement, model_of, task_of
from edge_summary import faults
from machine import describe
from process import HERE, PLACE

import optrode as op


def memories(every: list[Case], quick: bool) -> list[dict[str, Any]]:
    """Peaks of every contender on the cases that count, one process at a time."""
    found = []
    for case in every:
        for name in () if case.same else CONTENDERS:
            command = [sys.executable, str(HERE / "edge_memory.py"), name, str(case.length), str(case.same)]
            answer = subprocess.run([*command, *(["--quick"] if quick else [])], check=True, capture_output=True, text=True)
            found.append({"contender": name, "length": case.length, "same": case.same} | json.loads(answer.stdout))
            print(f"memory  {case.length:4} tokens  {name:10}{found[-1]['peak_mib']:8.0f} MiB", flush=True)
    return found


def rounds_of(
    model: op.Model, shape: Shape, every: list[Case], n_rounds: int, checked: set[Case]
) -> list[dict[str, Any]]:  # fmt: skip
    """All rounds of the cases of one length; in the first, scores of checked cases are compared with their definition."""
    tasks = {case.same: task_of(case, shape) for case in every}
    turns: list[Turn] = [(name, None) for name in PLAIN]
    turns += [(name, same) for same in tasks for name in METHODS]
    found = []
    for number in range(n_rounds):
        for name, same in order(turns, number):
            case = Case(every[0].length, same or 0)
            run = _timed(model, tasks[case.same], name, is_checked=number == 0 and case in checked)
            found.append({"round": number + 1, "contender": name, "length": case.length, "same": same} | run)
            words = "" if same is None else f"differ: {case.name}"
            print(f"round {number + 1} {case.length:4} tokens  {name:10}{words:22}{run['seconds']:8.3f} s", flush=True)
    return found


def _timed(model: op.Model, task: op.Task, name: str, *, is_checked: bool) -> dict[str, Any]:
    """One run, with its passes; where it is checked, how far scores are from their definition."""
    gc.collect()  # what others left behind is not this contender's to clear
    with counting(model.module) as passes:
        started = time.perf_counter()
        result = RUNS[name](model, task)
        found: dict[str, Any] = {"seconds": time.perf_counter() - started} | asdict(passes)
    if is_checked and name in METHODS:
        found["disagreement"] = disagreement(model, task, name, result)
    return found


def measure(quick: bool, n_rounds: int | None) -> dict[str, Any]:
    """The content of benchmark-edges.json."""
    plan, load = QUICK if quick else FULL, os.getloadavg()[0]
    shape, every, rounds = plan.shape, plan.cases, {length: n_rounds or n for length, n in plan.rounds}
    peaks = memories(every, quick)
    model, runs = model_of(shape), []
    first = task_of(every[0], shape)
    n_edges = [RUNS[name](model, first) for name in CONTENDERS][-1].graph.n_edges  # also warms up
    checked = {case for case in every if not case.same or case.length == every[0].length}  # others would take long
    for length, n in rounds.items():
        runs += rounds_of(model, shape, [case for case in every if case.length == length], n, checked)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "quick": quick, "load": load, "machine": describe(),
        "threads": torch.get_num_threads(), "random_seed": RANDOM_SEED, "shape": asdict(shape), "n_edges": n_edges,
        "versions": {"torch": torch.__version__} | {name: version(name) for name in ("transformers", "numpy")},
        "cases": [astuple(case) for case in every], "rounds": rounds, "memory": peaks, "runs": runs,
    }  # fmt: skip


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model, two rounds; writes to .bench/quick")
    parser.add_argument("--rounds", type=int, help="how many rounds, at every length")
    asked, _ = parser.parse_known_args()  # other flags are those of run.py
    started = time.monotonic()
    folder = PLACE / "quick" if asked.quick else HERE.parent / "docs"
    folder.mkdir(parents=True, exist_ok=True)
    results = measure(asked.quick, asked.rounds)
    results["took_s"] = round(time.monotonic() - started)
    write(folder, results)
    print(f"\n{target_table(results)}\n\n{result_tables(results)}\n")
    if found := faults(results):
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
