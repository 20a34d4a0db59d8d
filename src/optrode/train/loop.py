"""A small training loop that holds gates, measures, keeps checkpoints, and goes on where it was killed.

It computes nothing that the same lines in a loop of the user's own would not: forward, backward, step. On a CPU a run that
was killed and taken up again ends with the same bits as one that was not.
"""

import copy
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optrode.errors import BadFile, BadOption, LossNotFinite
from optrode.gate.gate import Gate
from optrode.gate.held import Held
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.records import read_named, write_named
from optrode.site.recording import Recording
from optrode.store.lock import WriterLock
from optrode.train.log import Log, measure
from optrode.train.plan import Plan
from optrode.train.records import Kept, TrainingRun
from optrode.train.state import (
    State,
    capture,
    check_same,
    clear_halves,
    load_state,
    options_of,
    read_tensors,
    restore_into,
    save_state,
    write_tensors,
)
from optrode.trial.key import fingerprint
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
            for place in (folder, folder / CHECKPOINTS):
                clear_halves(place)
        torch.manual_seed(plan.random_seed)
        model = plan.make(plan.random_seed)
        loop = _Loop(plan, model, folder, save_every or max(1, plan.n_steps // 20), progress)
        loop.take_up()
        if not loop.is_done:
            held = stack.enter_context(gates(model, *plan.gates, optimizer=loop.optimizer))
            loop.run(held)
        model.module.eval()
        return Trained(model, loop.finish(), folder, loop.log.weights)


def batch_seed(random_seed: int, index: int) -> int:
    """The seed of a batch's generator: for one run all differ, and runs of other seeds start far apart.

    Torch's generator on the CPU reads 32 bits of a seed. The factor is 2^32 over the golden ratio (Knuth, TAOCP 3, 6.4).
    """
    return (random_seed * 0x9E3779B1 + index) % 2**32


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
        self.made = options_of(self.optimizer)
        self.sameness = _sameness(plan, self.optimizer)
        self.log, self.step = Log(), 0
        self.saved_at: int | None = None
        self.pending: State | None = None
        self.held_state: dict[str, Any] | None = None
        self.generator, self.n_made = torch.Generator(), 0
        self.started = time.perf_counter()

    @property
    def is_done(self) -> bool:
        return self.step >= self.plan.n_steps or self.log.is_stopped

    def take_up(self) -> None:
        """Go on from the folder's state, if it has one."""
        state = load_state(self.folder) if self.folder is not None else None
        if state is None:
            return
        asked = f"training {self.plan.name!r} in {self.folder}"
        check_same(asked, state.notes["plan"], self.sameness)
        if state.step > self.plan.n_steps:
            found = f"the folder holds a run of {state.step} steps, and the plan has n_steps={self.plan.n_steps}"
            raise BadOption(asked, found, next_step=f"give another folder, or n_steps={state.step} or more")
        restore_into(state, self.model.module, self.optimizer)
        self.step = self.saved_at = state.step
        self.log, self.held_state = Log.of_notes(state.notes["log"]), state.notes["held"]
        self.log.is_stopped = self._is_stopped()  # by the plan of now: its `stop` may be another one

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
            self.step, self.n_made = self.step + 1, self.n_made + 1
            self.log.is_stopped = self._is_stopped()
            self._save(held)
            self.progress(self.plan.name, self.step, self.plan.n_steps)
        self._look(held)
        self._save(held, is_last=True)

    def _update(self) -> float:
        """One step of the optimiser; the loss before it."""
        plan, total = self.plan, 0.0
        self.optimizer.zero_grad()
        for part in range(plan.n_parts):
            index = self.step * plan.n_parts + part
            batch = plan.batch(index, self.generator.manual_seed(batch_seed(plan.random_seed, index)))
            loss = plan.loss(self.model, batch) / plan.n_parts
            total += self._checked(loss)
            loss.backward()
        self._write_pending()
        if self.step == 0 and all(p.grad is None for p in self.parameters):
            raise self._nothing_learns("no trainable parameter gets a gradient")
        if plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, plan.clip_norm)
        self.optimizer.step()
        torch.autograd.graph.increment_version(self.parameters)  # fused optimisers write unnoticed: see Model.weights_hash
        return total

    def _checked(self, loss: Tensor) -> float:
        if not loss.requires_grad:
            raise self._nothing_learns("the loss does not depend on any trainable parameter")
        value = float(loss.detach())
        if not math.isfinite(value):
            found = f"the loss is {value} at step {self.step}"
            step = "lower the learning rate, or give a clip_norm"
            if self.saved_at is not None:
                found += f"; {self.folder} holds the state of step {self.saved_at}"
                step += ": with the same folder the run goes on from there"
            raise LossNotFinite(f"training {self.plan.name!r}", found, next_step=step)
        return value

    def _nothing_learns(self, found: str) -> BadOption:
        held = ", ".join(map(str, self.plan.gates)) or "none"
        step = "free a parameter, or take away the gate (or its detach) that cuts the path"
        return BadOption(f"training {self.plan.name!r}", f"{found}; gates held: {held}", next_step=step)

    def _look(self, held: Held) -> None:
        """Measure and keep a checkpoint, where the plan says so. A run that was taken up does neither twice."""
        plan, log = self.plan, self.log
        is_measured = any(steps[-1] == self.step for steps, _ in log.values.values())
        if self.step in plan.measure_at and plan.measures and not is_measured:
            found = measure(plan, self.model, held)
            log.add(self.step, found)
            held.note(found)
            log.is_stopped = log.is_stopped or self._is_stopped()
        known = log.at(self.step)
        reached = [str(stop) for stop in plan.keep_when if str(stop) not in log.reached and stop.is_reached(known)]
        log.reached += reached
        is_kept = any(one.step == self.step for one in log.kept)
        if (self.step in plan.keep_at or reached) and not is_kept:
            self._keep()

    def _is_stopped(self) -> bool:
        """Whether what is known of the model now passes the plan's `stop`."""
        return self.plan.stop is not None and self.plan.stop.is_reached(self.log.at(self.step))

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
        """Take down the state, to be written when it is known to have a finite loss: one that has not is of no use."""
        is_due = self.step % self.save_every == 0 and self.step < self.plan.n_steps
        if self.folder is None or not (is_last or is_due):
            return
        now = time.perf_counter()
        self.log.time_s, self.started = self.log.time_s + now - self.started, now
        notes = copy.deepcopy({"plan": self.sameness, "log": self.log.notes(), "held": held.state()})
        state = capture(self.model.module, self.optimizer, self.step, notes, self.made)
        self.pending = replace(state, tensors={name: tensor.detach().clone() for name, tensor in state.tensors.items()})
        if is_last:
            self._write_pending()

    def _write_pending(self) -> None:
        if self.pending is not None and self.folder is not None:
            save_state(self.folder, self.pending)
            self.saved_at, self.pending = self.pending.step, None

    def finish(self) -> TrainingRun:
        """The run's record, written to its folder; where there was nothing left to do, the one that is there."""
        time_s = self.log.time_s + time.perf_counter() - self.started
        seed, n_passes = self.plan.random_seed, self.step * self.plan.n_parts
        source = provenance(self.model.name, self.model.weights_hash, seed, time_s=time_s, n_passes=n_passes)
        run = TrainingRun(
            self.plan.name, tuple(map(str, self.plan.gates)), self.step, self.log.is_stopped, self.log.losses(),
            self.log.series(), tuple(self.log.kept), source,
        )  # fmt: skip
        if self.folder is None:
            return run
        there = _record(self.folder) if self.n_made == 0 else None
        if there is not None and replace(there, provenance=source) == run:
            return there
        write_named(self.folder / RUN, run)
        return run


def _record(folder: Path) -> TrainingRun | None:
    """The record in a folder, if it is there and whole."""
    try:
        run: TrainingRun = read_named(folder / RUN, {"TrainingRun": TrainingRun})
    except BadFile:
        return None
    return run


def _sameness(plan: Plan, optimizer: Optimizer) -> dict[str, Any]:
    """What must be the same for a run to be taken up; the number of steps may grow."""
    return {
        "name": plan.name, "random_seed": plan.random_seed, "gates": [str(gate) for gate in plan.gates],
        "values": fingerprint([_values(gate) for gate in plan.gates]), "n_parts": plan.n_parts,
        "optimizer": type(optimizer).__name__,
    }  # fmt: skip


def _values(gate: Gate) -> list[Any]:
    """What of a gate does not print: its tensors, and whether gradients flow through them."""
    held = vars(gate.actuator).values()
    tensors = [value.tensors if isinstance(value, Recording) else value for value in held]
    return [gate.detach, [value for value in tensors if isinstance(value, (Tensor, dict))]]
