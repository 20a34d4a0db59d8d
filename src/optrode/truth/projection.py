"""A metric for models whose outputs are no tokens: how far a run is on the way from corrupt to clean outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.errors import BadPairs
from optrode.model.model import Model
from optrode.trial.metric import Metric, targets
from optrode.trial.prompts import Pair, Task, groups_by_length
from optrode.trial.worlds import inputs_of, read_logits

NAME: Final = "projection"
SAME_OUTPUT: Final = "the output is the same in both worlds"
LEAST: Final = 1e-6
"""Outputs that differ by less than this share of their size are the same: the rest is rounding."""

Prompts = tuple[tuple[int, ...], tuple[int, ...]]
"""A pair's clean and corrupt token ids, by which its direction is known."""


@final
@dataclass(frozen=True, eq=False)
class Projection:
    """The function of the metric: sum of logits * direction, over the positions that are read and the columns.

    Attributes:
        directions: of each pair, (clean - corrupt) / |clean - corrupt|^2 in its logits, [read, column].
    """

    directions: Mapping[Prompts, Tensor]

    def __call__(self, logits: Float[Tensor, "batch read column"], pairs: Sequence[Pair]) -> Float[Tensor, " batch"]:
        """[batch] the metric.

        Raises:
            BadPairs: a pair that it was not made for.
        """
        along = torch.stack([self._of(pair) for pair in pairs]).to(logits)
        return (logits * along).flatten(1).sum(1)

    def _of(self, pair: Pair) -> Tensor:
        found = self.directions.get((pair.clean, pair.corrupt))
        if found is None:
            step = "make the metric from this task: projection(model, task)"
            raise BadPairs(f"metric {NAME} of the prompt {list(pair.clean)}", "it was made for other pairs", next_step=step)
        return found


def projection(model: Model, task: Task) -> Metric:
    """Projection on the clean-minus-corrupt direction of the outputs, so that clean minus corrupt is 1 for every pair.

    Raises:
        BadPairs: a pair has the same output in both worlds, which leaves no direction (`drawn` leaves it out).
    """
    found: dict[Prompts, Tensor] = {}
    for pair, (clean, corrupt) in outputs(model, task.pairs).items():
        if is_same(clean, corrupt):
            step = "leave it out"
            raise BadPairs(f"metric {NAME} on task {task.name}", f"{SAME_OUTPUT} for {list(pair[0])}", next_step=step)
        found[pair] = (clean - corrupt) / (clean - corrupt).square().sum()
    return Metric(NAME, "share of the effect", Projection(found), reads_targets=True)


@torch.no_grad()
def outputs(model: Model, pairs: Sequence[Pair]) -> dict[Prompts, tuple[Tensor, Tensor]]:
    """Each pair's plain logits at its target positions, clean and corrupt, [read, column] each."""
    found: dict[Prompts, tuple[Tensor, Tensor]] = {}
    for group in groups_by_length(pairs):
        some = [pairs[ix] for ix in group]
        read = tuple(pos for pos, _ in targets(some[0]))
        worlds = [read_logits(model, inputs_of(model, some, world), read) for world in ("clean", "corrupt")]
        found |= {(p.clean, p.corrupt): (clean, corrupt) for p, clean, corrupt in zip(some, *worlds, strict=True)}
    return found


def is_same(clean: Tensor, corrupt: Tensor) -> bool:
    """Whether two outputs are equal up to rounding."""
    return bool((clean - corrupt).abs().max() <= LEAST * torch.maximum(clean.abs().max(), corrupt.abs().max()))
