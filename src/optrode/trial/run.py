"""The executor: many trials at once, sharing everything that is exact to share. `naive.py` is the reference.

Each trial takes the shortest route that gives its numbers: a trial whose gates change nothing, checked bitwise against
the recorded run, has the plain run's metric; most are packed (`packed.py`); one whose reach is unknown starts at the
first layer with a gate, and where even that is unknown it runs in full.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.errors import NotPacked
from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.store.store import Store
from optrode.trial.ability import abilities
from optrode.trial.blocks import starting_at
from optrode.trial.kernels import linears_of
from optrode.trial.key import bench_key, trial_key
from optrode.trial.memory import SHARE, chunk_gib, free_gib, n_tokens_within
from optrode.trial.metric import Metric, find_metric, is_right, measure, narrowed
from optrode.trial.packed import Packer
from optrode.trial.plan import Abilities, Chunk, Plan, make_plan, remember, way_of
from optrode.trial.prompts import Pair, Task
from optrode.trial.reach import strips_of
from optrode.trial.tail import logits_of
from optrode.trial.trial import Trial, World
from optrode.trial.work import Tally, Work
from optrode.trial.worlds import Worlds, read_logits

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all), called after every step."""

Values = tuple[float, ...]
Executor = Callable[["Bench", Sequence[Trial], Sequence[Chunk]], Iterator[tuple[Chunk, Sequence[Values]]]]
"""Runs chunks anywhere, and yields each with its trials' values as it finishes."""


def no_progress(stage: str, done: int, total: int) -> None:
    """The default: say nothing."""


