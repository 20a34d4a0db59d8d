"""The records of one page, sorted by kind, and whether they belong together."""

from dataclasses import dataclass
from typing import TypeVar

from optrode.circuit.circuit import Circuit, HeadScores, Proof, Scores
from optrode.errors import BadOption
from optrode.provenance import Provenance
from optrode.trial.grid import Grid
from optrode.trial.prompts import Task

Part = Task | Grid | Scores | Circuit | Proof | HeadScores
T = TypeVar("T")
KINDS = (Task, Grid, Scores, Circuit, Proof, HeadScores)


@dataclass(frozen=True)
class Parts:
    """What a page is made from. A page shows one investigation: many grids, one of everything else."""

    task: Task | None = None
    grids: tuple[Grid, ...] = ()
    scores: Scores | None = None
    circuit: Circuit | None = None
    proof: Proof | None = None
    heads: HeadScores | None = None

    @property
    def effects(self) -> Scores | None:
        """The scores given, or those that the circuit was chosen by."""
        return self.scores or (self.circuit.scores if self.circuit else None)

    @property
    def sources(self) -> tuple[tuple[str, Provenance], ...]:
        """Every record that was measured, by name, with its provenance."""
        named: list[tuple[str, Provenance]] = [(f"Grid: {grid.title}", grid.provenance) for grid in self.grids]
        if self.heads:
            named.append(("Attention scores", self.heads.provenance))
        if self.effects:
            named.append((f"Scores ({self.effects.method})", self.effects.provenance))
        if self.circuit:
            named.append(("Circuit", self.circuit.provenance))
        if self.proof:
            named.append(("Proof", self.proof.provenance))
        return tuple(named)

    @property
    def model(self) -> str:
        """The model's name, or "" when no record was measured on one. Several are all named."""
        return ", ".join(dict.fromkeys(source.model for _, source in self.sources))

    @property
    def task_name(self) -> str:
        """The first task named by any part, proof first."""
        owners = (self.proof, self.circuit, self.scores, *self.grids, self.heads)
        names = [owner.task for owner in owners if owner is not None]
        return names[0] if names else self.task.name if self.task else ""

    @property
    def views(self) -> tuple[Grid, ...]:
        """Layer x head grids that stand beside the attention scores of the same task; ablations before patches."""
        if self.heads is None:
            return ()
        same = [grid for grid in self.grids if is_heads(grid) and grid.task == self.heads.task]
        ablations = [grid for grid in same if grid.source is None]
        return tuple(ablations or same)


def is_heads(grid: Grid) -> bool:
    """Whether a grid has one cell per attention head."""
    return tuple(axis.name for axis in grid.axes) == ("layer", "head")


def sort_parts(parts: tuple[object, ...]) -> Parts:
    """Sort records by kind.

    Raises:
        BadOption: no record, something that is no record, two of a kind that a page has one of, or a proof that was
            not measured on the circuit given.
    """
    for part in parts:
        if not isinstance(part, KINDS):
            words = tuple(kind.__name__ for kind in KINDS)
            raise BadOption("report", f"{type(part).__name__} is not a record of an investigation", nearest=words)
    if not parts:
        raise BadOption("report", "no record given", next_step="pass what sweep, find and prove returned")
    sorted_parts = Parts(
        task=_only(Task, parts),
        grids=tuple(part for part in parts if isinstance(part, Grid)),
        scores=_only(Scores, parts),
        circuit=_only(Circuit, parts),
        proof=_only(Proof, parts),
        heads=_only(HeadScores, parts),
    )
    _check_pair(sorted_parts.circuit, sorted_parts.proof)
    return sorted_parts


def _only(kind: type[T], parts: tuple[object, ...]) -> T | None:
    found = [part for part in parts if isinstance(part, kind)]
    if len(found) > 1:
        asked, next_step = f"report with {len(found)} {kind.__name__} records", "make one page per investigation"
        raise BadOption(asked, f"a page shows one {kind.__name__}", next_step=next_step)
    return found[0] if found else None


def _check_pair(circuit: Circuit | None, proof: Proof | None) -> None:
    """A proof beside a circuit that it was not measured on would claim what nobody measured."""
    if circuit is None or proof is None:
        return
    strangers = {row.node for row in proof.minimality} - set(circuit.nodes)
    found = ""
    if circuit.task != proof.task:
        found = f"the circuit is of task {circuit.task!r}, the proof of {proof.task!r}"
    elif circuit.size != proof.size:
        found = f"the circuit has {circuit.size} nodes, the proof is of {proof.size}"
    elif strangers:
        found = f"the proof is of a circuit with {sorted(strangers)[0]}, which this one has not"
    if found:
        raise BadOption("report of a circuit with its proof", found, next_step="prove this circuit, or leave one out")
