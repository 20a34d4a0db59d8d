"""The plain executor: trials one after another, sharing what costs nothing to share.

Both worlds are recorded once for all trials. A trial whose gates change nothing, checked bitwise against the recorded
base run, has the base result without a run. Only the logits that the metric reads are computed. `naive.py` is the
reference for all of it.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.errors import NoPairs
from optrode.gate.gate import Gate, apply_gate
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.site.recording import Recording, record
from optrode.site.select import select_sites
from optrode.site.site import Moment, Site
from optrode.trial.metric import Metric, find_metric, is_right
from optrode.trial.prompts import Pair, Task, groups_by_length
from optrode.trial.trial import Trial, World

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all), called after every step."""


def no_progress(stage: str, done: int, total: int) -> None:
    """The default: say nothing."""


@final
class Bench:
    """A model with a task on it: runs trials, and remembers both worlds as far as they were needed.

    Attributes:
        n_passes: forward passes so far, one per group of prompts of equal length.
    """

    def __init__(self, model: Model, task: Task, metric: str | Metric | None = None) -> None:
        if not task.pairs:
            raise NoPairs(f"task {task.name}", "it holds no pair", next_step="give one; find and prove take one each")
        self.model, self.task = model, task
        self.metric = find_metric(metric or task.metric)
        self.groups = groups_by_length(task.pairs)
        self.n_passes = 0
        self._worlds: dict[tuple[str, int], Recording] = {}
        self._base: dict[str, tuple[float, ...]] = {}

    def base(self, world: World) -> tuple[float, ...]:
        """[prompt] metric without gates."""
        if world not in self._base:
            self._base[world] = self.run(Trial((), world, self.metric.name))
        return self._base[world]

    def run(self, trial: Trial) -> tuple[float, ...]:
        """[prompt] metric of a trial."""
        self.remember(trial.gates)
        with torch.no_grad():
            parts = [self.metric.function(self.read(trial, g), self.pairs(g)).tolist() for g in range(len(self.groups))]
        return self._in_order(parts)

    def accuracy(self, world: World) -> float:
        """Share of prompts on which the model does the task."""
        trial = Trial((), world, self.metric.name)
        with torch.no_grad():
            right = [ok for g in range(len(self.groups)) for ok in is_right(self.read(trial, g), self.pairs(g))]
        return sum(right) / len(right)

    def read(self, trial: Trial, group: int) -> Float[Tensor, "batch read vocab"]:
        """Logits that the metric reads, for the prompts of one group, with the trial's gates held."""
        bound = [gate.bound({w: self._world(w, group) for w in ("clean", "corrupt")}) for gate in trial.gates]
        self.n_passes += 1
        with gates(self.model, *bound):
            return self._logits(trial, group)

    def is_null(self, trial: Trial) -> bool:
        """Whether the gates leave every recorded value of the trial's world as it is, bit for bit."""
        self.remember(trial.gates, trial.world)
        return all(self._is_null(gate, trial.world, g) for gate in trial.gates for g in range(len(self.groups)))

    def remember(self, held: Iterable[Gate], world: World | None = None) -> None:
        """Record what these gates need: their source worlds, and `world` at their sites."""
        for name in {gate.actuator.world for gate in held} | {world}:
            wanted = {str(site.name.whole) for gate in held for site in select_sites(self.model, gate.site)}
            if name is not None and wanted:
                self._extend(name, wanted)

    def pairs(self, group: int) -> list[Pair]:
        """The pairs of one group of equal length."""
        return [self.task.pairs[ix] for ix in self.groups[group]]

    def tokens(self, world: str, group: int) -> list[list[int]]:
        """Token ids of one group's prompts."""
        return [list(pair.world(world)) for pair in self.pairs(group)]

    def recording(self, world: str, group: int, sites: Iterable[str]) -> Recording:
        """A world's recording at whole sites, for one group."""
        self._extend(world, set(sites))
        return self._world(world, group)

    def _logits(self, trial: Trial, group: int) -> Tensor:
        arguments = self.model.batch(self.tokens(trial.world, group)).arguments()
        positions = torch.tensor(self.metric.positions(self.pairs(group)[0]), device=self.model.device)
        if _can_slice(self.model) and not any(gate.site.kind == "logits" for gate in trial.gates):
            output: Tensor = self.model.module(**arguments, logits_to_keep=positions, use_cache=False).logits
            return output
        everything: Tensor = self.model.module(**arguments).logits
        return everything[:, positions]

    def change(self, gate: Gate, world: World, group: int) -> Tensor:
        """f(h) - h of a gate at its one site, from recordings: what the gate would change in a world's run."""
        (site,) = select_sites(self.model, gate.site)
        h = self._world(world, group)[site.name.whole]
        new = self._gated(gate, site, h, group)
        return torch.zeros_like(h) if new is None else new - h

    def _is_null(self, gate: Gate, world: World, group: int) -> bool:
        for site in select_sites(self.model, gate.site):
            h = self._world(world, group)[site.name.whole]
            new = self._gated(gate, site, h, group)
            if new is None or not torch.equal(new, h):
                return False  # None: nothing selected; the run itself raises the right error
        return True

    def _gated(self, gate: Gate, site: Site, h: Tensor, group: int) -> Tensor | None:
        """A gate applied to a recorded tensor, as if it came by now."""
        bound = gate.bound({w: self._world(w, group) for w in ("clean", "corrupt")})
        n_rows, n_pos = len(self.groups[group]), len(self.pairs(group)[0].clean)
        row_pos = torch.arange(n_pos, device=h.device).expand(n_rows, n_pos)
        lengths = torch.full((n_rows,), n_pos, device=h.device)
        return apply_gate(bound, site, h, Moment(row_pos, lengths, 0))

    def _world(self, world: str, group: int) -> Recording:
        return self._worlds.setdefault((world, group), Recording())

    def _extend(self, world: str, wanted: set[str]) -> None:
        for group in range(len(self.groups)):
            held = self._world(world, group)
            missing = sorted(wanted - set(held.tensors))
            if missing:
                self.n_passes += 1
                new = record(self.model, self.tokens(world, group), missing)
                held.tensors.update(new.tensors)
                held.lengths = new.lengths

    def _in_order(self, parts: list[list[float]]) -> tuple[float, ...]:
        values = [0.0] * len(self.task)
        for group, part in zip(self.groups, parts, strict=True):
            for ix, value in zip(group, part, strict=True):
                values[ix] = value
        return tuple(values)


def _can_slice(model: Model) -> bool:
    """Whether the module's forward computes only the logits asked for (`logits_to_keep`)."""
    forward: Any = model.module.forward
    return "logits_to_keep" in inspect.signature(forward).parameters


