"""Optrode: record any activation, gate any activation; find a circuit, prove it, show it.

    import optrode as op

    model = op.load("smollm2")
    task = op.tasks.ioi(model, n=32, random_seed=0)
    circuit = op.find(model, task)
    proof = op.prove(model, task, circuit)
    op.report(task, circuit, proof).save("ioi.html")

    with op.gates(model, op.zero("blocks.18.attn.z[head=6]")):
        model.generate("When Mary and John went to the store,")

Names are resolved when they are first used, so that importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from optrode import control, study, tasks, train, truth
    from optrode.circuit.channels import Channels, channels, inhibition
    from optrode.circuit.circuit import Circuit, HeadScores, Proof, Scores
    from optrode.circuit.compose import Composition, composition
    from optrode.circuit.crossmodel import cross_patch
    from optrode.circuit.desiderata import desiderata_masks
    from optrode.circuit.edge.artefact import load_circuit, save_circuit
    from optrode.circuit.edge.auroc import auroc
    from optrode.circuit.edge.compare import compare
    from optrode.circuit.edge.cut import cut
    from optrode.circuit.edge.graph import Graph
    from optrode.circuit.edge.methods import compare_methods
    from optrode.circuit.edge.optimal import optimal_ablation
    from optrode.circuit.edge.paths import patch_paths
    from optrode.circuit.edge.positions import find_positions
    from optrode.circuit.edge.records import EdgeCircuit, EdgeProof, EdgeScores
    from optrode.circuit.edge.score import score_edges
    from optrode.circuit.edge.stability import bootstrap_jaccard
    from optrode.circuit.look import head_scores
    from optrode.circuit.score import score
    from optrode.circuit.verbs import find, prove
    from optrode.control.generate import Request, Written, generate, stream
    from optrode.errors import OptrodeError
    from optrode.flow import investigate
    from optrode.gate.check import check_model
    from optrode.gate.conditions import by_row, chance, controlled, cosine, oracle, probe
    from optrode.gate.gate import Actuator, Aside, Gate
    from optrode.gate.held import Held
    from optrode.gate.kinds import (
        add,
        affine,
        clamp,
        compute,
        first_pass,
        mean,
        other_model,
        patch,
        project_out,
        resample,
        scale,
        zero,
    )
    from optrode.gate.maps import low_rank, membrane, rescale, scale_heads
    from optrode.gate.openness import Openness, Schedule, when
    from optrode.gate.place import gates
    from optrode.gate.replay import replay
    from optrode.gate.rules import rules
    from optrode.gate.trace import Trace
    from optrode.loading import load
    from optrode.model.adapter import Family, Place, Table, View
    from optrode.model.model import Model
    from optrode.model.names import SiteName
    from optrode.reports.page import Page, report, show
    from optrode.site.recording import Recording, record, recording
    from optrode.trial.grid import Grid
    from optrode.trial.metric import Metric
    from optrode.trial.prompts import Pair, Task
    from optrode.trial.remote import on_ray
    from optrode.trial.run import Bench
    from optrode.trial.sweep import sweep
    from optrode.trial.trial import Trial

_HOMES: Final = {
    "circuit.circuit": ("Circuit", "HeadScores", "Proof", "Scores"),
    "circuit.channels": ("Channels", "channels", "inhibition"),
    "circuit.compose": ("Composition", "composition"),
    "circuit.crossmodel": ("cross_patch",),
    "circuit.desiderata": ("desiderata_masks",),
    "circuit.edge.artefact": ("load_circuit", "save_circuit"),
    "circuit.edge.auroc": ("auroc",),
    "circuit.edge.compare": ("compare",),
    "circuit.edge.cut": ("cut",),
    "circuit.edge.graph": ("Graph",),
    "circuit.edge.methods": ("compare_methods",),
    "circuit.edge.optimal": ("optimal_ablation",),
    "circuit.edge.paths": ("patch_paths",),
    "circuit.edge.positions": ("find_positions",),
    "circuit.edge.records": ("EdgeCircuit", "EdgeProof", "EdgeScores"),
    "circuit.edge.score": ("score_edges",),
    "circuit.edge.stability": ("bootstrap_jaccard",),
    "circuit.look": ("head_scores",),
    "circuit.score": ("score",),
    "circuit.verbs": ("find", "prove"),
    "control.generate": ("Request", "Written", "generate", "stream"),
    "errors": ("OptrodeError",),
    "flow": ("investigate",),
    "gate.check": ("check_model",),
    "gate.conditions": ("by_row", "chance", "controlled", "cosine", "oracle", "probe"),
    "gate.gate": ("Actuator", "Aside", "Gate"),
    "gate.held": ("Held",),
    "gate.kinds": (
        "add", "affine", "clamp", "compute", "first_pass", "mean", "other_model", "patch", "project_out", "resample",
        "scale", "zero",
    ),
    "gate.maps": ("low_rank", "membrane", "rescale", "scale_heads"),
    "gate.openness": ("Openness", "Schedule", "when"),
    "gate.place": ("gates",),
    "gate.replay": ("replay",),
    "gate.rules": ("rules",),
    "gate.trace": ("Trace",),
    "loading": ("load",),
    "model.adapter": ("Family", "Place", "Table", "View"),
    "model.model": ("Model",),
    "model.names": ("SiteName",),
    "reports.page": ("Page", "report", "show"),
    "site.recording": ("Recording", "record", "recording"),
    "trial.grid": ("Grid",),
    "trial.metric": ("Metric",),
    "trial.prompts": ("Pair", "Task"),
    "trial.remote": ("on_ray",),
    "trial.run": ("Bench",),
    "trial.sweep": ("sweep",),
    "trial.trial": ("Trial",),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Actuator", "Aside", "Bench", "Channels", "Circuit", "Composition", "EdgeCircuit", "EdgeProof", "EdgeScores",
    "Family", "Gate", "Graph", "Grid", "HeadScores", "Held", "Metric", "Model", "Openness", "OptrodeError", "Page",
    "Pair", "Place", "Proof", "Recording", "Request", "Schedule", "Scores", "SiteName", "Table", "Task", "Trace", "Trial",
    "View", "Written", "add", "affine", "auroc", "bootstrap_jaccard", "by_row", "chance", "channels", "check_model",
    "clamp", "compare", "compare_methods", "composition", "compute", "control", "controlled", "cosine", "cross_patch",
    "cut", "desiderata_masks", "find", "find_positions", "first_pass", "gates", "generate", "head_scores", "inhibition",
    "investigate", "load", "load_circuit", "low_rank", "mean", "membrane", "on_ray", "optimal_ablation", "oracle",
    "other_model", "patch", "patch_paths", "probe", "project_out", "prove", "record", "recording", "replay", "report",
    "resample", "rescale", "rules", "save_circuit", "scale", "scale_heads", "score", "score_edges", "show", "stream",
    "study", "sweep", "tasks", "train", "truth", "when", "zero",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("control", "study", "tasks", "train", "truth"):
        return import_module(f"optrode.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'optrode' has no attribute {name!r}")
    return getattr(import_module(f"optrode.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
