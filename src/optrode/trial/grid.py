"""The result of a sweep: one value per cell and prompt, with its two reference worlds. Records only."""

from dataclasses import dataclass
from math import prod

from optrode.provenance import Provenance
from optrode.trial.work import Work


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a grid: its name and the label of each of its steps."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """Metric of every cell of a sweep.

    Attributes:
        title: what was done, as the gate prints.
        task: the task's name.
        metric: the metric's name.
        unit: the metric's unit, e.g. "logits" or "nats".
        axes: the grid's axes, the first varying slowest.
        sites: the gated site of each cell, in row-major order.
        values: [cell][prompt] metric with the cell's gate held; cells in row-major order.
        base: [prompt] metric without a gate.
        source: [prompt] metric in the world that values were patched from; None for zero and mean ablation.
        is_null: [cell] whether the gate changed nothing (bitwise), so that the cell has the base value without a run.
        provenance: where the numbers came from.
        work: how much was computed, and how much was spared.
    """

    title: str
    task: str
    metric: str
    unit: str
    axes: tuple[Axis, ...]
    sites: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    base: tuple[float, ...]
    source: tuple[float, ...] | None
    is_null: tuple[bool, ...]
    provenance: Provenance
    work: Work = Work()

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(len(axis.labels) for axis in self.axes)

    def effects(self) -> tuple[float, ...]:
        """[cell] mean over prompts of (gated - base), in the metric's unit."""
        base = sum(self.base) / len(self.base)
        return tuple(sum(cell) / len(cell) - base for cell in self.values)

    def shares(self) -> tuple[float, ...]:
        """[cell] effect as a share of the distance between the two worlds: 1 restores the source's metric fully.

        A ratio of means over prompts (not a mean of ratios, which explodes on small gaps). Falls back to the effect
        over |base| when there is no source world.
        """
        base = sum(self.base) / len(self.base)
        scale = sum(self.source) / len(self.source) - base if self.source else abs(base)
        return tuple(effect / scale if scale else 0.0 for effect in self.effects())

    def rows(self, cells: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
        """Cells as rows: the first axis down, all others across."""
        width = prod(self.shape[1:])
        return tuple(cells[start : start + width] for start in range(0, len(cells), width))
