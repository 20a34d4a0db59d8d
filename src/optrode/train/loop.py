"""A small training loop that holds gates, measures, keeps checkpoints, and goes on where it was killed.

It computes nothing that the same lines in a loop of the user's own would not: forward, backward, step. On a CPU a run that
was killed and taken up again ends with the same bits as one that was not.
"""

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optrode.errors import BadOption, LossNotFinite
from optrode.gate.held import Held
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.records import write_named
from optrode.store.lock import WriterLock
from optrode.train.log import Log, measure
from optrode.train.plan import Plan
from optrode.train.records import Kept, TrainingRun
from optrode.train.state import capture, check_same, load_state, read_tensors, restore_into, save_state, write_tensors
from optrode.trial.run import Progress, no_progress

RUN: Final = "training.json"
CHECKPOINTS: Final = "checkpoints"


@final
@dataclass(frozen=True, eq=False)
class Trained:
    """What `fit` returns.

    Attributes:
        model: after the last step, in eval mode.
        run: what was seen meanwhile.
        folder: of the run; None where it has none.
        weights: step -> weights, of a run without a folder.
    """

    model: Model
    run: TrainingRun
    folder: Path | None
    weights: dict[int, dict[str, Tensor]]

    def weights_at(self, step: int) -> dict[str, Tensor]:
        """The weights of the checkpoint before the update of that number.

        Raises:
            BadOption: no checkpoint was kept there.
        """
        kept = {one.step: one for one in self.run.checkpoints}
        if step not in kept:
            near = sorted(kept, key=lambda other: abs(other - step))[:3]
            found = "no checkpoint was kept there" if kept else "the run kept no checkpoint"
            hint = "name the step in the plan's keep_at"
            raise BadOption(f"checkpoint of step {step}", found, nearest=[str(n) for n in near], next_step=hint)
        return self.weights[step] if self.folder is None else read_tensors(self.folder / kept[step].file)


