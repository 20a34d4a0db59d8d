"""Exact effects of single edges, through the planner.

With one edge ablated in the clean run, all that its receiver reads is known from recordings: its q, k or v, its MLP's
input, or the end of the stream. So the effect is that of patching this one value, which the planner packs with many
others. A query head that has a k or v input of its own shares them with its group in the model: there the whole group is
patched, and the other heads' outputs are held at the clean run's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.graph import KEYS, End
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.senders import Plain, nothing, watching
from optrode.circuit.edge.streams import Stream, stream_of
from optrode.gate.gate import Gate
from optrode.gate.kinds import patch
from optrode.site.tap import tapped
from optrode.trial.run import Bench, Progress, no_progress
from optrode.trial.trial import Trial
from optrode.trial.worlds import read_logits

N_FLOATS: Final = 2**24
"""Numbers that the changed streams of some edges may take at a time, and the values of trials that run together."""


def exact_effects(
    runs: EdgeRuns, edges: Sequence[int], progress: Progress = no_progress, stage: str = "exact effects"
) -> Float[np.ndarray, "prompt edge"]:
    """The metric with one edge ablated in the clean run, minus the metric without; one column for each of `edges`."""
    found = np.zeros((len(runs.bench.task), len(edges)))
    done = 0
    for group, members in enumerate(runs.bench.worlds.groups):
        bench = _bench_of(runs, group)
        base = np.array(bench.base("clean"))
        for columns, trials in _together(_trials(runs, group, edges)):
            values = bench.run_many(trials)
            found[np.ix_(members, columns)] = np.array(values).T - base[:, None]
            progress(stage, done := done + len(trials), len(edges) * len(runs.bench.worlds.groups))
    return found


def _bench_of(runs: EdgeRuns, group: int) -> Bench:
    """A bench of one group's prompts: patched values are tensors, one row for each of them."""
    bench = runs.bench
    if len(bench.worlds.groups) == 1:
        return bench
    pairs = tuple(bench.worlds.pairs(group))
    return Bench(
        bench.model, replace(bench.task, pairs=pairs), bench.metric, shares=bench.shares, skip_null=bench.skip_null,
        memory_gib=bench.memory_gib, store=bench.store, executor=bench.executor,
    )  # fmt: skip


def _together(trials: Iterator[tuple[int, Trial]]) -> Iterator[tuple[list[int], list[Trial]]]:
    """Trials whose values fit in memory at once, with their columns."""
    columns: list[int] = []
    held: list[Trial] = []
    n_floats = 0
    for column, trial in trials:
        columns.append(column)
        held.append(trial)
        n_floats += sum(t.numel() for gate in trial.gates for t in _tensors(gate))
        if n_floats > N_FLOATS:
            yield columns, held
            columns, held, n_floats = [], [], 0
    if held:
        yield columns, held


def _tensors(gate: Gate) -> list[Tensor]:
    source = getattr(gate.actuator, "source", None)
    return [source] if isinstance(source, Tensor) else []


def _trials(runs: EdgeRuns, group: int, edges: Sequence[int]) -> Iterator[tuple[int, Trial]]:
    """(column, trial) of every edge of a group, receivers of one place together."""
    graph, stream = runs.wiring.graph, _replayed(runs, group)
    numbered = sorted((int(graph.ends[e][0]), int(graph.ends[e][1]), column) for column, e in enumerate(edges))
    for place, members in groupby(numbered, key=lambda one: graph.receiver_ends[one[0]]._replace(head=-1)):
        for some in _split(list(members), runs, group):
            values = _values(runs, group, stream, place, some)
            for (receiver, _, column), value in zip(some, values, strict=True):
                gates = _gates(runs, graph.receiver_ends[receiver], value)
                yield column, Trial(gates, "clean", runs.bench.metric.name)


def _split(edges: list[tuple[int, int, int]], runs: EdgeRuns, group: int) -> Iterator[list[tuple[int, int, int]]]:
    n_tokens = len(runs.bench.worlds.groups[group]) * runs.bench.worlds.length(group)
    size = max(1, N_FLOATS // (n_tokens * runs.wiring.model.table.d_model))
    for start in range(0, len(edges), size):
        yield edges[start : start + size]


@torch.no_grad()
def _replayed(runs: EdgeRuns, group: int) -> tuple[Stream, Plain]:
    plain, worlds = Plain(nothing()), runs.bench.worlds
    with tapped(runs.wiring.model, watching(runs.wiring, plain)):
        read_logits(runs.wiring.model, worlds.inputs("clean", group), worlds.positions(group))
    worlds.n_passes += 1
    return stream_of(runs.wiring, runs.ablated(group), plain), plain


@torch.no_grad()
def _values(
    runs: EdgeRuns, group: int, stream: tuple[Stream, Plain], place: End, edges: list[tuple[int, int, int]]
) -> list[Tensor]:
    """What each edge's receiver gets with this edge ablated: [row, pos, 1, d_head], or [row, pos, d_model]."""
    wiring, within = runs.wiring, place.kind == "mlp"
    n_seen = wiring.graph.n_before(place.layer, within=within)
    cut = torch.zeros(len(edges), n_seen, dtype=wiring.model.dtype, device=wiring.model.device)
    cut[range(len(edges)), [sender for _, sender, _ in edges]] = 1.0
    heard, plain = stream
    read = heard.read(cut, plain.before(place.layer, within=within), place.layer, within=within)
    if place.kind not in ("q", *KEYS):
        return list(read.unbind(1))
    heads = [wiring.graph.receiver_ends[receiver].head for receiver, _, _ in edges]
    found = wiring.project(place.layer, place.kind, wiring.input_norm(place.layer)(read), heads)
    return [value[:, :, None] for value in found.unbind(2)]


def _gates(runs: EdgeRuns, end: End, value: Tensor) -> tuple[Gate, ...]:
    if end.kind == "logits":
        return (patch(f"blocks.{end.layer - 1}.resid_post", value),)
    if end.kind == "mlp":
        return (patch(f"blocks.{end.layer}.mlp_in", value),)
    site, copies = f"blocks.{end.layer}.attn.{end.kind}", 1
    if runs.wiring.per_query_head and end.kind in KEYS:
        copies = runs.wiring.model.table.n_heads // runs.wiring.model.table.n_kv_heads
    gate = patch(f"{site}[head={end.head // copies}]", value)
    mates = [head for head in range(end.head // copies * copies, (end.head // copies + 1) * copies) if head != end.head]
    held = f"blocks.{end.layer}.attn.z[head={'|'.join(map(str, mates))}]"
    return (gate, patch(held, "clean")) if mates else (gate,)
