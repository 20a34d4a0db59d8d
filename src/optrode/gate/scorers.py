"""What is computed of what a condition reads: probes, cosines, chances of tokens, disagreement of models, networks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

Features = Float[Tensor, "rows columns feature"]


class Scorer(ABC):
    """What is computed of what was read."""

    @abstractmethod
    def __str__(self) -> str:
        """The scorer as it prints."""

    @abstractmethod
    def scores(self, *features: Features) -> Float[Tensor, "rows columns score"]:
        """Scores of each row and column, from the features of each reading."""

    @property
    def width(self) -> int | None:
        """Number of features of all readings together that it is made for; None for any."""
        return None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors that it computes with."""
        return ()


@final
@dataclass(frozen=True, eq=False)
class Linear(Scorer):
    """w.h + b: a probe, or an encoder row of a sparse autoencoder.

    Attributes:
        weight: [score, feature]
        bias: [score]
    """

    weight: Float[Tensor, "score feature"]
    bias: Float[Tensor, " score"]

    def __str__(self) -> str:
        return "probe"

    def scores(self, *features: Features) -> Float[Tensor, "rows columns score"]:
        joined = torch.cat(features, dim=-1)
        found: Tensor = nn.functional.linear(joined, self.weight.to(joined.dtype), self.bias.to(joined.dtype))
        return found

    @property
    def width(self) -> int:
        return int(self.weight.shape[-1])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.weight, self.bias


@final
@dataclass(frozen=True, eq=False)
class Cosine(Scorer):
    """cos(h, c), or with `is_projected` cos(h, tanh(P h)), P = c cᵀ / c.c: conditional activation steering.

    Source: Lee et al. 2024, arXiv 2409.05907, equation 2; its hidden state h is what is read here.
    """

    direction: Float[Tensor, " feature"]
    is_projected: bool = False

    def __str__(self) -> str:
        return "projected cosine" if self.is_projected else "cosine"

    def scores(self, *features: Features) -> Float[Tensor, "rows columns score"]:
        h = torch.cat(features, dim=-1)
        c = self.direction.to(h.dtype)
        towards = torch.tanh((h @ c / (c @ c))[..., None] * c) if self.is_projected else c.expand_as(h)
        found: Tensor = nn.functional.cosine_similarity(h, towards, dim=-1)[..., None]
        return found

    @property
    def width(self) -> int:
        return len(self.direction)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.direction,)


@final
@dataclass(frozen=True)
class Chance(Scorer):
    """The probability of any of some tokens, read at the logits."""

    token_ids: tuple[int, ...]

    def __str__(self) -> str:
        return f"probability of token {' or '.join(map(str, self.token_ids))}"

    def scores(self, *features: Features) -> Float[Tensor, "rows columns score"]:
        (logits,) = features
        return logits.softmax(-1)[..., list(self.token_ids)].sum(-1, keepdim=True)


@final
@dataclass(frozen=True)
class Disagreement(Scorer):
    """1 where two readings have their largest value at different features: two models that would say different tokens."""

    def __str__(self) -> str:
        return "disagreement"

    def scores(self, *features: Features) -> Float[Tensor, "rows columns score"]:
        one, two = features
        return (one.argmax(-1) != two.argmax(-1)).to(one.dtype)[..., None]


@final
@dataclass(frozen=True, eq=False)
class Network(Scorer):
    """A module on the joined features of all readings, such as a learned controller; one score for each of its outputs."""

    module: nn.Module

    def __str__(self) -> str:
        return f"network {type(self.module).__name__}"

    def scores(self, *features: Features) -> Float[Tensor, "rows columns score"]:
        found: Tensor = self.module(torch.cat(features, dim=-1))
        return found

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(self.module.parameters())
