"""Cost of gates per generated token, against the module's own generation. Run by `make bench-generation`.

Writes docs/benchmark-generation.json and its page. All contenders run in this process, in turn.
"""
# ruff: noqa: T201

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import Any, Final

import torch
from machine import describe
from page import table
from process import HERE, PLACE

import optrode as op
from optrode.control.generate import Request
from optrode.model.source import from_source
from optrode.model.tiny import tiny

BATCHES: Final = (1, 8)
N_PROMPT: Final = 16
IDLE: Final = 1.02
BUSY: Final = 1.10
"""Targets: times the module's own generation, without gates, and with gates at all layers."""

Gates = Callable[[op.Model, int], tuple[op.Gate, ...]]


@dataclass(frozen=True)
class Contender:
    """What is measured.

    Attributes:
        words: for the page.
        gates: (model, row) -> the row's gates; None for the module's own generate, without Optrode.
        target: times the module's own generation; None where none is set.
    """

    words: str
    gates: Gates | None
    target: float | None = None


def _vector(model: op.Model, seed: int) -> torch.Tensor:
    drawn = torch.randn(model.table.d_model, generator=torch.Generator().manual_seed(seed))
    return (0.01 * drawn).to(model.device)


_KEPT: dict[tuple[str, int], tuple[op.Gate, ...]] = {}


def _once(name: str, row: int, make: Callable[[], tuple[op.Gate, ...]]) -> tuple[op.Gate, ...]:
    """Gates are made once, as a server that keeps artefacts has them."""
    if (name, row) not in _KEPT:
        _KEPT[name, row] = make()
    return _KEPT[name, row]


def _shared(model: op.Model, row: int) -> tuple[op.Gate, ...]:
    return _once("shared", 0, lambda: (op.add("blocks.*.resid_post", _vector(model, 0)),))


def _own(model: op.Model, row: int) -> tuple[op.Gate, ...]:
    layers = range(model.table.n_layers)
    return _once("own", row, lambda: tuple(op.add(f"blocks.{n}.resid_post", _vector(model, 99 * row + n)) for n in layers))


def _latched(above: float) -> Gates:
    def gates(model: op.Model, row: int) -> tuple[op.Gate, ...]:
        probe = op.probe("blocks.0.resid_pre", _vector(model, 1), above=above, read="prompt")
        return _once(f"latched{above}", 0, lambda: (op.add("blocks.*.resid_post", _vector(model, 0), openness=probe),))

    return gates


def _by_token(model: op.Model, row: int) -> tuple[op.Gate, ...]:
    probe = op.probe("blocks.0.resid_pre", _vector(model, 1), above=0.5)
    return _once("token", 0, lambda: (op.add("blocks.*.resid_post", _vector(model, 0), openness=probe),))


CONTENDERS: Final[Mapping[str, Contender]] = {
    "plain": Contender("the module's own `generate`", None),
    "idle": Contender("`op.generate` without gates", lambda model, row: (), IDLE),
    "closed": Contender("gates at all layers, closed by a probe at the prompt", _latched(2.0), BUSY),
    "shared": Contender("the same vector added at all layers of all rows", _shared, BUSY),
    "own": Contender("another vector at each layer and row", _own, BUSY),
    "latched": Contender("gates at all layers, opened by a probe at the prompt", _latched(-1.0), BUSY),
    "token": Contender("gates at all layers, decided at every token by a probe", _by_token),
}

PAGE = """# Cost of gates in generation

Written by `make bench-generation` from [benchmark-generation.json](benchmark-generation.json), which holds every timing.
{date}; {machine}; {threads} threads; load average before the run {load:.2f}.

{warning}Time for {n_new} tokens after a prompt of {n_prompt}, greedily with the K/V cache in float32, as a ratio to the
module's own `generate` in the same round: the median of {n_rounds} rounds, in brackets the smallest and the largest.
{model}.

{results}

{judged}

{versions}
"""


