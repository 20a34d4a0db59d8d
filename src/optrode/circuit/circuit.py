"""Scores, Circuit and Proof: the records of the second half of an investigation. No model, no torch.

A node is one attention head's output `blocks.L.attn.z[head=H]` or one MLP's `blocks.L.mlp_out`, at all positions. The
effect of a node is the change of the metric when the node is ablated in the clean run (negative: the node helps).
"""

from dataclasses import dataclass
from typing import Final

from optrode.provenance import Provenance

TARGET: Final = 0.85
"""The faithfulness that a circuit's size is chosen to reach: a little above .8, as other prompts will show less."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap percentile interval over prompts."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class NodeScore:
    """The effect of ablating one node.

    Attributes:
        node: site name, e.g. "blocks.18.attn.z[head=6]".
        effect: mean over prompts, in the metric's unit; equals the mean of `per_prompt`.
        interval: 95 % bootstrap interval of the mean over prompts.
        per_prompt: [prompt].
        per_pos: [pos] what each position adds to the effect, in the metric's unit (first-order methods; else empty).
    """

    node: str
    effect: float
    interval: Interval
    per_prompt: tuple[float, ...]
    per_pos: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SpotCheck:
    """Approximate effects measured again, exactly: for the strongest nodes and for random ones.

    Attributes:
        nodes: site names.
        is_top: [node] true for the strongest, false for random ones.
        approximate, exact: [node] effects.
        correlation: Pearson's r over these nodes.
    """

    nodes: tuple[str, ...]
    is_top: tuple[bool, ...]
    approximate: tuple[float, ...]
    exact: tuple[float, ...]
    correlation: float


@dataclass(frozen=True)
class Scores:
    """The effect of every node.

    Attributes:
        task, metric, unit: of the task they were measured on.
        method: "exact" or "attribution".
        ablation: "resample", "zero" or "mean".
        nodes: one per node, in the order of the computation.
        spot_check: for approximate methods.
    """

    task: str
    metric: str
    unit: str
    method: str
    ablation: str
    nodes: tuple[NodeScore, ...]
    spot_check: SpotCheck | None
    provenance: Provenance

    def ranked(self) -> tuple[NodeScore, ...]:
        """Nodes by absolute effect, strongest first."""
        return tuple(sorted(self.nodes, key=lambda node: (-abs(node.effect), node.node)))


@dataclass(frozen=True, slots=True)
class HeadView:
    """What one head of the circuit looks at.

    Attributes:
        node: site name.
        role: e.g. "name mover"; "" when no named route stands out.
        route: the route the role rests on, "end -> io".
        attention: mean attention along that route.
        reads, writes: positions of the strongest named route: it reads at `reads` and writes at `writes`.
        pattern: [pos][src] attention averaged over the prompts (those of the commonest length).
        routes: mean attention along every named route of the task.
    """

    node: str
    role: str
    route: str
    attention: float
    reads: int
    writes: int
    pattern: tuple[tuple[float, ...], ...]
    routes: dict[str, float]


@dataclass(frozen=True)
class Circuit:
    """The chosen nodes.

    Attributes:
        nodes: site names, strongest first.
        size: number of nodes.
        n_all: number of nodes of the whole model.
        target: the faithfulness that the size was chosen to reach (0 when the size was given).
        scores: what they were chosen by.
        heads: what each attention head of the circuit looks at.
        tokens: token texts of one prompt, for labels.
    """

    task: str
    nodes: tuple[str, ...]
    n_all: int
    target: float
    scores: Scores
    heads: tuple[HeadView, ...]
    tokens: tuple[str, ...]
    provenance: Provenance

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.nodes)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Faithfulness of the `size` strongest nodes: share of the metric's distance that they keep."""

    size: int
    faithfulness: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Minimality:
    """What one node of the circuit is worth: faithfulness lost when it alone is taken out of the circuit."""

    node: str
    lost: float
    interval: Interval


@dataclass(frozen=True)
class Proof:
    """The measured faithfulness of a circuit, with its controls.

    Faithfulness f(C) = (m(C) - m(0)) / (m(all) - m(0)), with m(C) the mean metric when every node outside C is ablated
    and m(0) with every node ablated: a ratio of means over prompts (MIB, arXiv 2504.13151).

    Attributes:
        full, empty: mean metric of the whole model, and with every node ablated.
        faithfulness: of the circuit, with its interval.
        curve: faithfulness over circuit size, nodes added in the order of their scores.
        random: faithfulness of each random circuit with the same number of heads and of MLPs.
        completeness: faithfulness of what is left when the circuit is removed (near 0: nothing else does the task).
        minimality: one for each of the strongest nodes.
        n_bootstrap: resamples behind each interval.
    """

    task: str
    metric: str
    unit: str
    ablation: str
    size: int
    full: float
    empty: float
    faithfulness: float
    interval: Interval
    curve: tuple[CurvePoint, ...]
    random: tuple[float, ...]
    completeness: float
    completeness_interval: Interval
    minimality: tuple[Minimality, ...]
    n_prompts: int
    n_bootstrap: int
    provenance: Provenance


@dataclass(frozen=True)
class HeadScores:
    """Attention-pattern scores of every head: where heads look, to be held against what ablating them does.

    Attributes:
        kinds: e.g. ("induction", "previous token", "duplicate token").
        values: [kind][layer][head] mean attention on the positions that define the kind.
    """

    task: str
    kinds: tuple[str, ...]
    values: tuple[tuple[tuple[float, ...], ...], ...]
    provenance: Provenance
