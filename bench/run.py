"""Time Optrode and its peers on the same jobs, and write what was found to docs/benchmark.json. Run by `make bench`.

Every contender is a process of its own that loads the model once; one works at a time. The first round runs all cells
and compares their values with plain PyTorch hooks; later rounds run a sample of the peers' cells, each of which costs
the same, and scale the time. Optrode always runs whole grids.
"""
# ruff: noqa: T201

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, final

from jobs import CONTENDERS, JOBS, RANDOM_SEED, REPEATS, WAYS_PASSES, WAYS_STRIDE, Cell, Job, sample
from machine import describe
from process import HERE, PLACE, Worker

DOCS = HERE.parent / "docs"


@final
class Benchmark:
    """All rounds of all contenders, and what they found.

    Attributes:
        results: the content of benchmark.json.
    """

    def __init__(self, quick: bool, rounds: int, names: tuple[str, ...], jobs: list[str]) -> None:
        self._jobs = [JOBS[name] for name in jobs]
        self.quick, self.rounds, self.names = quick, rounds, names
        pairs = _write_pairs()
        self.results: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "quick": quick, "rounds": rounds,
            "random_seed": RANDOM_SEED, "example": json.loads(pairs.read_text())["example"], "machine": describe(),
            "contenders": {}, "ways": [], "runs": [], "matmul": [],
        }  # fmt: skip
        self._workers = {name: Worker(name, pairs) for name in names}
        self._chosen: dict[tuple[str, str], str] = {}
        self._reference: dict[str, dict[Cell, list[float]]] = {}

    def run(self) -> None:
        """Try ways, then run all rounds."""
        for name, worker in self._workers.items():
            self.results["contenders"][name] = {key: worker.hello.get(key) for key in ("versions", "threads", "error")}
        for name in self.names:
            self._try_ways(name)
        for number in range(self.rounds):
            for job in self._jobs:
                for name in self._order(number):
                    self._round(number, job, name)
        for worker in self._workers.values():
            worker.stop()

    def _order(self, number: int) -> list[str]:
        """The reference first in the first round, which compares values; then rotated and every other time reversed."""
        names = sorted(self.names, key=lambda name: name != "hooks")
        turned = names[number % len(names) :] + names[: number % len(names)]
        return turned[::-1] if number % 2 else turned

    def _cells(self, job: Job) -> list[Cell]:
        return job.quick_cells if self.quick else job.cells

    def _repeats(self, job: Job) -> int:
        return min(REPEATS.get(job.name, 1), 3 if self.quick else 99)

    def _try_ways(self, name: str) -> None:
        """Time every way of a job on a few cells; of the library's own ways keep the fastest."""
        worker = self._workers[name]
        for job, own in worker.ways.items():
            if JOBS[job] not in self._jobs:
                continue
            ways = [*own, *worker.hello["by_hand"].get(job, [])]
            passes = 0 if len(ways) == 1 else 1 if self.quick else WAYS_PASSES
            tried = [{way: self._try(worker, JOBS[job], way) for way in ways} for _ in range(passes)]
            times = {way: min((found[way] for found in tried), default=0.0) for way in ways}
            self._chosen[name, job] = min(own, key=times.__getitem__)
            self.results["ways"] += [
                {"contender": name, "job": job, "way": way, "own": way in own, "per_cell_s": seconds}
                for way, seconds in times.items() if seconds
            ]  # fmt: skip

    def _try(self, worker: Worker, job: Job, way: str) -> float:
        cells = self._cells(job)[:: 3 if self.quick else WAYS_STRIDE]
        answer = worker.ask(job.name, way=way, cells=cells, repeats=self._repeats(job))
        seconds = median(answer["times_s"]) / len(cells) if "times_s" in answer else float("inf")
        print(f"{worker.name:17}{job.name:10}{way}: {seconds:.3f} s per cell {answer.get('error', '')}", flush=True)
        return seconds

    def _round(self, number: int, job: Job, name: str) -> None:
        way = self._chosen.get((name, job.name))
        if way is None:
            return
        cells = self._cells(job)
        is_sampled = number > 0 and name != "optrode" and job.name != "record"
        run = (sample(cells, number) or cells[:2]) if is_sampled else cells
        self._matmul(name, job)
        load = os.getloadavg()[0]
        answer = self._workers[name].ask(job.name, way=way, cells=run, repeats=self._repeats(job))
        self._matmul(name, job)
        found = {"round": number + 1, "job": job.name, "contender": name, "way": way, "n_cells": len(run), "load": load}
        self.results["runs"].append(found | self._judged(job, name, run, answer))
        print(_line(self.results["runs"][-1]), flush=True)

    def _matmul(self, name: str, job: Job) -> None:
        """The rate of matrix products around the job whose rate is compared with it, in the same process."""
        if name == "optrode" and job.name == "grid-all":
            self.results["matmul"].append(self._workers[name].ask("matmul").get("rates", {}))

    def _judged(self, job: Job, name: str, run: list[Cell], answer: dict[str, Any]) -> dict[str, Any]:
        """An answer without its values, which are compared with the reference, scaled to all cells."""
        if "error" in answer:
            return {"error": answer["error"]}
        values = answer.pop("values")
        keys = [(ix, 0) for ix in range(len(values))] if job.name == "record" else run
        found = dict(zip(keys, values, strict=True))
        if name == "hooks":
            self._reference.setdefault(job.name, found)
        reference = self._reference.get(job.same_as or job.name, {})
        scale = len(self._cells(job)) / len(run)
        return answer | {
            "scaled_s": answer["setup_s"] + median(answer["times_s"]) * scale, "difference": _difference(found, reference),
            "n_compared": len(found.keys() & reference.keys()),
        }  # fmt: skip


