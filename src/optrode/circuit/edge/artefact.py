"""Records of edge circuits as two files: one JSON for people and programs, one safetensors for the arrays.

The JSON names the kind of record and its format, the nodes and edges of a circuit, where its numbers came from, and all of
the record but its arrays. What a run folder holds is the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from optrode.circuit.edge.compare import Comparison
from optrode.circuit.edge.records import EdgeCircuit, EdgeProof, EdgeScores, MethodTable
from optrode.circuit.edge.stability import Stability
from optrode.errors import BadFile, BadOption
from optrode.records import read_named, write_named

Artefact = EdgeScores | EdgeCircuit | EdgeProof | MethodTable | Stability | Comparison
KINDS: Final[dict[str, type]] = {kind.__name__: kind for kind in (EdgeScores, EdgeCircuit, EdgeProof, MethodTable)}
"""Kinds that a run folder holds, and a report shows."""

_EVERY: Final = KINDS | {kind.__name__: kind for kind in (Stability, Comparison)}


def save_circuit(record: object, path: str | Path) -> Path:
    """Write `<path>.json` and, if the record has arrays, `<path>.safetensors`; the suffix may be left out.

    Args:
        record: edge scores, an edge circuit, its proof or stability, a comparison of circuits, or a table of methods.

    Returns:
        Path of the JSON file.

    Raises:
        BadOption: this is no record of edges, or its arrays do not fit its graph.
        BadFile: the files cannot be written.
    """
    target = _json(path)
    if not isinstance(record, Artefact):
        raise BadOption(f"artefact {target}", f"a {type(record).__name__} is not one", nearest=tuple(_EVERY))
    try:
        return write_named(target, record, about(record))
    except ValueError as error:
        step = "see that its arrays fit its graph, and that its numbers are finite"
        raise BadOption(f"artefact {target}", str(error), next_step=step) from error
    except OSError as error:
        found = f"it cannot be written ({error.strerror})"
        raise BadFile(f"artefact {target}", found, next_step="give another path, or make room") from error


def load_circuit(path: str | Path) -> Artefact:
    """What `save_circuit` wrote, to the bit.

    Args:
        path: of the JSON file; the suffix may be left out.

    Raises:
        BadFile: a file is missing or torn, the two were not written together, or the nodes and edges that the JSON names are
            not those of the arrays.
    """
    record: Artefact = read_named(_json(path), _EVERY, about)
    return record


def about(record: Any) -> Mapping[str, Sequence[str]]:
    """What a record's file says of it for people: the nodes and edges of an edge circuit, strongest first.

    Raises:
        ValueError: its arrays do not fit its graph.
    """
    if isinstance(record, EdgeScores):
        _fit(record)
    if not isinstance(record, EdgeCircuit):
        return {}
    _fit(record.scores)
    if record.n_all != record.graph.n_edges:
        raise ValueError(f"is_in has {record.n_all} edges, and the graph {record.graph.n_edges}")
    return {"nodes": record.nodes, "edges": record.edges}


def _fit(scores: EdgeScores) -> None:
    n_edges = scores.graph.n_edges
    if scores.per_prompt.shape[1] != n_edges:
        raise ValueError(f"per_prompt has {scores.per_prompt.shape[1]} edges, and the graph {n_edges}")
    if scores.per_pos is not None and len(scores.per_pos) != n_edges:
        raise ValueError(f"per_pos has {len(scores.per_pos)} edges, and the graph {n_edges}")


def _json(path: str | Path) -> Path:
    path = Path(path)
    return path.with_name(path.name.removesuffix(".safetensors").removesuffix(".json") + ".json")
