"""Optimal ablation: the constants that hurt least in place of what senders give (Li & Janson, arXiv 2409.09951).

a* = argmin over a of E[loss of the model with the ablated components set to a]: what is lost then is lost for want of the
components' information, not for an odd input. One constant per sender, the same for all prompts and (unless `by_pos`) at
all positions, is fitted by gradient for one circuit, from the mean on; the loss is the mean over prompts of
|m(whole) - m(circuit)|.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from optrode.circuit.edge.eap import Batch, batches
from optrode.circuit.edge.hold import holding
from optrode.circuit.edge.runs import EdgeRuns, Mask
from optrode.circuit.edge.senders import Sent
from optrode.errors import BadOption
from optrode.trial.run import Progress, Values, no_progress
from optrode.trial.worlds import read_logits

RATE: Final = 0.01


@dataclass(frozen=True, eq=False)
class Optimal:
    """Constants found for a circuit.

    Attributes:
        values: what senders give, rows and positions of length 1.
        losses: [step] loss, in the metric's unit.
        metric: [prompt] of the circuit with them.
    """

    values: Sent
    losses: tuple[float, ...]
    metric: Values


def optimal_ablation(
    runs: EdgeRuns, kept: Mask, *, n_steps: int = 100, rate: float = RATE, by_pos: bool = False,
    progress: Progress = no_progress,
) -> Optimal:  # fmt: skip
    """Fit constants for what is outside a circuit.

    Args:
        runs: of any ablation; its bench and wiring are used.
        kept: the circuit's edges.
        n_steps: gradient steps, each on one batch; the best constants met are kept, so that they are never worse than means.
        by_pos: a constant for each position, as mean ablation has; prompts must be of one length.
        rate: Adam's learning rate, relative to the size of each sender's output.

    Raises:
        BadOption: no step, or positions asked for over prompts of several lengths.
    """
    if n_steps < 1:
        raise BadOption(f"n_steps={n_steps}", "fitting takes at least one step", next_step="leave it out for 100")
    parts = list(batches(runs))
    if by_pos and runs.bench.task.length is None:
        found = f"the prompts of {runs.bench.task.name} differ in length"
        raise BadOption("optimal ablation by position", found, next_step="leave by_pos out")
    constants, scales = _means(runs, by_pos)
    keep = torch.from_numpy(runs.wiring.graph.matrix(kept.astype(np.float64))).to(constants.embed)
    learned = constants.map(lambda tensor: torch.zeros_like(tensor).requires_grad_())
    tensors = [learned.embed, *learned.z, *learned.mlp]
    adam = torch.optim.Adam(tensors, lr=rate)
    losses: list[float] = []
    best, best_loss = constants, float("inf")
    for step in range(n_steps + 1):
        progress("optimal ablation", step, n_steps)
        now = _moved(constants, learned, scales)
        loss = torch.stack([_lost(runs, batch, keep, now) for batch in parts]).sum() / len(runs.bench.task)
        losses.append(float(loss.detach()))
        if losses[-1] < best_loss:
            best, best_loss = now.map(lambda tensor: tensor.detach().clone()), losses[-1]
        if step < n_steps:
            adam.zero_grad()
            loss.backward(inputs=tensors)
            adam.step()
    fitted = EdgeRuns(runs.bench, runs.wiring, "optimal", fixed=best)
    return Optimal(best, tuple(losses), fitted.measure([kept])[0])


def _means(runs: EdgeRuns, by_pos: bool) -> tuple[Sent, Sent]:
    """Mean output of each sender over clean prompts (and positions), and its typical size."""
    if by_pos:
        sent = runs.sent("clean", 0)
        spread = sent.map(lambda tensor: tensor.flatten(0, 1).std(0, unbiased=False)[None, None] + 1e-12)
        return sent.map(lambda tensor: tensor.mean(0, keepdim=True)), spread
    groups = [runs.sent("clean", group) for group in range(len(runs.bench.worlds.groups))]
    flat = [sent.map(lambda tensor: tensor.flatten(0, 1)[None]) for sent in groups]
    joined = Sent(
        torch.cat([sent.embed for sent in flat], 1),
        [torch.cat(parts, 1) for parts in zip(*(sent.z for sent in flat), strict=True)],
        [torch.cat(parts, 1) for parts in zip(*(sent.mlp for sent in flat), strict=True)],
    )
    mean = joined.map(lambda tensor: tensor.mean(1, keepdim=True))
    return mean, joined.map(lambda tensor: tensor.std(1, keepdim=True, unbiased=False) + 1e-12)


def _moved(constants: Sent, learned: Sent, scales: Sent) -> Sent:
    def move(a: Tensor, b: Tensor, s: Tensor) -> Tensor:
        return a + b * s

    return Sent(
        move(constants.embed, learned.embed, scales.embed),
        [move(*parts) for parts in zip(constants.z, learned.z, scales.z, strict=True)],
        [move(*parts) for parts in zip(constants.mlp, learned.mlp, scales.mlp, strict=True)],
    )


def _lost(runs: EdgeRuns, batch: Batch, keep: Tensor, values: Sent) -> Tensor:
    """Sum over a batch's prompts of |m(whole) - m(circuit)|."""
    worlds = runs.bench.worlds
    worlds.n_passes += 1
    with torch.enable_grad(), holding(runs.wiring, keep, values):
        metric = batch.metric(read_logits(runs.wiring.model, batch.inputs(), worlds.positions(batch.group)))
    rows = [worlds.groups[batch.group][row] for row in batch.rows]
    full = torch.tensor([runs.full[row] for row in rows], dtype=metric.dtype, device=metric.device)
    return (metric - full).abs().sum()
