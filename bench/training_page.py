"""Write the page of the benchmark of training with gates from its JSON: docs/benchmark-training.md.

Called by training.py; by itself, `python bench/training_page.py [--quick]` writes the page anew without measuring.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from page import table
from process import HERE, PLACE
from training_cases import CONTENDERS, PLAIN, TARGET, Shape

Results = dict[str, Any]
PAGE = """# Cost of gates in training

Written by `make bench-training` from [benchmark-training.json](benchmark-training.json), which holds every timing.
{date}; {machine}; {threads} threads; load average before the run {load:.2f}.

{warning}With a gate that needs no second pass, a step should cost at most {target} times one without, by the median,
on the mid model and on GPT-2: {judged}.

{results}

## What was measured

{shapes}

A step is forward, backward and Adam on next-token prediction in float32, with the gates held and counted by the optimiser.
One process runs all contenders in turn, in an order that changes every round, after one step of each to warm up. Ratios are
taken within a round, over the step without gates; the table has their median, in brackets the smallest and the largest.
Patches from a first pass run the model twice, and the gradient flows through both passes.

## Versions

{versions}
"""


def page(results: Results) -> str:
    """The whole page."""
    machine = results["machine"]
    words = f"{machine['processor']} ({'/'.join(machine['vectors'])}), {machine['cores']} cores, "
    return PAGE.format(
        date=results["date"][:10], threads=results["threads"], load=results["load"], target=TARGET,
        machine=words + f"{machine['memory_gib']:.0f} GiB, {machine['system']}", results=result_table(results),
        warning="**A trial run on small models: the numbers mean nothing.**\n\n" if results["quick"] else "",
        judged=judged(results), shapes="\n".join(f"- **{shape.name}**: {shape.words}." for shape in _shapes(results)),
        versions=", ".join(f"{package} {version}" for package, version in results["versions"].items()),
    )  # fmt: skip


def _shapes(results: Results) -> list[Shape]:
    return [Shape(**shape) for shape in results["shapes"]]


def seconds(results: Results, shape: str, contender: str) -> list[float]:
    """Seconds per step, one of each round."""
    return [run["seconds"] for run in results["runs"] if (run["shape"], run["contender"]) == (shape, contender)]


def ratios(results: Results, shape: str, contender: str) -> list[float]:
    """Over the step without gates of the same round."""
    pairs = zip(seconds(results, shape, contender), seconds(results, shape, "none"), strict=True)
    return [one / plain for one, plain in pairs]


def worst(results: Results) -> float:
    """The largest median ratio that the target is for."""
    judged = [shape.name for shape in _shapes(results) if shape.is_judged]
    return max(median(ratios(results, name, contender)) for name in judged for contender in PLAIN)


def judged(results: Results) -> str:
    """What was found of the target."""
    found = worst(results)
    return f"at most {found:.2f}, {'met' if found <= TARGET else '**not met**'}"


def result_table(results: Results) -> str:
    """Milliseconds without gates, and ratios."""
    shapes = _shapes(results)
    lines = []
    for name, (words, _) in CONTENDERS.items():
        cells = [_plain(results, shape.name) if name == "none" else _ratio(results, shape.name, name) for shape in shapes]
        lines.append([words, *cells])
    return table(lines, ["gates held", *(shape.name for shape in shapes)])


def _plain(results: Results, shape: str) -> str:
    return f"{1000 * median(seconds(results, shape, 'none')):.3g} ms"


def _ratio(results: Results, shape: str, contender: str) -> str:
    found = ratios(results, shape, contender)
    return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def write(folder: Path, results: Results) -> None:
    """Write the JSON and the page."""
    (folder / "benchmark-training.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "benchmark-training.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    place = PLACE / "quick" if "--quick" in sys.argv else HERE.parent / "docs"
    write(place, json.loads((place / "benchmark-training.json").read_text()))
