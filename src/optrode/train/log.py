"""What a run has seen so far: losses, measures, checkpoints."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from optrode.gate.held import Held
from optrode.model.model import Model
from optrode.train.plan import Measure, Plan
from optrode.train.records import Kept, Series


@final
@dataclass
class Log:
    """The history of a run under way; `notes` and `of_notes` take it through JSON.

    Attributes:
        loss: of each step made, in nats.
        values: measure -> (steps, values).
        kept: checkpoints.
        weights: step -> weights, where the run has no folder.
        time_s: seconds of earlier parts of a run that was taken up again.
        reached: thresholds of the plan's `keep_when` that were passed, as they print.
    """

    loss: list[float] = field(default_factory=list)
    values: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    weights: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    time_s: float = 0.0
    is_stopped: bool = False
    reached: list[str] = field(default_factory=list)

    def add(self, step: int, found: Mapping[str, float]) -> None:
        """Note measures of a step."""
        for name, value in found.items():
            steps, values = self.values.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)

    def at(self, step: int) -> dict[str, float]:
        """What is known of the model before the update of that number: its measures, and the loss of the update before."""
        found = {name: values[-1] for name, (steps, values) in self.values.items() if steps[-1] == step}
        return found | ({"loss": self.loss[-1]} if self.loss else {})

    def notes(self) -> dict[str, Any]:
        """The history as JSON data; a measure that is not finite becomes null."""
        finite = {n: (s, [v if math.isfinite(v) else None for v in values]) for n, (s, values) in self.values.items()}
        kept = [[one.step, one.file, one.weights_hash] for one in self.kept]
        rest = {"time_s": self.time_s, "is_stopped": self.is_stopped, "reached": self.reached}
        return {"loss": self.loss, "values": finite, "kept": kept, **rest}

    @staticmethod
    def of_notes(notes: Mapping[str, Any]) -> "Log":
        """The inverse of `notes`."""
        values = {n: (list(s), [math.nan if v is None else v for v in vs]) for n, (s, vs) in notes["values"].items()}
        kept = [Kept(*one) for one in notes["kept"]]
        reached = list(notes.get("reached", ()))
        return Log(list(notes["loss"]), values, kept, {}, notes["time_s"], notes["is_stopped"], reached)

    def series(self) -> dict[str, Series]:
        """All measures; where one is not finite, that measurement is left out."""
        return {name: _series(steps, values) for name, (steps, values) in self.values.items()}

    def losses(self) -> Series:
        """The training loss of each step."""
        return Series(tuple(range(len(self.loss))), tuple(self.loss))


def _series(steps: list[int], values: list[float]) -> Series:
    pairs = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    return Series(tuple(step for step, _ in pairs), tuple(value for _, value in pairs))


@torch.no_grad()
def measure(plan: Plan, model: Model, held: Held) -> dict[str, float]:
    """All measures of a plan, of the model as it is: in eval mode, without gradients or traces in the random state."""
    found: dict[str, float] = {}
    model.module.eval()
    try:
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            for name, one in plan.measures.items():
                found |= _flat(name, one, model, held)
    finally:
        model.module.train()
    return found


def _flat(name: str, one: Measure, model: Model, held: Held) -> dict[str, float]:
    if one.is_free:
        with held.aside():
            value = one.function(model)
    else:
        value = one.function(model)
    if isinstance(value, Mapping):
        return {f"{name}.{part}": float(number) for part, number in value.items()}
    return {name: float(value)}