def fit(
    plan: Plan, *, out: Path | str | None = None, save_every: int | None = None, progress: Progress = no_progress
) -> Trained:
    """Train a model as a plan says. The caller's random state is left alone.

    Args:
        out: folder of the run: its state, so that a killed run goes on; its checkpoints; and its record. One that holds a
            run of the same plan is taken up; one that is finished is only read.
        save_every: steps between saves of the state; by default twenty of them in a run.

    Raises:
        BadOption: nothing can learn, or the folder holds another plan's run.
        BadFile: the folder holds a run of another architecture, or is damaged.
        RunBusy: another process writes to the folder.
        LossNotFinite: the loss is NaN or infinite; the folder holds the state of an earlier step, with which to go on.
        GateNotFired: a gate never acted; the run is finished and kept all the same.
    """
    folder = Path(out) if out is not None else None
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            stack.callback(WriterLock(folder).release)
        torch.manual_seed(plan.random_seed)
        model = plan.make(plan.random_seed)
        loop = _Loop(plan, model, folder, save_every or max(1, plan.n_steps // 20), progress)
        loop.take_up()
        if not loop.is_done:
            held = stack.enter_context(gates(model, *plan.gates, optimizer=loop.optimizer))
            loop.run(held)
        model.module.eval()
        return Trained(model, loop.finish(), folder, loop.log.weights)


@final
class _Loop:
    """A run under way."""

    def __init__(self, plan: Plan, model: Model, folder: Path | None, save_every: int, progress: Progress) -> None:
        self.plan, self.model, self.folder, self.save_every, self.progress = plan, model, folder, save_every, progress
        self.parameters = [p for p in model.module.parameters() if p.requires_grad]
        if not self.parameters:
            found = "all parameters of the model are frozen"
            raise BadOption(f"training {plan.name!r}", found, next_step="set requires_grad on those that are to learn")
        self.optimizer: Optimizer = plan.optimizer(self.parameters)
        self.log, self.step, self.saved_at = Log(), 0, 0
        self.held_state: dict[str, Any] | None = None
        self.generator = torch.Generator()
        self.started = time.perf_counter()

    @property
    def is_done(self) -> bool:
        return self.step >= self.plan.n_steps or self.log.is_stopped

    def take_up(self) -> None:
        """Go on from the folder's state, if it has one."""
        state = load_state(self.folder) if self.folder is not None else None
        if state is None:
            return
        check_same(f"training {self.plan.name!r} in {self.folder}", state.notes["plan"], self._sameness())
        restore_into(state, self.model.module, self.optimizer)
        self.step = self.saved_at = state.step
        self.log, self.held_state = Log.of_notes(state.notes["log"]), state.notes["held"]

    def run(self, held: Held) -> None:
        """Train to the end, or until the plan's `stop`."""
        if self.held_state is not None:
            held.resume(self.held_state)
        self.model.module.train()
        while not self.is_done:
            self._look(held)
            if self.log.is_stopped:
                break
            loss = self._update()
            self.log.loss.append(loss)
            held.note({"loss": loss})
            self.step += 1
            self.log.is_stopped = self.plan.stop is not None and self.plan.stop.is_reached({"loss": loss})
            self._save(held)
            self.progress(self.plan.name, self.step, self.plan.n_steps)
        if self.step == self.plan.n_steps:
            self._look(held)
        self._save(held, is_last=True)

    def _update(self) -> float:
        """One step of the optimiser; the loss before it."""
        plan, total = self.plan, 0.0
        self.optimizer.zero_grad()
        for part in range(plan.n_parts):
            index = self.step * plan.n_parts + part
            batch = plan.batch(index, self.generator.manual_seed((plan.random_seed << 32) + index))
            loss = plan.loss(self.model, batch) / plan.n_parts
            total += self._checked(loss)
            loss.backward()
        if self.step == 0 and all(p.grad is None for p in self.parameters):
            raise self._nothing_learns("no trainable parameter gets a gradient")
        if plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, plan.clip_norm)
        self.optimizer.step()
        return total

    def _checked(self, loss: Tensor) -> float:
        if not loss.requires_grad:
            raise self._nothing_learns("the loss does not depend on any trainable parameter")
        value = float(loss.detach())
        if not math.isfinite(value):
            at = f"; {self.folder} holds the state of step {self.saved_at}" if self.folder is not None else ""
            step = "give the same folder and a lower learning rate or a clip_norm, and the run goes on from there"
            found = f"the loss is {value} at step {self.step}{at}"
            raise LossNotFinite(f"training {self.plan.name!r}", found, next_step=step)
        return value

    def _nothing_learns(self, found: str) -> BadOption:
        held = ", ".join(map(str, self.plan.gates)) or "none"
        step = "free a parameter, or take away the gate (or its detach) that cuts the path"
        return BadOption(f"training {self.plan.name!r}", f"{found}; gates held: {held}", next_step=step)

    def _look(self, held: Held) -> None:
        """Measure and keep a checkpoint, where the plan says so. A run that was taken up does neither twice."""
        if self.log.looked_at == self.step:
            return
        self.log.looked_at = self.step
        plan, found = self.plan, {}
        if self.step in plan.measure_at and plan.measures:
            found = measure(plan, self.model, held)
            self.log.add(self.step, found)
            held.note(found)
            self.log.is_stopped = plan.stop is not None and plan.stop.is_reached(found)
        reached = [stop for stop in plan.keep_when if stop.is_reached(found) and not self._was_reached(stop)]
        if self.step in plan.keep_at or reached:
            self._keep()

    def _was_reached(self, stop: Any) -> bool:
        values = self.log.values.get(stop.measure, ([], []))[1][:-1]
        return any(stop.is_reached({stop.measure: value}) for value in values)

    def _keep(self) -> None:
        weights = self.model.module.state_dict()
        file = ""
        if self.folder is None:
            self.log.weights[self.step] = {name: tensor.detach().clone() for name, tensor in weights.items()}
        else:
            (self.folder / CHECKPOINTS).mkdir(exist_ok=True)
            file = f"{CHECKPOINTS}/step-{self.step:08d}.safetensors"
            write_tensors(self.folder / file, weights)
        self.log.kept.append(Kept(self.step, file, self.model.weights_hash))

    def _save(self, held: Held, *, is_last: bool = False) -> None:
        is_due = self.step % self.save_every == 0 and self.step < self.plan.n_steps
        if self.folder is None or not (is_last or is_due):
            return
        now = time.perf_counter()
        self.log.time_s, self.started = self.log.time_s + now - self.started, now
        notes = {"plan": self._sameness(), "log": self.log.notes(), "held": held.state()}
        save_state(self.folder, capture(self.model.module, self.optimizer, self.step, notes))
        self.saved_at = self.step

    def _sameness(self) -> dict[str, Any]:
        """What must be the same for a run to be taken up; the number of steps may grow."""
        plan = self.plan
        return {
            "name": plan.name, "random_seed": plan.random_seed, "gates": [str(gate) for gate in plan.gates],
            "n_parts": plan.n_parts, "optimizer": type(self.optimizer).__name__,
        }  # fmt: skip

    def finish(self) -> TrainingRun:
        """The run's record, written to its folder."""
        time_s = self.log.time_s + time.perf_counter() - self.started
        seed, n_passes = self.plan.random_seed, self.step * self.plan.n_parts
        source = provenance(self.model.name, self.model.weights_hash, seed, time_s=time_s, n_passes=n_passes)
        run = TrainingRun(
            self.plan.name, tuple(map(str, self.plan.gates)), self.step, self.log.is_stopped, self.log.losses(),
            self.log.series(), tuple(self.log.kept), source,
        )  # fmt: skip
        if self.folder is not None:
            write_named(self.folder / RUN, run)
        return run
