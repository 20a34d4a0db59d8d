"""Write the page of edge attribution's benchmark from its JSON: docs/benchmark-edges.md from docs/benchmark-edges.json.

Called by edges.py; by itself, `python bench/edge_page.py [--quick]` writes the page anew without measuring.
"""

import json
import sys
from pathlib import Path

import edge_summary as summary
from edge_cases import EARLIER, METHODS, N_PROMPTS, PLAIN, Case
from edge_summary import Judged, Results, Spread
from page import table
from process import HERE, PLACE

PAGE = """# Speed and memory of edge attribution

Written by `make bench-edges` from [benchmark-edges.json](benchmark-edges.json), which holds every timing.
{date}; {machine}; {threads} threads; load average before the run {load:.2f}.

{warning}{targets}

Both yardsticks are a forward and a backward pass of the plain module on the clean prompts, measured in the same run:

{plain}

The first is what the published figures below stand beside, and so what the targets were set against; the second asks more.
Targets are judged by the median, in the case that counts: clean and corrupt prompts that differ at every position.

## What was measured

A GPT-2 with random weights in float32: {n_layers} layers of {n_heads} heads, width {d_model}, vocabulary {vocabulary};
{n_edges} edges, all scored. {n_prompts} pairs of prompts of random tokens at each length (random seed {seed}): "all" differ
at every position; "second half" are the same up to the middle, and what does not change need not be scored. The metric is
the logit of the clean prompt's last token minus that of the corrupt one's, after the last token.

One process has the model loaded and runs all contenders in turn, in an order that changes every round, after a run of each
on the shortest prompts to warm up; medians of {rounds}.
Ratios are taken within a round; in brackets the smallest and the largest. A method starts from nothing in every run: the
recording of the corrupt prompts is inside its time, spot checks are left out. Passes were counted by hooks on the module and
on its logits while it was timed. Scores were compared with their definition, written out with plain PyTorch hooks, heads of
a layer summed, where a difference is told: the largest one, as a share of the largest score.

Memory is what a process of its own, with the model loaded and nothing run but a small model, added to its resident memory
at the peak of one run.

## Results

{results}

## The published implementation

An earlier measurement, on another machine of 2 cores and **not part of this run**, of the published implementation of EAP
([hannamw/EAP-IG](https://github.com/hannamw/EAP-IG)) on a GPT-2 small with random weights and 8 prompts, where a plain
forward + backward of 14 tokens took 0.84 s and 1.8 GB:

{earlier}

## Versions

{versions}
"""


def page(results: Results) -> str:
    """The whole page."""
    shape, machine = results["shape"], results["machine"]
    return PAGE.format(
        date=results["date"][:10], threads=results["threads"], load=results["load"], warning=_warning(results),
        machine=f"{machine['processor']} ({'/'.join(machine['vectors'])}), {machine['cores']} cores, "
        f"{machine['memory_gib']:.0f} GiB, {machine['system']}",
        targets=target_table(results), plain="\n".join(f"- **{name}**: {words}." for name, words in PLAIN.items()),
        **shape, n_edges=f"{results['n_edges']:,}", n_prompts=N_PROMPTS, seed=results["random_seed"],
        rounds=_rounds(results), results=result_tables(results), earlier=_earlier(),
        versions=", ".join(f"{package} {version}" for package, version in results["versions"].items()),
    )  # fmt: skip


def _warning(results: Results) -> str:
    small = ["A trial run on a small model: the numbers mean nothing."] if results["quick"] else []
    return "".join(f"**{text}**\n\n" for text in [*small, *summary.faults(results)])


def _rounds(results: Results) -> str:
    return ", ".join(f"{n} rounds at {length} tokens" for length, n in results["rounds"].items())


def target_table(results: Results) -> str:
    """What was wanted and found, against either yardstick."""
    lines = [[judged.words, *(_judged(judged, plain) for plain in PLAIN)] for judged in summary.targets(results)]
    return table(lines, ["target", *(f"against {plain}" for plain in PLAIN)])


def _judged(judged: Judged, plain: str) -> str:
    if plain not in judged.found:
        return "not measured"
    return f"{_ratio(judged.found[plain])}: {'met' if judged.is_met(plain) else '**not met**'}"


def _ratio(found: Spread | None) -> str:
    if found is None:
        return ""
    return f"{found.middle:.2f}" + (f" ({found.low:.2f} to {found.high:.2f})" if found.low < found.high else "")


def result_tables(results: Results) -> str:
    """One table per length for time, and one for memory."""
    lengths = {case.length: case for case in summary.cases_of(results) if not case.same}
    return "\n\n".join(f"### {length} tokens\n\n{_length(results, whole)}" for length, whole in lengths.items())


def _length(results: Results, whole: Case) -> str:
    rows = [(name, whole) for name in PLAIN]
    rows += [(name, case) for case in summary.cases_of(results) if case.length == whole.length for name in METHODS]
    times = [_time_line(results, case, name) for name, case in rows]
    memories = [_memory_line(results, case, name) for name, case in rows if summary.memory(results, case, name) is not None]
    head = ["contender", "positions that differ", "time", *(f"times {plain}" for plain in PLAIN), "passes", "difference"]
    return f"{table(times, head)}\n\n{table(memories, ['contender', 'memory added', *head[3:5]])}"


def _time_line(results: Results, case: Case, name: str) -> list[str]:
    found = summary.spread(summary.seconds(results, case, name))
    (forward, backward), off = summary.passes(results, case, name), summary.agreement(results, case, name)
    return [
        METHODS.get(name, name), case.name if name in METHODS else "",
        f"{found.middle:.3g} s ({found.low:.3g} to {found.high:.3g})",
        *(_ratio(summary.time_ratio(results, case, name, plain)) for plain in PLAIN),
        f"{forward} forward, {backward} backward", "" if off is None else f"{off:.1e}",
    ]  # fmt: skip


def _memory_line(results: Results, case: Case, name: str) -> list[str]:
    ratios = [_ratio(summary.memory_ratio(results, case, name, plain)) for plain in PLAIN]
    return [METHODS.get(name, name), f"{summary.memory(results, case, name):.0f} MiB", *ratios]


def _earlier() -> str:
    lines = [
        [f"{length} tokens", METHODS[name], f"{took} s", f"{gb} GB" if gb else "not told"]
        for length, name, took, gb in EARLIER
    ]  # fmt: skip
    return table(lines, ["prompts", "method", "time", "memory"])


def write(folder: Path, results: Results) -> None:
    """The JSON and the page."""
    (folder / "benchmark-edges.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "benchmark-edges.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    place = PLACE / "quick" if "--quick" in sys.argv else HERE.parent / "docs"
    write(place, json.loads((place / "benchmark-edges.json").read_text()))
