"""Where heads look: attention along a task's named routes, and the classical pattern scores of every head."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.circuit import HeadScores, HeadView, NodeScore
from optrode.circuit.nodes import is_head
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.model.names import SiteName, parse
from optrode.provenance import provenance
from optrode.site.recording import run
from optrode.site.select import select_sites
from optrode.site.site import Moment
from optrode.site.tap import tapped
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench

MOVER: Final = "name mover"
ROLES: Final = {
    "end -> io": MOVER,
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


def look_at_heads(bench: Bench, scores: Sequence[NodeScore]) -> tuple[HeadView, ...]:
    """What each head among the nodes attends to in the clean run, averaged over the prompts of the first length.

    Args:
        scores: of the nodes to look at. A mover whose ablation helps the task is a negative one; a head without a
            named route stands where most of its effect comes from.
    """
    heads = [(score, parse(score.node)) for score in scores if is_head(score.node)]
    sites = sorted({_pattern_site(head) for _, head in heads})
    named = routes(bench.task)
    if not sites:
        return ()
    patterns = bench.worlds.recording("clean", 0, sites)
    bench.worlds.n_passes += 1
    views = []
    for score, head in heads:
        single = head.index("head")
        assert single is not None and single.single is not None
        view = _view(score, patterns[_pattern_site(head)][:, single.single].mean(0), named)
        is_negative = view.role == MOVER and score.effect > 0
        views.append(replace(view, role=f"negative {MOVER}") if is_negative else view)
    return tuple(views)


def _pattern_site(head: SiteName) -> str:
    return str(head.whole).replace("attn.z", "attn.pattern")


def _view(score: NodeScore, pattern: Float[Tensor, "pos src"], named: Mapping[str, tuple[int, int]]) -> HeadView:
    along = {route: float(pattern[at, of]) for route, (at, of) in named.items()}
    best = max(along, key=lambda route: along[route], default="")
    is_clear = bool(best) and along[best] >= CLEAR
    writes, reads = named[best] if is_clear else _strongest(pattern, score)
    return HeadView(
        node=score.node, role=ROLES[best] if is_clear else "", route=best if is_clear else "",
        attention=along[best] if is_clear else float(pattern[writes, reads]), reads=reads, writes=writes,
        pattern=tuple(tuple(round(v, 5) for v in row) for row in pattern.tolist()), routes=along,
    )  # fmt: skip


def _strongest(pattern: Float[Tensor, "pos src"], score: NodeScore) -> tuple[int, int]:
    """(writes, reads): the position with most of the effect (else the last), and where it looks besides the sink at 0."""
    per_pos = score.per_pos[: pattern.shape[0]]
    writes = max(range(len(per_pos)), key=lambda pos: abs(per_pos[pos])) if per_pos else pattern.shape[0] - 1
    return writes, int(pattern[writes, 1 : writes + 1].argmax()) + 1 if writes else 0


def head_scores(model: Model, task: Task, *, bench: Bench | None = None) -> HeadScores:
    """Induction, previous-token and duplicate-token score of every head on a task of repeated tokens.

    Mean attention, over the second half's positions, to the token after the previous occurrence, to the token before,
    and to the previous occurrence (Olsson et al., arXiv 2209.11895).

    Raises:
        BadOption: the task's prompts are not repeated tokens.
    """
    started = time.monotonic()
    bench = bench or Bench(model, task)
    half = task.pairs[0].marks.get("repeat")
    if half is None:
        raise BadOption(
            f"head scores on task {task.name}", "its prompts are not repeated tokens",
            next_step="use op.tasks.induction(model)",
        )  # fmt: skip
    layers = _pattern_scores(model, bench, half)
    by_kind = tuple(tuple(tuple(layer[kind]) for layer in layers) for kind in range(len(PATTERN_KINDS)))
    bench.worlds.n_passes += 1
    return HeadScores(
        task.name, PATTERN_KINDS, by_kind,
        provenance(model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started, n_passes=1),
    )  # fmt: skip


def _pattern_scores(model: Model, bench: Bench, half: int) -> list[list[list[float]]]:
    """[layer][kind][head] scores, from one pass that keeps no pattern."""
    layers: list[list[list[float]]] = []

    def see(pattern: Float[Tensor, "batch head pos src"], moment: Moment) -> None:
        at = torch.arange(half, 2 * half - 1, device=pattern.device)
        offsets = (half - 1, 1, half)  # after the previous occurrence, the token before, the previous occurrence
        layers.append([pattern[:, :, at, at - offset].mean((0, 2)).tolist() for offset in offsets])

    with torch.no_grad(), tapped(model, [(site, see) for site in select_sites(model, "blocks.*.attn.pattern")]):
        run(model, bench.worlds.tokens("clean", 0))
    return layers