def generating(model: op.Model, contender: Contender, batch: int, n_new: int) -> Callable[[], None]:
    """One generation of a contender."""
    ids = torch.arange(batch * N_PROMPT).reshape(batch, N_PROMPT) * 7 % 50 + 3

    def plain() -> None:
        model.module.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_new, do_sample=False, pad_token_id=0
        )  # type: ignore[operator]

    if contender.gates is None:
        return plain
    asked = [Request(tuple(row.tolist()), contender.gates(model, ix), n_new) for ix, row in enumerate(ids)]

    def steered() -> None:
        op.generate(model, asked)

    return steered


def measure(quick: bool, n_rounds: int) -> dict[str, Any]:
    """The content of benchmark-generation.json."""
    model = from_source(tiny("llama")) if quick else op.load("smollm2")
    model = op.Model(model.module, model.table, None, model.name)
    model.module.generation_config.eos_token_id = None  # every contender writes as many tokens
    n_new, load, runs, names = 8 if quick else 32, os.getloadavg()[0], [], list(CONTENDERS)
    for batch in BATCHES:
        work = {name: generating(model, one, batch, n_new) for name, one in CONTENDERS.items()}
        for run in work.values():
            run()
        for number in range(n_rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                gc.collect()
                started = time.perf_counter()
                work[name]()
                seconds = time.perf_counter() - started
                runs.append({"batch": batch, "contender": name, "round": number, "seconds": seconds})
            print(f"batch {batch} round {number + 1:2} of {n_rounds}", flush=True)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "quick": quick, "load": load, "machine": describe(),
        "threads": torch.get_num_threads(), "n_new": n_new, "n_rounds": n_rounds, "model": repr(model), "runs": runs,
        "versions": {name: version(name) for name in ("optrode", "torch", "transformers")},
    }  # fmt: skip


def ratios(results: dict[str, Any], batch: int, name: str) -> list[float]:
    """Over the module's own generation of the same round."""
    of = {(run["contender"], run["round"]): run["seconds"] for run in results["runs"] if run["batch"] == batch}
    return [of[name, number] / of["plain", number] for number in range(results["n_rounds"])]


def _cell(results: dict[str, Any], batch: int, name: str) -> str:
    found = ratios(results, batch, name)
    if name == "plain":
        of = [run["seconds"] for run in results["runs"] if run["batch"] == batch and run["contender"] == name]
        return f"{1000 * median(of) / results['n_new']:.1f} ms a token"
    return f"{median(found):.3f} [{min(found):.3f}, {max(found):.3f}]"


def judged(results: dict[str, Any]) -> str:
    """What was found of the targets."""
    lines = []
    for name, one in CONTENDERS.items():
        if one.target is not None:
            worst = max(median(ratios(results, batch, name)) for batch in BATCHES)
            verdict = "met" if worst <= one.target else "**not met**"
            lines.append(f"* {one.words}: at most {worst:.3f}, target {one.target}: {verdict}")
    return "\n".join(lines)


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    machine = results["machine"]
    words = f"{machine['processor']} ({'/'.join(machine['vectors'])}), {machine['cores']} cores, "
    head = ["", *(f"batch {batch}" for batch in BATCHES)]
    rows = [[one.words, *(_cell(results, batch, name) for batch in BATCHES)] for name, one in CONTENDERS.items()]
    return PAGE.format(
        date=results["date"][:10], threads=results["threads"], load=results["load"], n_prompt=N_PROMPT,
        n_new=results["n_new"],
        machine=words + f"{machine['memory_gib']:.0f} GiB, {machine['system']}", results=table(rows, head),
        warning="**A trial run on a small model: the numbers mean nothing.**\n\n" if results["quick"] else "",
        n_rounds=results["n_rounds"], model=results["model"], judged=judged(results),
        versions=", ".join(f"{package} {number}" for package, number in results["versions"].items()),
    )  # fmt: skip


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model; writes to .bench/quick")
    parser.add_argument("--rounds", type=int, default=None)
    asked = parser.parse_args()
    folder = PLACE / "quick" if asked.quick else HERE.parent / "docs"
    folder.mkdir(parents=True, exist_ok=True)
    results = measure(asked.quick, asked.rounds or (3 if asked.quick else 9))
    (folder / "benchmark-generation.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "benchmark-generation.md").write_text(page(results))
    print(page(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
