"""Draw the benchmark and the scaling as SVG. Runs in an environment of its own, with matplotlib."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from jobs import CONTENDERS, JOBS, LABELS
from matplotlib import pyplot as plt
from summary import row

COLOURS = dict(zip(CONTENDERS, ("#0072B2", "#999999", "#E69F00", "#009E73", "#CC79A7"), strict=True))
"""Okabe and Ito's, which people who see few colours can tell apart."""


def draw_times(results: dict[str, Any]) -> None:
    """A bar per job and contender, times on a logarithmic axis."""
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    names = [name for name in CONTENDERS if name in results["contenders"]]
    width = 0.8 / len(names)
    for at, name in enumerate(names):
        found = [(ix, row(results, job, name)) for ix, job in enumerate(JOBS)]
        timed = [(ix + (at - (len(names) - 1) / 2) * width, each.time_s) for ix, each in found if not each.error]
        bars = axes.bar([x for x, _ in timed], [y for _, y in timed], width, label=LABELS[name], color=COLOURS[name])
        axes.bar_label(bars, fmt=lambda value: f"{value:.2g}" if value < 10 else f"{value:.0f}", fontsize=7, padding=2)
    axes.set(yscale="log", ylabel="seconds (median)", xticks=range(len(JOBS)), xticklabels=list(JOBS))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(names), frameon=False)
    axes.margins(y=0.15)


def draw_scaling(found: dict[str, Any]) -> None:
    """Time against each size, on logarithmic axes, with the fitted power."""
    figure, every = plt.subplots(1, len(found["series"]), figsize=(11, 3.4), layout="constrained", sharey=True)
    for axes, series in zip(every, found["series"], strict=True):
        points = series["points"]
        sizes = [point["size"] for point in points]
        axes.loglog(sizes, [point["median_s"] for point in points], "o-", color=COLOURS["optrode"], label="Optrode")
        plain = [(point["size"], point["plain_s"]) for point in points if point.get("plain_s")]
        axes.loglog([x for x, _ in plain], [y for _, y in plain], "s--", color=COLOURS["hooks"], label="one trial at a time")
        axes.set(xlabel=series["words"], xticks=sizes, xticklabels=[str(size) for size in sizes])
        axes.set_title(f"power {series['exponent']:.2f} [{series['low']:.2f}, {series['high']:.2f}]", fontsize=9)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    every[0].set_ylabel("seconds (median of three)")
    every[0].legend(frameon=False, fontsize=8)


def _save(path: Path) -> None:
    plt.savefig(path, metadata={"Date": None})
    plt.close()


def main() -> None:
    """Draw what there is in docs, or in the results of a trial run."""
    folder = Path(__file__).parent.parent / (".bench/quick" if "--quick" in sys.argv else "docs")
    mpl.rcParams.update({"svg.hashsalt": "optrode", "svg.fonttype": "none", "font.family": "sans-serif"})
    for name, draw in (("benchmark", draw_times), ("scaling", draw_scaling)):
        if (folder / f"{name}.json").exists():
            draw(json.loads((folder / f"{name}.json").read_text()))
            _save(folder / f"{name}.svg")


if __name__ == "__main__":
    main()
