"""The records of one page, sorted by kind, and whether they belong together."""

from dataclasses import dataclass
from typing import TypeVar

from optrode.circuit.circuit import Circuit, HeadScores, Proof, Scores
from optrode.circuit.edge.records import EdgeCircuit, EdgeProof, EdgeScores, MethodTable
from optrode.claims import Figures, StudyRun
from optrode.control.records import Evaluation, GateQuality
from optrode.errors import BadOption
from optrode.provenance import Provenance
from optrode.train.records import Emergence, TrainingRun
from optrode.trial.grid import Grid
from optrode.trial.prompts import Task

Found = Task | Grid | Scores | Circuit | Proof | HeadScores | EdgeScores | EdgeCircuit | EdgeProof | MethodTable
Part = Found | StudyRun | Figures | TrainingRun | Emergence | Evaluation | GateQuality
T = TypeVar("T")
KINDS = (
    Task, Grid, Scores, Circuit, Proof, HeadScores, EdgeScores, EdgeCircuit, EdgeProof, MethodTable, StudyRun, Figures,
    TrainingRun, Emergence, Evaluation, GateQuality,
)  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """What a page is made from: one investigation, one study, runs to compare, or one evaluation of control.

    Of most kinds a page has one.
    """

    task: Task | None = None
    grids: tuple[Grid, ...] = ()
    scores: Scores | None = None
    circuit: Circuit | None = None
    proof: Proof | None = None
    heads: HeadScores | None = None
    edge_scores: EdgeScores | None = None
    edge_circuit: EdgeCircuit | None = None
    edge_proof: EdgeProof | None = None
    methods: MethodTable | None = None
    study: StudyRun | None = None
    figures: Figures | None = None
    runs: tuple[TrainingRun, ...] = ()
    emergences: tuple[Emergence, ...] = ()
    evaluation: Evaluation | None = None
    gate_quality: GateQuality | None = None

    @property
    def edge_effects(self) -> EdgeScores | None:
        """The edge scores given, or those that the edge circuit was chosen by."""
        return self.edge_scores or (self.edge_circuit.scores if self.edge_circuit else None)

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
        return (*named, *self._edge_sources, *self._training_sources)

    @property
    def _edge_sources(self) -> tuple[tuple[str, Provenance], ...]:
        named: list[tuple[str, Provenance]] = []
        if self.edge_effects:
            named.append((f"Edge scores ({self.edge_effects.method})", self.edge_effects.provenance))
        if self.edge_circuit:
            named.append(("Edge circuit", self.edge_circuit.provenance))
        if self.edge_proof:
            named.append(("Edge proof", self.edge_proof.provenance))
        if self.methods:
            named.append(("Comparison of methods", self.methods.provenance))
        return tuple(named)

    @property
    def _training_sources(self) -> tuple[tuple[str, Provenance], ...]:
        named: list[tuple[str, Provenance]] = [("Study", self.study.provenance)] if self.study else []
        named += [(f"Run: {run.name}", run.provenance) for run in self.runs]
        named += [("Evaluation", self.evaluation.provenance)] if self.evaluation else []
        named += [("Gate quality", self.gate_quality.provenance)] if self.gate_quality else []
        return (*named, *((f"Checkpoints of {seen.run}", seen.provenance) for seen in self.emergences))

    @property
    def is_training(self) -> bool:
        """Whether there are training runs, or what was seen of one."""
        return bool(self.runs or self.emergences)

    @property
    def is_control(self) -> bool:
        """Whether steering or a conditional gate was judged."""
        return bool(self.evaluation or self.gate_quality)

    @property
    def has_finding(self) -> bool:
        """Whether anything was found about a model, or a task is there: what a headline can be made of."""
        return bool(self.task or self.grids or self.effects or self.circuit or self.proof or self.heads)

    @property
    def model(self) -> str:
        """The model's name, or "" when no record was measured on one. Several are all named."""
        return ", ".join(dict.fromkeys(source.model for _, source in self.sources))

    @property
    def task_name(self) -> str:
        """The first task named by any part, what was found about edges first, and of that the proof."""
        edges = (self.edge_proof, self.edge_circuit, self.edge_scores, self.methods)
        owners = (*edges, self.proof, self.circuit, self.scores, *self.grids, self.heads)
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
        edge_scores=_only(EdgeScores, parts),
        edge_circuit=_only(EdgeCircuit, parts),
        edge_proof=_only(EdgeProof, parts),
        methods=_only(MethodTable, parts),
        study=_only(StudyRun, parts),
        figures=_only(Figures, parts),
        runs=tuple(part for part in parts if isinstance(part, TrainingRun)),
        emergences=tuple(part for part in parts if isinstance(part, Emergence)),
        evaluation=_only(Evaluation, parts),
        gate_quality=_only(GateQuality, parts),
    )
    _check_pair(sorted_parts.circuit, sorted_parts.proof)
    _check_edge_pair(sorted_parts.edge_circuit, sorted_parts.edge_proof)
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
    found = _of_another(circuit, proof, "nodes")
    if not found and strangers:
        found = f"the proof is of a circuit with {sorted(strangers)[0]}, which this one has not"
    _refuse_pair(found)


def _check_edge_pair(circuit: EdgeCircuit | None, proof: EdgeProof | None) -> None:
    if circuit is None or proof is None:
        return
    strangers = {row.edge for row in proof.minimality} - set(circuit.edges)
    found = _of_another(circuit, proof, "edges")
    if not found and circuit.n_all != proof.n_all:
        found = f"the circuit is of a model with {circuit.n_all} edges, the proof of one with {proof.n_all}"
    elif not found and strangers:
        found = f"the proof is of a circuit with {sorted(strangers)[0]}, which this one has not"
    _refuse_pair(found)


def _of_another(circuit: Circuit | EdgeCircuit, proof: Proof | EdgeProof, noun: str) -> str:
    if circuit.task != proof.task:
        return f"the circuit is of task {circuit.task!r}, the proof of {proof.task!r}"
    if circuit.size != proof.size:
        return f"the circuit has {circuit.size} {noun}, the proof is of {proof.size}"
    return ""


def _refuse_pair(found: str) -> None:
    if found:
        raise BadOption("report of a circuit with its proof", found, next_step="prove this circuit, or leave one out")
