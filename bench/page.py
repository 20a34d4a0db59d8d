"""Write the benchmark's page from its JSON: docs/benchmark.md from docs/benchmark.json and docs/scaling.json."""

import json
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

from jobs import JOBS, LABELS, N_PAIRS, STRIDE, WAYS_PASSES
from summary import Row, best_rate, row, rows, targets

Results = dict[str, Any]
PAGE = """# Speed

Written by `make bench` from [benchmark.json](benchmark.json), which holds every timing.
{date}; {machine}; {threads} threads.

{warning}![Median time of every job and contender](benchmark.svg)

| target | found | met |
|---|---|---|
{targets}

## What was measured

SmolLM2-135M-Instruct in float32, the same weights from the same folder for all; {n_pairs} pairs of prompts
(random seed {seed}) that differ in one token:

    {clean}
    {corrupt}

For each cell and prompt, the logit of the right answer minus that of the wrong one after the last token.

{jobs}

Each contender runs in a process of its own, in an environment of its own with pinned versions (`bench/peers`), with the
model loaded and warm. One works at a time, in an order that changes every round; {rounds} rounds, medians. The first round
runs all cells and compares their values with those of plain PyTorch hooks. In later rounds the peers run every {stride}th
cell, all of which cost them the same, and the time is scaled to all cells. Optrode always runs whole sweeps, and the time of
its recordings is inside. Gradients are off everywhere, and clean activations are cached once, outside the loop over cells:
both favour the peers, some of whose examples do neither. Where a peer has several ways of its own, all were tried on a few
cells, and the fastest was measured.

{contenders}

## Results

Time is the median of rounds, with the fastest and the slowest. Memory is what the job added to the process at its peak, and
what the process then had. Differences are the largest absolute ones from plain PyTorch hooks; recordings are compared by
one number per tensor and prompt, of order 1. "Compared" counts cells, or recorded tensors.

{tables}

## Versions

{versions}

## Ways that were tried

Seconds per cell on a few cells, the better of {passes} tries. Ways that were only tried are what a user can write on top of
a library, and clones instead of references for hooks. They were not measured further, and targets are not about them.

{ways}

## Rates

{rates}
{scaling}"""

HOW = {
    "optrode": "one `sweep`, one `record`. Whatever a sweep needs, it does inside the time. `record` leaves out the "
    "logits,\n  which nobody asked for.",
    "hooks": "transformers' module with PyTorch's forward hooks, a full forward pass per cell. For `record`, hooks that "
    "keep references to what passes by.",
    "transformer_lens": "`TransformerBridge.boot_transformers` on the folder, weights as they are; it forces eager "
    "attention, where the others use `sdpa`.",
    "nnsight": "`TransformersModel` around transformers' module.",
    "pyvene": "an `IntervenableModel` per cell, as in its tutorial, with the clean representations handed in, which spares "
    "it a pass over the clean prompts per cell.",
}


def table(lines: list[list[str]], head: list[str]) -> str:
    """A Markdown table."""
    body = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in body)


def page(results: Results, scaling: Results | None) -> str:
    """The whole page."""
    example = results["example"]
    threads = {found["threads"] for found in results["contenders"].values() if found.get("threads")}
    return PAGE.format(
        date=results["date"][:10] + _again(results),
        machine=_machine(results["machine"]), threads="/".join(map(str, sorted(threads))),
        warning="**A trial run on a few cells: the numbers mean nothing.**\n\n" if results["quick"] else "",
        targets="\n".join(
            f"| {target.words} | {target.found} | {_MET[target.is_met]} |" for target in targets(results)
        ),
        n_pairs=N_PAIRS, stride=STRIDE, passes=WAYS_PASSES, seed=results["random_seed"], clean=example["clean"],
        corrupt=example["corrupt"],
        jobs="\n".join(f"- **{job.name}**: {job.words}" for job in JOBS.values()), rounds=results["rounds"],
        contenders="\n".join(_how(name) for name in results["contenders"]),
        tables="\n\n".join(_job_table(results, job) for job in JOBS), versions=_versions(results), ways=_ways(results),
        rates=_rates(results), scaling=_scaling(scaling) if scaling else "",
    )  # fmt: skip


_MET = {True: "yes", False: "**no**", None: "not measured"}


