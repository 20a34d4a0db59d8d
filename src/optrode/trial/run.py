"""The plain executor: trials one after another, sharing what costs nothing to share.

Both worlds are recorded once for all trials. A trial whose gates change nothing, checked bitwise against the recorded
run, has the base result without a run; others start at the first position that can change (`prefix.py`). Only the
logits that the metric reads are computed. `naive.py` is the reference for all of it.
"""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.trial.metric import Metric, find_metric, is_right
from optrode.trial.prefix import Prefixes, Start, can_restart
from optrode.trial.prompts import Task
from optrode.trial.trial import Trial, World
from optrode.trial.worlds import Worlds

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all), called after every step."""


def no_progress(stage: str, done: int, total: int) -> None:
    """The default: say nothing."""


@final
class Bench:
    """A model with a task on it: runs trials.

    Attributes:
        worlds: what was recorded of the task's two worlds.
        shares: start trials at the first position that can change; False runs every trial in full.
    """

    def __init__(self, model: Model, task: Task, metric: str | Metric | None = None, *, shares: bool = True) -> None:
        self.model, self.task, self.shares = model, task, shares
        self.metric = find_metric(metric or task.metric)
        self.worlds = Worlds(model, task)
        self._prefixes = Prefixes(self.worlds)
        self._base: dict[str, tuple[float, ...]] = {}

    def base(self, world: World) -> tuple[float, ...]:
        """[prompt] metric without gates."""
        if world not in self._base:
            trial = Trial((), world, self.metric.name)
            self._base[world] = self._in_order([self._values(trial, g, 0) for g in range(len(self.worlds.groups))])
        return self._base[world]

    def run(self, trial: Trial) -> tuple[float, ...]:
        """[prompt] metric of a trial."""
        if not trial.gates:
            return self.base(trial.world)
        self.worlds.remember(trial.gates)
        starts = self.starts(trial)
        if all(start.position is None for start in starts):
            return self.base(trial.world)
        late = [Trial(start.gates, trial.world, trial.metric) for start in starts]
        parts = [self._values(t, g, start.position or 0) for g, (t, start) in enumerate(zip(late, starts, strict=True))]
        return self._in_order(parts)

    def starts(self, trial: Trial) -> list[Start]:
        """[group] where the trial may start."""
        groups = range(len(self.worlds.groups))
        if not self.shares:
            return [Start(0, trial.gates) for _ in groups]
        return [self._prefixes.start(trial, g, min(self._positions(g))) for g in groups]

    def accuracy(self, world: World) -> float:
        """Share of prompts on which the model does the task."""
        trial = Trial((), world, self.metric.name)
        groups = range(len(self.worlds.groups))
        with torch.no_grad():
            right = [ok for g in groups for ok in is_right(self.read(trial, g), self.worlds.pairs(g))]
        return sum(right) / len(right)

    def read(self, trial: Trial, group: int, start: int = 0) -> Float[Tensor, "batch read vocab"]:
        """Logits that the metric reads, for the prompts of one group, with the trial's gates held.

        Args:
            start: run from this position, on the keys and values of the run without gates.
        """
        held = [self.worlds.bound(gate, group) for gate in trial.gates]
        past = {"past_key_values": self._prefixes.cache(trial.world, group, start)} if start else {}
        tokens = torch.tensor(self.worlds.tokens(trial.world, group), device=self.model.device)[:, start:]
        read = torch.tensor(self._positions(group), device=self.model.device) - start
        self.worlds.n_passes += 1
        with gates(self.model, *held):
            if not can_restart(self.worlds) or _gates_logits(trial.gates):
                everything: Tensor = self.model.module(input_ids=tokens).logits
                return everything[:, read]
            kept: Tensor = self.model.module(input_ids=tokens, logits_to_keep=read, use_cache=bool(start), **past).logits
            return kept

    def _values(self, trial: Trial, group: int, start: int) -> list[float]:
        with torch.no_grad():
            logits = self.read(trial, group, start)
            values: list[float] = self.metric.function(logits, self.worlds.pairs(group)).tolist()
        return values

    def _positions(self, group: int) -> tuple[int, ...]:
        return self.metric.positions(self.worlds.pairs(group)[0])

    def _in_order(self, parts: list[list[float]]) -> tuple[float, ...]:
        values = [0.0] * len(self.task)
        for group, part in zip(self.worlds.groups, parts, strict=True):
            for ix, value in zip(group, part, strict=True):
                values[ix] = value
        return tuple(values)


def _gates_logits(held: tuple[Gate, ...]) -> bool:
    """Whether a gate acts on the logits themselves, which must then be whole."""
    return any(gate.site.kind == "logits" for gate in held)
