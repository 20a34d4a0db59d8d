"""Where heads look: attention along a task's named routes, and the classical pattern scores of every head."""

import time
from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.circuit import HeadScores, HeadView
from optrode.circuit.nodes import is_head
from optrode.model.model import Model
from optrode.model.names import parse
from optrode.provenance import provenance
from optrode.site.recording import record
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench

ROLES: Final = {
    "end -> io": "name mover",
    "end -> s2": "S-inhibition",
    "end -> s1": "reads first subject",
    "s2 -> s1": "duplicate token",
    "s2 -> s1+1": "induction",
    "s1+1 -> s1": "previous token",
    "end -> start": "reads the start year",
    "end -> subject": "reads the subject",
    "end -> country": "reads the country",
    "end -> name": "reads the name",
    "repeat -> first+1": "induction",
    "repeat -> first": "duplicate token",
    "next -> before": "previous token",
}
"""Names the field gives to heads that attend along a route (Wang et al., arXiv 2211.00593, fig. 2, for ioi)."""

CLEAR: Final = 0.2
"""A role is named only where the mean attention along its route is at least this."""

PATTERN_KINDS: Final = ("induction", "previous token", "duplicate token")


def routes(task: Task) -> dict[str, tuple[int, int]]:
    """Named routes of a task, "from -> to" -> (reading position, read position), read off its first pair's marks."""
    marks = dict(task.pairs[0].marks)
    if {"s1", "s2"} <= set(marks):
        marks["s1+1"] = marks["s1"] + 1
    found = {}
    for at, of in (name.split(" -> ") for name in ROLES):
        if at in marks and of in marks and marks[of] <= marks[at]:
            found[f"{at} -> {of}"] = (marks[at], marks[of])
    return found | _repeat_routes(task.pairs[0])


def _repeat_routes(pair: Pair) -> dict[str, tuple[int, int]]:
    if "repeat" not in pair.marks:
        return {}
    end, half = len(pair.clean) - 1, pair.marks["repeat"]
    reads = {"repeat -> first+1": end - half + 1, "repeat -> first": end - half, "next -> before": end - 1}
    return {route: (end, read) for route, read in reads.items()}


def look_at_heads(bench: Bench, nodes: tuple[str, ...]) -> tuple[HeadView, ...]:
    """What each head among the nodes attends to in the clean run, averaged over the prompts of the first length."""
    heads = [parse(node) for node in nodes if is_head(node)]
    sites = sorted({str(head.whole).replace("attn.z", "attn.pattern") for head in heads})
    named = routes(bench.task)
    if not sites:
        return ()
    patterns = bench.recording("clean", 0, sites)
    bench.n_passes += 1
    views = []
    for head in heads:
        single = head.index("head")
        assert single is not None and single.single is not None
        site = str(head.whole).replace("attn.z", "attn.pattern")
        views.append(_view(str(head), patterns[site][:, single.single].mean(0), named))
    return tuple(views)


def _view(node: str, pattern: Float[Tensor, "pos src"], named: Mapping[str, tuple[int, int]]) -> HeadView:
    along = {route: float(pattern[at, of]) for route, (at, of) in named.items()}
    best = max(along, key=lambda route: along[route], default="")
    is_clear = bool(best) and along[best] >= CLEAR
    writes, reads = named[best] if is_clear else _strongest(pattern)
    return HeadView(
        node=node, role=ROLES[best] if is_clear else "", route=best if is_clear else "",
        attention=along[best] if is_clear else float(pattern[writes, reads]), reads=reads, writes=writes,
        pattern=tuple(tuple(round(v, 5) for v in row) for row in pattern.tolist()), routes=along,
    )  # fmt: skip


def _strongest(pattern: Float[Tensor, "pos src"]) -> tuple[int, int]:
    """(writes, reads) of the last row's strongest attention, leaving out the attention sink at position 0."""
    last = pattern.shape[0] - 1
    return last, int(pattern[last, 1:].argmax()) + 1 if pattern.shape[1] > 1 else 0


def head_scores(model: Model, task: Task, *, bench: Bench | None = None) -> HeadScores:
    """Induction, previous-token and duplicate-token score of every head on a task of repeated tokens.

    Mean attention, over the second half's positions, to the token after the previous occurrence, to the token before,
    and to the previous occurrence (Olsson et al., arXiv 2209.11895).
    """
    started = time.monotonic()
    bench = bench or Bench(model, task)
    half = task.pairs[0].marks["repeat"]
    # one layer at a time: the patterns of all layers together would be large
    layers = [_pattern_scores(model, bench, layer, half) for layer in range(model.table.n_layers)]
    by_kind = tuple(tuple(tuple(layer[kind]) for layer in layers) for kind in range(len(PATTERN_KINDS)))
    return HeadScores(
        task.name, PATTERN_KINDS, by_kind,
        provenance(model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
                   n_passes=model.table.n_layers),
    )  # fmt: skip


def _pattern_scores(model: Model, bench: Bench, layer: int, half: int) -> list[list[float]]:
    """[kind][head] scores of one layer."""
    site = f"blocks.{layer}.attn.pattern"
    pattern = record(model, bench.tokens("clean", 0), site)[site].mean(0)  # [head, pos, src]
    at = torch.arange(half, 2 * half - 1, device=pattern.device)
    offsets = (half - 1, 1, half)
    return [pattern[:, at, at - offset].mean(1).tolist() for offset in offsets]