def _how(name: str) -> str:
    return fill(f"- **{LABELS[name]}**: {HOW[name]}", 125, subsequent_indent="  ", break_on_hyphens=False)


def _again(results: Results) -> str:
    """Which jobs were measured later than the others, all contenders anew."""
    return "".join(f" ({job}: {date[:16].replace('T', ' ')} UTC)" for job, date in results.get("again", {}).items())


def _machine(found: dict[str, Any]) -> str:
    vectors = "/".join(found["vectors"])
    return f"{found['processor']} ({vectors}), {found['cores']} cores, {found['memory_gib']:.0f} GiB, {found['system']}"


def _job_table(results: Results, job: str) -> str:
    own = row(results, job, "optrode")
    head = ["contender", "time", "times Optrode's", "largest difference", "compared", "memory: added, total"]
    lines = [_line(each, own) for each in rows(results, job)]
    same = "\n\nThe peers' times are those of `grid`." if JOBS[job].same_as else ""
    return f"### {job}\n\n{table(lines, head)}{same}"


def _line(each: Row, own: Row) -> list[str]:
    label = LABELS[each.contender]
    if each.error:
        return [label, f"failed: {each.error}", "", "", "", ""]
    ratio = "" if own.error else f"{each.time_s / own.time_s:.3g}"
    low, high = each.spread
    is_reference = each.contender == "hooks"
    off = "reference" if is_reference else "" if each.difference is None else f"{each.difference:.1e}"
    return [
        f"{label}, {each.way}" if each.way and each.contender != "optrode" else label,
        f"{each.time_s:.3g} s ({low:.3g} to {high:.3g})", ratio, off, "" if is_reference else str(each.n_compared),
        f"{each.peak_mib:.0f} MiB, {each.total_mib:.0f} MiB",
    ]  # fmt: skip


def _versions(results: Results) -> str:
    lines = []
    for name, found in results["contenders"].items():
        versions = found.get("versions") or {"failed": found.get("error") or ""}
        lines.append([LABELS[name], ", ".join(f"{package} {version}" for package, version in versions.items())])
    return table(lines, ["contender", "runs on"])


def _ways(results: Results) -> str:
    lines = [
        [LABELS[way["contender"]], way["job"], _way(way), f"{way['per_cell_s']:.3f}"]
        for way in results["ways"]
    ]  # fmt: skip
    return table(lines, ["contender", "job", "way", "s per cell"])


def _way(way: dict[str, Any]) -> str:
    text: str = way["way"]
    return text if way["own"] else f"{text} (only tried)"


def _rates(results: Results) -> str:
    if best_rate(results) is None:
        return "Not measured."
    shapes = list(results["matmul"][0])
    lines = [[shape, f"{max(rates[shape] for rates in results['matmul'] if shape in rates) / 1e9:.0f}"] for shape in shapes]
    words = (
        "\n\nThe best of all repetitions, in Optrode's process, right before and after `grid-all`. Counted operations are "
        "those of the\nlinear layers: two per weight, for every token that went through a block, for keys and values alone, "
        "and for logits.\nAttention, norms and recordings take time but are not counted."
    )
    return table(lines, ["float32 matrix product", "GFLOP/s"]) + words


def _scaling(found: Results) -> str:
    lines = [
        [
            series["words"], " ".join(str(point["size"]) for point in series["points"]),
            " ".join(f"{point['median_s']:.3g}" for point in series["points"]),
            f"{series['exponent']:.2f} [{series['low']:.2f}, {series['high']:.2f}]",
            " ".join(f"{point['plain_s']:.3g}" for point in series["points"] if point.get("plain_s")),
        ]
        for series in found["series"]
    ]  # fmt: skip
    head = ["what grows", "sizes", "seconds", "exponent [95 %]", "seconds, one trial at a time"]
    return f"\n{found['words']}\n\n![Time against size](scaling.svg)\n\n{table(lines, head)}\n"


def main() -> None:
    """Write the page into docs, or beside the results of a trial run."""
    folder = Path(__file__).parent.parent / (".bench/quick" if "--quick" in sys.argv else "docs")
    results = json.loads((folder / "benchmark.json").read_text())
    scaled = folder / "scaling.json"
    scaling = json.loads(scaled.read_text()) if scaled.exists() else None
    (folder / "benchmark.md").write_text(page(results, scaling), encoding="utf-8")


if __name__ == "__main__":
    main()