@final
class Bench:
    """A model with a task on it: runs trials.

    Attributes:
        worlds: what was recorded of the task's two worlds.
        shares: share computation between trials; False runs every trial in full.
        skip_null: leave out trials, and rows of trials, that change nothing.
        memory_gib: what recordings and runs may take; None for half of what is free.
        store: where finished trials are kept, and looked up.
        executor: runs chunks elsewhere than in this process.
    """

    def __init__(
        self, model: Model, task: Task, metric: str | Metric | None = None, *, shares: bool = True,
        skip_null: bool = True, memory_gib: float | None = None, store: Store | None = None,
        executor: Executor | None = None,
    ) -> None:  # fmt: skip
        self.model, self.task, self.shares, self.skip_null = model, task, shares, skip_null
        self.memory_gib, self.store, self.executor = memory_gib, store, executor
        self.metric = find_metric(metric or task.metric)
        self.worlds = Worlds(model, task, self.metric.positions, linears_of([model.module]) if shares else ())
        self.tally = Tally()
        self._packer = Packer(self.worlds, self.tally)
        self._base: dict[str, Values] = {}

    @property
    def work(self) -> Work:
        """How much was computed so far."""
        return self.tally.work

    @cached_property
    def can(self) -> Abilities:
        """What trials on this model can share, tried out once."""
        if not self.shares:
            return Abilities(packs=False, restarts=False)
        can = abilities(self._packer, min(self.worlds.walked, default="clean"))
        if can.reason:
            warnings.warn(f"trials on {self.model.name} are not packed: {can.reason}", NotPacked, stacklevel=2)
        return can

    @contextmanager
    def keeping(self, store: Store | None) -> Iterator[None]:
        """Trials are kept in this store inside the context; None leaves things as they are."""
        before, self.store = self.store, store or self.store
        try:
            yield
        finally:
            self.store = before

    def base(self, world: World) -> Values:
        """[prompt] metric without gates."""
        if world not in self._base:
            with torch.no_grad():
                parts = [self.measured(self.worlds.logits(world, g), g) for g in range(len(self.worlds.groups))]
            self._base[world] = self._in_order(parts)
        return self._base[world]

    def run(self, trial: Trial) -> Values:
        """[prompt] metric of a trial."""
        return self.run_many([trial])[0]

    def run_many(self, trials: Sequence[Trial], progress: Progress = no_progress, stage: str = "trials") -> list[Values]:
        """[trial][prompt] metrics of trials.

        Raises:
            Everything that `gates` raises.
        """
        found = dict(self.each(trials, self.plan(trials), progress, stage))
        return [found[ix] for ix in range(len(trials))]

    def plan(self, trials: Sequence[Trial]) -> Plan:
        """Which way each trial takes.

        Raises:
            BadOption: the memory allowed is too little.
        """
        budget = self.memory_gib or SHARE * free_gib(self.model)
        held = self.prepare(trials, budget)
        columns, _ = self._narrow
        n_columns = len(columns) if columns else int(self.worlds.logits(trials[0].world, 0).shape[-1]) if trials else 0
        ways = [way_of(self.worlds, trial, self.can, self.skip_null) for trial in trials]
        n_tokens = n_tokens_within(self.worlds, budget, held, [way.n_tokens for way in ways], n_columns)
        plan = make_plan(trials, ways, self._settled(n_tokens))
        self.tally.needs(held + chunk_gib(self.worlds, n_tokens, n_columns))
        return plan

    def prepare(self, trials: Sequence[Trial], budget_gib: float = math.inf) -> float:
        """Record what trials need; returns the memory it takes, in GiB.

        Raises:
            BadOption: that is more than the budget.
        """
        return remember(self.worlds, trials, budget_gib, shares=self.shares)

    def _settled(self, n_tokens: int) -> int:
        """The chunk size that a run began with, so that it goes on with the same chunks."""
        if self.store is None:
            return n_tokens
        n_tokens = min(n_tokens, self.store.noted("n_tokens") or n_tokens)
        self.store.note("n_tokens", n_tokens)
        return n_tokens

    def _count(self, n_trials: int, n_kept: int, plan: Plan) -> None:
        n_tokens = sum(len(rows) * self.worlds.length(group) for group, rows in enumerate(self.worlds.groups))
        plain = (n_trials - n_kept) * n_tokens * len(self._packer.blocks)
        self.tally.add(n_trials=n_trials, n_kept=n_kept, plain_token_layers=plain, n_null=len(plan.null))
        for chunk in plan.chunks:
            if chunk.reason:
                self.tally.plainly(chunk.reason, len(chunk.trials))

    def each(
        self, trials: Sequence[Trial], plan: Plan, progress: Progress = no_progress, stage: str = "trials"
    ) -> Iterator[tuple[int, Values]]:
        """Every trial's index and values, as chunks finish; those that the store has come first."""
        keys = self._keys(trials)
        held = self.store.read(keys) if self.store else {}
        self._count(len(trials), sum(key in held for key in keys), plan)
        null = {ix: self.base(trials[ix].world) for ix in plan.null}
        self._keep({keys[ix]: values for ix, values in null.items() if keys[ix] not in held} if keys else {})
        ready = {ix: held[key] for ix, key in enumerate(keys) if key in held} | null
        yield from ready.items()
        progress(stage, done := len(ready), len(trials))
        todo = [replace(chunk, trials=tuple(ix for ix in chunk.trials if ix not in ready)) for chunk in plan.chunks]
        for chunk, found in (self.executor or _here)(self, trials, [chunk for chunk in todo if chunk.trials]):
            self._keep({keys[ix]: values for ix, values in zip(chunk.trials, found, strict=True)} if keys else {})
            yield from zip(chunk.trials, found, strict=True)
            progress(stage, done := done + len(chunk.trials), len(trials))

    def _keys(self, trials: Sequence[Trial]) -> list[str]:
        """[trial] key in the store; none without one."""
        return [trial_key(self._key, trial) for trial in trials] if self.store else []

    @cached_property
    def _key(self) -> str:
        return bench_key(self.model, self.task, self.metric)

    def _keep(self, values: Mapping[str, Values]) -> None:
        if self.store and values:
            self.store.commit(values)

    def run_chunk(self, chunk: Chunk, trials: Sequence[Trial]) -> list[Values]:
        """[trial][prompt] metrics of one chunk's trials."""
        if chunk.route == "packed":
            return self._run_packed(trials)
        layer = chunk.layer if chunk.route == "by layer" else 0
        return [self._run_alone(trial, layer) for trial in trials]

    def accuracy(self, world: World) -> float:
        """Share of prompts on which the model does the task."""
        groups = range(len(self.worlds.groups))
        right = [ok for g in groups for ok in is_right(self.worlds.logits(world, g), self.worlds.pairs(g))]
        return sum(right) / len(right)

    def read(self, trial: Trial, group: int, layer: int = 0) -> Float[Tensor, "batch read vocab"]:
        """Logits that the metric reads, for the prompts of one group, with the trial's gates held.

        Args:
            layer: go on from the plain run at this block's input.
        """
        held = [self.worlds.bound(gate, group) for gate in trial.gates]
        inputs, n_layers = self.worlds.inputs(trial.world, group), len(self._packer.blocks)
        self.worlds.n_passes += 1
        self.tally.add(token_layers=len(inputs) * self.worlds.length(group) * (n_layers - layer))
        with ExitStack() as stack:
            if layer:
                walk = self.worlds.walk(trial.world, group)
                stack.enter_context(starting_at(self._packer.blocks, layer, walk.before(layer), walk))
            stack.enter_context(gates(self.model, *held))
            return read_logits(self.model, inputs, self.worlds.positions(group), whole=_gates_logits(trial.gates))

    def _run_packed(self, trials: Sequence[Trial]) -> list[Values]:
        every = [strips_of(self.worlds, t, ix, skip_null=self.skip_null) or [] for ix, t in enumerate(trials)]
        strips = [strip for some in every for strip in some]
        self.worlds.n_passes += 1
        logits = logits_of(self._packer, strips, self._packer.run(strips), self._narrow[0])
        found = [list(self.base(trial.world)) for trial in trials]
        for strip, read in zip(strips, logits, strict=True):
            values = self.measured(read, strip.group, strip.rows)
            for row, value in zip(strip.rows, values, strict=True):
                found[strip.trial][self.worlds.groups[strip.group][row]] = value
        return [tuple(values) for values in found]

    def _run_alone(self, trial: Trial, layer: int) -> Values:
        with torch.no_grad():
            return self._in_order([self.measured(self.read(trial, g, layer), g) for g in range(len(self.worlds.groups))])

    @cached_property
    def _narrow(self) -> tuple[tuple[int, ...] | None, tuple[Pair, ...]]:
        return narrowed(self.metric, self.task.pairs)

    def measured(self, logits: Tensor, group: int, rows: Sequence[int] | None = None) -> list[float]:
        """[row] metric of some rows of a group, from logits of all tokens or of the columns that the metric reads."""
        chosen = range(len(self.worlds.groups[group])) if rows is None else rows
        values: list[float] = self.measure_rows(logits, group, chosen).tolist()
        return values

    def measure_rows(self, logits: Tensor, group: int, rows: Sequence[int]) -> Float[Tensor, " row"]:
        """The metric of some rows of a group, with its gradient."""
        columns, narrow = self._narrow
        pairs = narrow if columns is not None and logits.shape[-1] == len(columns) else self.task.pairs
        members = self.worlds.groups[group]
        plain = self.worlds.logits(self.metric.against, group)[list(rows)] if self.metric.against else None
        return measure(self.metric, logits, [pairs[members[row]] for row in rows], plain)

    def _in_order(self, parts: Sequence[Sequence[float]]) -> Values:
        values = [0.0] * len(self.task)
        for group, part in zip(self.worlds.groups, parts, strict=True):
            for ix, value in zip(group, part, strict=True):
                values[ix] = value
        return tuple(values)


def _here(bench: Bench, trials: Sequence[Trial], chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, Sequence[Values]]]:
    """One chunk after another in this process."""
    for chunk in chunks:
        yield chunk, bench.run_chunk(chunk, [trials[ix] for ix in chunk.trials])


def _gates_logits(held: tuple[Gate, ...]) -> bool:
    """Whether a gate acts on the logits themselves, which must then be whole."""
    return any(gate.site.kind == "logits" for gate in held)
