"""Edge scores, edge circuits and their proofs: records without model or torch.

The effect of an edge is the change of the metric when the receiver, and nobody else, gets the sender's ablated output in the
clean run (negative: the edge helps).
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from optrode.circuit.circuit import Interval
from optrode.circuit.edge.graph import Graph
from optrode.provenance import Provenance


@dataclass(frozen=True, slots=True)
class EdgeCheck:
    """Approximate effects measured again, exactly: for the strongest edges and for random ones.

    Attributes:
        edges: names.
        is_top: [edge] true for the strongest, false for random ones.
        approximate, exact: [edge] effects.
        correlation: Pearson's r over these edges.
        agrees: whether they agree well enough to trust the ranking (see `check.py`).
        missed: random edges whose exact effect is large though their score is small, by name.
    """

    edges: tuple[str, ...]
    is_top: tuple[bool, ...]
    approximate: tuple[float, ...]
    exact: tuple[float, ...]
    correlation: float
    agrees: bool
    missed: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """The effect of every edge, for every prompt.

    Attributes:
        task, metric, unit: of the task they were measured on.
        method: e.g. "eap-ig".
        ablation: "resample", "zero", "mean" or "optimal".
        graph: what its edges are.
        per_prompt: [prompt, edge], in the metric's unit; positions summed.
        per_pos: [edge, pos] mean over prompts, where asked for; else None.
        notes: what the reader must know, such as that integrated gradients did not converge.
        settings: options of the method, as text.
    """

    task: str
    metric: str
    unit: str
    method: str
    ablation: str
    graph: Graph
    per_prompt: Float[np.ndarray, "prompt edge"]
    provenance: Provenance
    per_pos: Float[np.ndarray, "edge pos"] | None = None
    check: EdgeCheck | None = None
    notes: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    @cached_property
    def values(self) -> Float[np.ndarray, " edge"]:
        """Mean over prompts."""
        return np.asarray(self.per_prompt.mean(0))

    @property
    def per_query_head(self) -> bool:
        """Whether every query head has a k and a v input of its own, though K/V are grouped."""
        return self.settings.get("per_query_head") == "True"

    def ranked(self, *, is_absolute: bool = True) -> NDArray[np.int64]:
        """Edges, strongest first: by size, or (not absolute) those that help the task most first."""
        key = -np.abs(self.values) if is_absolute else self.values
        return np.argsort(key, kind="stable")

    def table(self, n: int = 20) -> list[tuple[str, float]]:
        """The strongest edges with their effects."""
        return [(self.graph.name(int(ix)), float(self.values[ix])) for ix in self.ranked()[:n]]


@dataclass(frozen=True, eq=False)
class EdgeCircuit:
    """The chosen edges.

    Attributes:
        is_in: [edge].
        selection: how they were chosen: "absolute", "signed", "greedy" or the method's own name.
        target: the faithfulness that the size was chosen to reach (0 when the size was given).
        tokens: token texts of one prompt, for labels.
    """

    task: str
    is_in: Bool[np.ndarray, " edge"]
    selection: str
    target: float
    scores: EdgeScores
    tokens: tuple[str, ...]
    provenance: Provenance

    @property
    def graph(self) -> Graph:
        """What its edges are."""
        return self.scores.graph

    @property
    def size(self) -> int:
        """Number of edges."""
        return int(self.is_in.sum())

    @property
    def n_all(self) -> int:
        """Number of edges of the whole model."""
        return len(self.is_in)

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Names of its edges, strongest first."""
        chosen = [ix for ix in self.scores.ranked() if self.is_in[ix]]
        return tuple(self.graph.name(int(ix)) for ix in chosen)

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Heads, MLPs and the embedding that its edges touch, in the order of the computation."""
        return self.graph.nodes_of(self.is_in)


@dataclass(frozen=True, slots=True)
class SharePoint:
    """Faithfulness of the circuit of a share of the edges."""

    share: float
    size: int
    faithfulness: float
    interval: Interval


@dataclass(frozen=True)
class EdgeCurve:
    """Faithfulness over circuit size for one way to select.

    Attributes:
        selection: "absolute" or "signed".
        points: ascending by share.
        cpr: integral of faithfulness over the share of edges (MIB, arXiv 2504.13151; higher is better).
        cmd: integral of |1 - faithfulness| (lower is better).
    """

    selection: str
    points: tuple[SharePoint, ...]
    cpr: float
    cmd: float


@dataclass(frozen=True, slots=True)
class EdgeLoss:
    """Faithfulness lost when one edge alone is taken out of the circuit."""

    edge: str
    lost: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Redundancy:
    """Edges into one receiver ablated together against one by one.

    Attributes:
        receiver: its name.
        joint: loss of the metric with all of them ablated.
        summed: sum of the losses with one of them ablated.
        ratio: joint / summed; well above 1 where one does the work of another that is missing (self-repair).
        is_redundant: `ratio` is at least 1.5 and `joint` matters.
    """

    receiver: str
    joint: float
    summed: float
    ratio: float
    is_redundant: bool


@dataclass(frozen=True)
class EdgeProof:
    """The measured faithfulness of an edge circuit, with its controls.

    Attributes:
        full, empty: mean metric of the whole model, and with every edge ablated.
        faithfulness, interval: of the circuit, (m(C) - m(empty)) / (m(full) - m(empty)), a ratio of means over prompts.
        curves: one per way to select.
        random: faithfulness of random circuits with as many edges into each kind of receiver.
        without, without_interval: faithfulness of what is left when the circuit is removed (near 0: nothing else does it).
        completeness: [subset] |m(M without K) - m(C without K)| / |full - empty| for random subsets K of the circuit
            (Wang et al., arXiv 2211.00593, section 4); near 0 is complete.
        minimality: one for each of the strongest edges.
        redundancy: receivers that matter most.
        jaccard: mean overlap of the circuits of resampled prompts, at the circuit's size (bootstrap of stored scores).
    """

    task: str
    metric: str
    unit: str
    ablation: str
    size: int
    n_all: int
    full: float
    empty: float
    faithfulness: float
    interval: Interval
    curves: tuple[EdgeCurve, ...]
    random: tuple[float, ...]
    without: float
    without_interval: Interval
    completeness: tuple[float, ...]
    minimality: tuple[EdgeLoss, ...]
    redundancy: tuple[Redundancy, ...]
    jaccard: float
    n_prompts: int
    n_bootstrap: int
    provenance: Provenance


@dataclass(frozen=True)
class MethodRow:
    """What one method reached on a task; all rows of a table are measured on the same prompts.

    Attributes:
        method: e.g. "eap-ig".
        cpr: of the curve that selects by signed score (higher is better).
        cmd: of the curve that selects by absolute score (lower is better).
        n_passes: forward and backward passes that its scores took.
        time_s: wall-clock seconds that its scores took.
        points: (share of edges, faithfulness) by absolute selection, ascending.
        points_signed: the same by signed selection; empty when not measured.
        auroc: of its absolute scores against the edges known to be true; None where the truth is not known.
        auroc_floored: the same with scores below the floor taken as ties.
        correlation: Pearson's r with exact effects; None when exact effects were not measured.
        notes: what the reader must know, such as that integrated gradients did not converge.
    """

    method: str
    cpr: float
    cmd: float
    n_passes: int
    time_s: float
    points: tuple[tuple[float, float], ...]
    points_signed: tuple[tuple[float, float], ...] = ()
    auroc: float | None = None
    auroc_floored: float | None = None
    correlation: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodTable:
    """Methods compared on one task.

    Attributes:
        ablation: "resample", "zero", "mean" or "optimal".
        rows: one per method.
        jaccard: [method][method] overlap of the circuits of `size` edges, |A and B| / |A or B|, in the order of `rows`.
        size: edges of the circuits compared.
        n_all: edges of the whole model.
        n_prompts: that faithfulness was measured on.
    """

    task: str
    metric: str
    ablation: str
    rows: tuple[MethodRow, ...]
    jaccard: tuple[tuple[float, ...], ...]
    size: int
    n_all: int
    n_prompts: int
    provenance: Provenance
