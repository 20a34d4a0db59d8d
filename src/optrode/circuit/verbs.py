"""Find and prove, at the level of nodes (heads and MLPs) or of edges between them."""

from typing import Any, Final, Literal, overload

from optrode.circuit.circuit import Circuit, Proof
from optrode.circuit.edge.find import METHODS as OF_EDGES
from optrode.circuit.edge.find import find_edges, refuse_options
from optrode.circuit.edge.judge import prove_edges
from optrode.circuit.edge.records import EdgeCircuit, EdgeProof
from optrode.circuit.find import find_nodes
from optrode.circuit.judge import prove_nodes
from optrode.circuit.score import METHODS as FIRST_ORDER
from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.trial.prompts import Task

LEVELS: Final = ("node", "edge")
OF_NODES: Final = ("exact", *FIRST_ORDER)


@overload
def find(model: Model, task: Task, *, level: Literal["node"], method: str = "", **options: Any) -> Circuit: ...
@overload
def find(model: Model, task: Task, *, level: Literal["edge"], method: str = "", **options: Any) -> EdgeCircuit: ...
@overload
def find(model: Model, task: Task, *, level: str = "", method: str = "", **options: Any) -> Any: ...


def find(model: Model, task: Task, *, level: str = "", method: str = "", **options: Any) -> Circuit | EdgeCircuit:
    """Find the circuit of a task: score, then take the strongest until it is faithful; or search.

    Args:
        level: "node" for a circuit of heads and MLPs, "edge" for one of edges between them. By default what the method
            scores: nodes, unless it is a method for edges only.
        method: of nodes "ig" (default), "attribution" or "exact"; of edges "eap-ig" (default), "eap", "clean-corrupted",
            "eap-ig-activations", "mask-ig", "atp-qk", "atp-drop", "exact", "ifr", "acdc" or "pruning".
        options: ablation, size, target, progress, bench, and more: see `find_nodes` and `find_edges`.

    Raises:
        BadOption: no such level or method, or an option out of range.
    """
    level = level or ("edge" if options.get("scores") is not None else level_of(method))
    if level not in LEVELS:
        raise BadOption(f"level {level!r}", "no such level", nearest=nearest(level, LEVELS) or LEVELS)
    if level == "edge":
        return find_edges(model, task, method=method or "eap-ig", **options)
    if method in OF_EDGES and method not in OF_NODES:
        found, step = "it scores edges, not nodes", f'ask for level="edge", or for one of {", ".join(OF_NODES)}'
        raise BadOption(f"method {method!r} at level 'node'", found, next_step=step)
    refuse_options("level 'node'", find_nodes, {name: value for name, value in options.items() if name != "bench"})
    return find_nodes(model, task, method=method or "ig", **options)


def level_of(method: str) -> str:
    """The level that a method works at; nodes where it works at both or is not known."""
    return "edge" if method in OF_EDGES and method not in OF_NODES else "node"


@overload
def prove(model: Model, task: Task, circuit: Circuit, **options: Any) -> Proof: ...
@overload
def prove(model: Model, task: Task, circuit: EdgeCircuit, **options: Any) -> EdgeProof: ...


def prove(model: Model, task: Task, circuit: Circuit | EdgeCircuit, **options: Any) -> Proof | EdgeProof:
    """Measure a circuit's faithfulness and completeness, with controls: see `prove_nodes` and `prove_edges`.

    Raises:
        BadOption: the circuit is of another model, or ablating everything changes nothing.
    """
    if isinstance(circuit, EdgeCircuit):
        return prove_edges(model, task, circuit, **options)
    return prove_nodes(model, task, circuit, **options)