def _difference(found: dict[Cell, list[float]], reference: dict[Cell, list[float]]) -> float | None:
    """Largest absolute difference over the cells that both have."""
    both = found.keys() & reference.keys()
    differences = [abs(a - b) for cell in both for a, b in zip(found[cell], reference[cell], strict=True)]
    return max(differences, default=None)


def _line(run: dict[str, Any]) -> str:
    head = f"round {run['round']}  {run['job']:10}{run['contender']:17}{run['n_cells']:4} cells  "
    if "error" in run:
        return head + run["error"]
    off = "" if run["difference"] is None else f"largest difference {run['difference']:.1e}, "
    return f"{head}{sum(run['times_s']):8.2f} s, all: {run['scaled_s']:8.2f} s, {off}peak {run['peak_mib']:.0f} MiB"


def _write_pairs() -> Path:
    PLACE.mkdir(exist_ok=True)
    path = PLACE / "pairs.json"
    subprocess.run([sys.executable, str(HERE / "pairs.py"), str(path)], check=True)
    return path


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cells, two rounds; writes to .bench/quick")
    parser.add_argument("--rounds", type=int, help="how many rounds (3; 2 when quick)")
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=JOBS, help="measure only these again")
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS)
    return parser.parse_args()


def main() -> None:
    """Run the benchmark and write its results."""
    asked = options()
    started = time.monotonic()
    folder = PLACE / "quick" if asked.quick else DOCS
    folder.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(asked.quick, asked.rounds or (2 if asked.quick else 3), tuple(asked.contenders), asked.jobs)
    benchmark.run()
    benchmark.results["took_s"] = round(time.monotonic() - started)
    results = benchmark.results if len(asked.jobs) == len(JOBS) else _merged(folder, benchmark.results, asked.jobs)
    (folder / "benchmark.json").write_text(json.dumps(results, indent=1) + "\n")


def _merged(folder: Path, new: dict[str, Any], jobs: list[str]) -> dict[str, Any]:
    """The results that are there, with those of some jobs measured again by all contenders."""
    old = json.loads((folder / "benchmark.json").read_text())
    for part in ("runs", "ways"):
        old[part] = [one for one in old[part] if one["job"] not in jobs] + new[part]
    old["again"] = old.get("again", {}) | dict.fromkeys(jobs, new["date"])
    return old


if __name__ == "__main__":
    main()
