"""First-order edge scores: EAP, EAP-IG, clean-corrupted gradients, and integrated gradients over masks.

All are  s(u, v) = sum over pos and feature of (change of u) * (mean over points of dm/dr_v),  with r_v what receiver v
reads off the residual stream. They differ in the points:

* "eap" (Syed et al., arXiv 2310.10348): the clean run.
* "eap-ig" (Hanna et al., arXiv 2403.17806, eq. 4: their z' + (k/m)(z - z') is our point at k/M): M points between what
  enters the first block in the ablated and in the clean run. k = 1..M as in the paper; their code takes k = 0..M-1 ("left").
* "clean-corrupted": both ends.
* "eap-ig-activations" (after Marks et al., arXiv 2403.19647): for each of the embedding, every layer's attention and
  every MLP, that output alone is set between ablated and clean (k = 1..M) and held there as a constant; the mean over
  all of these.
* "mask-ig": every edge is kept to the same degree a; here the change of u is that in the run at a. Its scores add up to
  m(all ablated) - m(clean), the sum rule; where they do not, the integral has not converged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from optrode.circuit.edge.contract import Shares, contract
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.senders import Sent
from optrode.circuit.edge.slopes import Point, Slopes, slopes_at
from optrode.errors import BadOption, nearest
from optrode.gate.kinds import patch
from optrode.trial.trial import World

RULES: Final = ("right", "left", "midpoint")
"""Where M points of a path stand: at k/M for k = 1..M, for k = 0..M-1, or in the middle of M equal steps."""

N_TOKENS: Final = 4096
"""Tokens of one forward and backward pass, about."""


@dataclass(frozen=True)
class Batch:
    """Some rows of one group: what one pass takes."""

    runs: EdgeRuns
    group: int
    rows: tuple[int, ...]

    def inputs(self, world: World = "clean") -> Tensor:
        """Prompts of a world."""
        return self.runs.bench.worlds.inputs(world, self.group)[list(self.rows)]

    @property
    def ablated(self) -> Sent:
        """What senders give where they are ablated, for these rows."""
        return self.runs.ablated(self.group).rows(self.rows)

    def slopes(self, point: Point, *, at_z: bool = False) -> Slopes:
        """One forward and backward pass."""
        worlds = self.runs.bench.worlds
        worlds.n_passes += 1
        ablated, positions = self.ablated if point.keep < 1 else None, worlds.positions(self.group)
        return slopes_at(self.runs.wiring, self.inputs(point.world), positions, self.metric, point, ablated, at_z=at_z)

    def metric(self, logits: Tensor) -> Tensor:
        """[row] metric of logits."""
        return self.runs.bench.measure_rows(logits, self.group, self.rows)

    def contract(self, ablated: Sent, own: Sent, slopes: Slopes, by_pos: bool) -> Shares:
        """Shares of every edge, for senders' own and ablated outputs."""
        return contract(self.runs.wiring, ablated.minus(own), slopes, by_pos=by_pos)


Shared = tuple[Shares, float]
"""What a point adds, and its weight."""


def batches(runs: EdgeRuns) -> Iterator[Batch]:
    """The task's prompts, a pass at a time."""
    against = runs.bench.metric.against
    for group, members in enumerate(runs.bench.worlds.groups):
        if against is not None:
            runs.bench.worlds.logits(against, group)  # before any tap is placed: it may take a plain run
        size = max(1, N_TOKENS // runs.bench.worlds.length(group))
        for start in range(0, len(members), size):
            yield Batch(runs, group, tuple(range(start, min(start + size, len(members)))))


def path(n_steps: int, rule: str) -> list[float]:
    """Points between the ablated input (0) and the clean one (1).

    Raises:
        BadOption: no such rule, or no point.
    """
    if rule not in RULES:
        raise BadOption(f"points={rule!r}", "no such rule", nearest=nearest(rule, RULES) or RULES)
    if n_steps < 1:
        raise BadOption(f"n_steps={n_steps}", "a path has at least one point", next_step="leave it out for 5")
    first = {"right": 1.0, "left": 0.0, "midpoint": 0.5}[rule]
    return [(k + first) / n_steps for k in range(n_steps)]


def along_inputs(batch: Batch, points: Sequence[float], by_pos: bool) -> Iterator[Shared]:
    """Gradients at points between the ablated and the clean input: EAP, EAP-IG, clean-corrupted.

    A run at either end also gives that world's senders, so that no pass is made for them alone.
    """
    is_resampled = batch.runs.ablation == "resample"
    held = {point: _at_end(batch, point) for point in points if point == 1.0 or point == 0.0 and is_resampled}
    own = held[1.0].sent if 1.0 in held else batch.runs.sent("clean", batch.group).rows(batch.rows)
    ablated = held[0.0].sent if 0.0 in held else batch.ablated
    for point in sorted(points, key=lambda point: point not in held):  # ends first: what they hold is then let go
        yield _shared(batch, held.pop(point, None), ablated, own, point, by_pos), 1 / len(points)


def _shared(batch: Batch, slopes: Slopes | None, ablated: Sent, own: Sent, point: float, by_pos: bool) -> Shares:
    slopes = slopes or batch.slopes(_between(batch, ablated.embed, point))
    return batch.contract(ablated, own, slopes, by_pos)


def _at_end(batch: Batch, point: float) -> Slopes:
    return batch.slopes(Point(world="clean" if point == 1.0 else "corrupt"))


def _between(batch: Batch, ablated: Tensor, point: float) -> Point:
    return Point((patch("blocks.0.resid_pre", _whole(ablated, batch), strength=1.0 - point),))


def along_activations(batch: Batch, n_steps: int, by_pos: bool) -> Iterator[Shared]:
    """Gradients with one output at a time set between ablated and clean, and held there."""
    own, ablated, graph = batch.runs.sent("clean", batch.group).rows(batch.rows), batch.ablated, batch.runs.wiring.graph
    sites = [("blocks.0.resid_pre", ablated.embed)]
    sites += [(f"blocks.{layer}.attn.z", ablated.z[layer]) for layer in range(graph.n_layers)]
    sites += [(f"blocks.{layer}.mlp_out", value) for layer, value in enumerate(ablated.mlp)]
    for site, value in sites:
        for step in range(1, n_steps + 1):
            gate = patch(site, _whole(value, batch), strength=1 - step / n_steps, detach=True)
            yield batch.contract(ablated, own, batch.slopes(Point((gate,))), by_pos), 1 / (len(sites) * n_steps)


def along_masks(batch: Batch, points: Sequence[float], by_pos: bool) -> Iterator[Shared]:
    """Gradients with every edge kept to the same degree."""
    for point in points:
        slopes = batch.slopes(Point(keep=point))
        yield batch.contract(batch.ablated, slopes.sent, slopes, by_pos), 1 / len(points)


def _whole(value: Tensor, batch: Batch) -> Tensor:
    """A value that is the same for all rows or positions, written out."""
    n_rows, n_pos = batch.inputs().shape[:2]
    return value.expand(n_rows, n_pos, *value.shape[2:])
