"""A Trial: prompts, gates, and a metric, in one world."""

from dataclasses import dataclass
from typing import Literal

from optrode.gate.gate import Gate

World = Literal["clean", "corrupt"]


@dataclass(frozen=True)
class Trial:
    """One measurement: a task's prompts of one world, with gates held.

    Attributes:
        gates: held in the order given. Gates that name a world get that world's recording.
        world: which prompts the model reads.
        metric: name of the metric.
    """

    gates: tuple[Gate, ...]
    world: World
    metric: str
