"""Edge pruning: masks over edges learned by gradient (Bhaskar et al., arXiv 2406.16778).

Each edge has a hard-concrete mask (Louizos et al., arXiv 1712.01312): with u uniform, s = sigmoid((log u - log(1 - u) +
log a) / beta), a_e = clip(s (r - l) + l, 0, 1), l = -.1, r = 1.1, beta = 2/3. The loss is the mean over prompts of
|m(whole) - m(masked)|, relative to |m(whole) - m(empty)|, plus lambda1 (d - d*) + lambda2 (d - d*)^2, with d the expected
share of edges kept, d* its target, lowered from 1 over the first steps, and multipliers that climb. In the end the edges
most likely to be kept stay.
"""

from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.eap import Batch, batches
from optrode.circuit.edge.hold import holding
from optrode.circuit.edge.runs import EdgeRuns, Mask
from optrode.errors import BadOption
from optrode.trial.run import Progress, no_progress
from optrode.trial.worlds import read_logits

LOW: Final = -0.1
HIGH: Final = 1.1
BETA: Final = 2 / 3
RATE: Final = 0.8
"""Learning rate of masks, and half of that of multipliers."""

WARM: Final = 0.8
"""Share of the steps over which the target share of edges comes down from 1."""


def prune(
    runs: EdgeRuns, size: int | None = None, *, n_steps: int = 300, rate: float = RATE, random_seed: int = 0,
    progress: Progress = no_progress,
) -> tuple[Mask, Float[np.ndarray, "prompt edge"]]:  # fmt: skip
    """The edges whose masks stay open, and each edge's probability to be kept (the same for all prompts).

    Args:
        size: number of edges to keep; a tenth by default.
        n_steps: gradient steps, each on one batch of the task's prompts.

    Raises:
        BadOption: a size or number of steps out of range.
    """
    graph = runs.wiring.graph
    size = size or max(1, graph.n_edges // 10)
    if not 1 <= size <= graph.n_edges or n_steps < 1:
        raise BadOption(f"pruning to {size} edges in {n_steps} steps", f"the graph has {graph.n_edges} edges")
    learner = _Learner(runs, size / graph.n_edges, rate, random_seed)
    parts = list(batches(runs))
    for step in range(n_steps):
        progress("pruning", step, n_steps)
        learner.step(parts[step % len(parts)], step / n_steps)
    open_to = learner.open_to().detach().double().cpu().numpy()
    kept = np.zeros(graph.n_edges, dtype=bool)
    kept[np.argsort(-open_to, kind="stable")[:size]] = True
    return kept, np.tile(open_to, (len(runs.bench.task), 1))


class _Learner:
    """Masks, multipliers, and their two optimisers: one goes down, the other up."""

    def __init__(self, runs: EdgeRuns, share: float, rate: float, random_seed: int) -> None:
        self.runs, self.share = runs, share
        model = runs.wiring.model
        self.generator = torch.Generator(device=model.device).manual_seed(random_seed)
        start = torch.full((runs.wiring.graph.n_edges,), 2.0, dtype=torch.float32, device=model.device)
        noise = torch.randn(start.shape, generator=self.generator, device=model.device)
        self.log_alpha = (start + 0.01 * noise).requires_grad_()
        self.multipliers = torch.zeros(2, device=model.device, requires_grad=True)
        self.down = torch.optim.Adam([self.log_alpha], lr=rate)
        self.up = torch.optim.Adam([self.multipliers], lr=rate / 2, maximize=True)
        self.scale = max(1e-12, abs(float(np.mean(runs.full)) - float(np.mean(runs.empty))))
        self.is_edge = torch.from_numpy(runs.wiring.graph.is_edge).to(model.device)
        self.full = torch.tensor(runs.full, dtype=model.dtype, device=model.device)

    def step(self, batch: Batch, at: float) -> None:
        """One gradient step; `at` is the share of the steps that are over."""
        wanted = 1 + (self.share - 1) * min(1.0, at / WARM)
        excess = self.open_to().mean() - wanted
        loss = self._lost(batch) + self.multipliers[0] * excess + self.multipliers[1] * excess**2
        for optimiser in (self.down, self.up):
            optimiser.zero_grad()
        loss.backward(inputs=[self.log_alpha, self.multipliers])
        for optimiser in (self.down, self.up):
            optimiser.step()

    def open_to(self) -> Float[Tensor, " edge"]:
        """Probability that a mask is not zero."""
        return torch.sigmoid(self.log_alpha - BETA * np.log(-LOW / HIGH))

    def _lost(self, batch: Batch) -> Tensor:
        uniform = torch.rand(self.log_alpha.shape, generator=self.generator, device=self.log_alpha.device)
        drawn = torch.sigmoid((torch.logit(uniform, eps=1e-6) + self.log_alpha) / BETA) * (HIGH - LOW) + LOW
        keep = torch.zeros(self.is_edge.shape, dtype=self.full.dtype, device=self.full.device)
        keep[self.is_edge] = drawn.clamp(0, 1).to(keep)
        worlds = self.runs.bench.worlds
        worlds.n_passes += 1
        with torch.enable_grad(), holding(self.runs.wiring, keep, batch.ablated):
            values = batch.metric(read_logits(self.runs.wiring.model, batch.inputs(), worlds.positions(batch.group)))
        rows = [worlds.groups[batch.group][row] for row in batch.rows]
        return (values - self.full[rows]).abs().mean() / self.scale
