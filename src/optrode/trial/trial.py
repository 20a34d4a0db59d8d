"""A Trial: prompts, gates, and a metric, in one world."""

from dataclasses import dataclass
from typing import Literal

from optrode.errors import BadGate
from optrode.gate.gate import Gate

World = Literal["clean", "corrupt"]


@dataclass(frozen=True)
class Trial:
    """One measurement: a task's prompts of one world, with gates held.

    Attributes:
        gates: held in the order given. Gates that name a world get that world's recording.
        world: which prompts the model reads.
        metric: name of the metric.

    Raises:
        BadGate: a gate has a schedule over training steps, a condition or rows, or is computed from the pass under way.
    """

    gates: tuple[Gate, ...]
    world: World
    metric: str

    def __post_init__(self) -> None:
        for gate in self.gates:
            if gate.when is not None or gate.openness is not None or gate.rows is not None or gate.actuator.is_computed:
                found = "a trial shares passes with others: it has no training steps, and no pass of its own"
                raise BadGate(f"trial with {gate}", found, next_step="hold the gate with op.gates, and run the model")
