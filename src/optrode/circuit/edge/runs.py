"""Measure a task's metric with edges ablated: many circuits, batched, kept in the store like other trials."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from optrode.circuit.edge.hold import holding
from optrode.circuit.edge.senders import Sent, listening, nothing, replacement
from optrode.circuit.edge.wiring import Wiring
from optrode.errors import BadOption
from optrode.records import content_hash
from optrode.site.tap import tapped
from optrode.trial.kernels import fast, linears_of
from optrode.trial.key import bench_key
from optrode.trial.memory import SHARE, free_gib
from optrode.trial.run import Bench, Progress, Values, no_progress
from optrode.trial.trial import World
from optrode.trial.worlds import read_logits

N_TOKENS: Final = 512
"""Tokens of one pass, about, as long as memory holds the changes of every sender."""

Mask = Bool[np.ndarray, " edge"]
PosMask = Bool[np.ndarray, "edge pos"]


@final
class EdgeRuns:
    """A bench on which edges are ablated.

    Attributes:
        wiring: of the bench's model.
        ablation: what senders give where an edge is ablated: "resample", "zero" or "mean".
        fixed: what they give instead, the same for all prompts, where it was found by search (`optimal.py`).
    """

    def __init__(self, bench: Bench, wiring: Wiring, ablation: str = "resample", fixed: Sent | None = None) -> None:
        self.bench, self.wiring, self.ablation, self.fixed = bench, wiring, ablation, fixed
        self._sent: dict[tuple[str, int], Sent] = {}
        self._ablated: dict[int, Sent] = {}

    def sent(self, world: World, group: int) -> Sent:
        """What all senders gave in a world's plain run of a group."""
        if (world, group) not in self._sent:
            sent = nothing()
            with torch.no_grad(), tapped(self.wiring.model, listening(self.wiring, sent)):
                self._read(self.bench.worlds.inputs(world, group), group)
            self._sent[world, group] = sent
        return self._sent[world, group]

    def ablated(self, group: int) -> Sent:
        """What senders give in a group's runs where an edge is ablated."""
        if self.fixed is not None:
            return self.fixed
        if group not in self._ablated:
            clean = self.sent("clean", group) if self.ablation in ("zero", "mean") else None
            corrupt = self.sent("corrupt", group) if clean is None else None
            self._ablated[group] = replacement(self.ablation, clean, corrupt)
        return self._ablated[group]

    @cached_property
    def full(self) -> Values:
        """[prompt] metric with nothing ablated."""
        return self.bench.base("clean")

    @cached_property
    def empty(self) -> Values:
        """[prompt] metric with every edge ablated."""
        return self.measure([np.zeros(self.wiring.graph.n_edges, dtype=bool)])[0]

    def measure(
        self, kept: Sequence[Mask | PosMask], progress: Progress = no_progress, stage: str = "circuits"
    ) -> list[Values]:
        """[circuit][prompt] metric in the clean run with every edge outside a circuit ablated.

        Args:
            kept: which edges each circuit keeps; [edge, pos] masks keep an edge at some positions only, for prompts of one
                length.
        """
        keys = [self._key(mask) for mask in kept]
        held = dict(self.bench.store.read([key for key in keys if key])) if self.bench.store else {}
        todo = [ix for ix, key in enumerate(keys) if key not in held]
        found = {ix: held[key] for ix, key in enumerate(keys) if key in held}
        progress(stage, len(found), len(kept))
        for chunk in self._chunks(todo):
            values = self._run([kept[ix] for ix in chunk])
            found |= dict(zip(chunk, values, strict=True))
            if self.bench.store and self.fixed is None:  # fitted constants have no key
                self.bench.store.commit({keys[ix]: found[ix] for ix in chunk})
            progress(stage, len(found), len(kept))
        return [found[ix] for ix in range(len(kept))]

    def _key(self, mask: Mask | PosMask) -> str:
        if not self.bench.store or self.fixed is not None:
            return ""
        packed = np.packbits(mask).tobytes().hex()
        return content_hash([self._bench_key, "edges", self.ablation, self.wiring.per_query_head, mask.shape, packed])

    @cached_property
    def _bench_key(self) -> str:
        return bench_key(self.bench.model, self.bench.task, self.bench.metric)

    def _chunks(self, todo: Sequence[int]) -> Iterator[list[int]]:
        """Circuits that go through the model together."""
        n_rows = len(self.bench.task)
        size = max(1, N_TOKENS // (n_rows * max(map(self.bench.worlds.length, range(len(self.bench.worlds.groups))))))
        for start in range(0, len(todo), size):
            yield list(todo[start : start + size])

    @torch.no_grad()
    def _run(self, kept: Sequence[Mask | PosMask]) -> list[Values]:
        graph = self.wiring.graph
        masks = np.stack(kept).astype(np.float32)
        by_pos = masks.swapaxes(1, 2) if masks.ndim == 3 else masks
        keep = torch.from_numpy(graph.matrix(by_pos)).to(self._like)
        found = [[0.0] * len(self.bench.task) for _ in kept]
        for group, members in enumerate(self.bench.worlds.groups):
            for rows in self._row_chunks(group, len(kept)):
                values = self._group(keep, group, rows)
                for one, part in zip(found, values, strict=True):
                    for row, value in zip(rows, part, strict=True):
                        one[members[row]] = value
        return [tuple(one) for one in found]

    @property
    def _like(self) -> Tensor:
        return torch.empty(0, dtype=self.wiring.model.dtype, device=self.wiring.model.device)

    def _row_chunks(self, group: int, n_circuits: int) -> Iterator[list[int]]:
        """Rows of a group that go together: the changes of all senders, and their copies, must fit."""
        graph, d_model = self.wiring.graph, self.wiring.model.table.d_model
        per_row = 4 * len(graph.sender_ends) * self.bench.worlds.length(group) * d_model * self._like.element_size()
        budget = (self.bench.memory_gib or SHARE * free_gib(self.wiring.model)) * 2**30
        n_rows = len(self.bench.worlds.groups[group])
        size = max(1, min(n_rows, int(budget / (per_row * n_circuits))))
        for start in range(0, n_rows, size):
            yield list(range(start, min(start + size, n_rows)))

    def _group(self, keep: Tensor, group: int, rows: Sequence[int]) -> list[list[float]]:
        """[circuit][row] metric of some rows, all circuits side by side in one batch."""
        n_circuits = len(keep)
        every = list(rows) * n_circuits
        inputs = self.bench.worlds.inputs("clean", group)[every]
        shared = keep[0] if keep.dim() == 3 else keep
        mask = shared if n_circuits == 1 else keep.repeat_interleave(len(rows), 0)
        with ExitStack() as stack:
            stack.enter_context(holding(self.wiring, mask, self.ablated(group).rows(every)))
            stack.enter_context(fast(linears_of([self.wiring.model.module])))
            logits = self._read(inputs, group)
        parts = logits.unflatten(0, (n_circuits, len(rows)))
        return [self.bench.measured(part, group, rows) for part in parts]

    def _read(self, inputs: Tensor, group: int) -> Tensor:
        self.bench.worlds.n_passes += 1
        return read_logits(self.wiring.model, inputs, self.bench.worlds.positions(group))


def refuse_degenerate(runs: EdgeRuns) -> None:
    """Refuse a task on which no circuit can be told from another.

    Raises:
        BadOption: ablating every edge leaves the metric as it is.
    """
    full, empty = float(np.mean(runs.full)), float(np.mean(runs.empty))
    if not abs(full - empty) > 1e-6:
        raise BadOption(
            f"circuits of edges for {runs.bench.task.name}", "ablating every edge leaves the metric as it is",
            next_step="choose another ablation or metric",
        )  # fmt: skip


def share_of(values: Values, empty: Values, full: Values) -> float:
    """Faithfulness as a ratio of means over prompts."""
    means = [float(np.mean(part)) for part in (values, empty, full)]
    return (means[0] - means[1]) / (means[2] - means[1])

