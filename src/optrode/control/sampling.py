"""Drawing tokens, row by row: each with its own temperature, share and seed, the same in whatever batch it is."""

from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.errors import GateNotFinite


@runtime_checkable
class Drawn(Protocol):
    """How a row's tokens are drawn."""

    @property
    def temperature(self) -> float | int:
        """0 takes the likeliest."""
        ...

    @property
    def top_p(self) -> float | int:
        """Draw among the likeliest tokens that have this probability together."""
        ...

    @property
    def seed(self) -> int:
        """Of the row's own random numbers."""
        ...


@final
class Sound:
    """A logits processor that refuses to choose a token from what is not a number: a dose was too large for the model."""

    def __call__(
        self, input_ids: Int[Tensor, "rows pos"], scores: Float[Tensor, "rows token"]
    ) -> Float[Tensor, "rows token"]:
        bad = scores.isnan().any(-1)
        if bool(bad.any()):
            found = "its logits are not numbers (NaN): what its gates do is too large for the model's arithmetic"
            raise GateNotFinite(f"row {int(bad.nonzero()[0])}", found, next_step="lower the doses of its gates")
        return scores


@final
class Sampling:
    """A logits processor after which taking the largest is drawing: noise of the Gumbel kind is added to the scores.

    argmax(log p + Gumbel noise) is distributed as p (Gumbel 1954; Maddison et al. 2014). So the module's greedy generation
    draws for the rows that ask for it, and takes the likeliest token for the others.
    """

    def __init__(self, rows: Sequence[Drawn]) -> None:
        self.rows = tuple(rows)
        self.generators = [torch.Generator().manual_seed(row.seed) for row in rows]

    def __call__(
        self, input_ids: Int[Tensor, "rows pos"], scores: Float[Tensor, "rows token"]
    ) -> Float[Tensor, "rows token"]:
        found = scores.clone()
        for ix, row in enumerate(self.rows):
            if row.temperature:
                kept = most_likely(scores[ix].float() / row.temperature, row.top_p)
                noise = torch.rand(kept.shape, generator=self.generators[ix], dtype=torch.float64)
                noise = noise.clamp(1e-300, 1 - 1e-16).log().neg().log().neg()
                found[ix] = (kept.double() + noise.to(kept.device)).to(found.dtype)
        return found


def most_likely(scores: Float[Tensor, " token"], top_p: float | int) -> Float[Tensor, " token"]:
    """Scores with all but the likeliest tokens, which have this probability together, at minus infinity."""
    if top_p >= 1:
        return scores
    ordered, ids = scores.sort(descending=True, stable=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    found = torch.full_like(scores, -torch.inf)
    return found.scatter(0, ids[before < top_p], ordered[before < top_p])
