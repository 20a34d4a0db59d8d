"""Sums of two digits: which of the hundred are learnt, which are asked for afterwards, and networks that learn them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

import optrode as op
from optrode.model.model import Model
from optrode.nn import recurrent, transformer
from optrode.study.kit import workspace

N_DIGITS: Final = 10
N_SUMS: Final = 2 * N_DIGITS - 1
LONGEST: Final = 12
"""Greatest sum that is learnt."""

Answer = Callable[[Model, Tensor], Tensor]
"""(model, pairs [pair, 2]) -> logits over sums [pair, sum]."""


@final
@dataclass(frozen=True, eq=False)
class Split:
    """Pairs of addends, each [pair, 2].

    Attributes:
        learnt: to train on. Sums with 0 are always among them, so that each digit is seen in either place.
        between: unseen pairs whose sum is no greater than those learnt: interpolation.
        beyond: pairs whose sum is greater than any that is learnt: extrapolation.
    """

    learnt: Tensor
    between: Tensor
    beyond: Tensor

    @property
    def unseen(self) -> Int[Tensor, "pair 2"]:
        """All pairs that are not learnt."""
        return torch.cat([self.between, self.beyond])


def split(generator: torch.Generator, n_between: int = 19) -> Split:
    """A random choice of unseen pairs."""
    pairs = torch.cartesian_prod(torch.arange(N_DIGITS), torch.arange(N_DIGITS))
    is_beyond, has_zero = pairs.sum(1) > LONGEST, (pairs == 0).any(1)
    free = pairs[~is_beyond & ~has_zero]
    order = torch.randperm(len(free), generator=generator)
    learnt = torch.cat([pairs[has_zero], free[order[n_between:]]])
    return Split(learnt, free[order[:n_between]], pairs[is_beyond])


def vectors(digits: Int[Tensor, " pair"]) -> Float[Tensor, "pair digit"]:
    """One-hot."""
    return one_hot(digits, N_DIGITS).float()


def ask_workspace(model: Model, pairs: Int[Tensor, "pair 2"]) -> Float[Tensor, "pair sum"]:
    """Of a workspace on one-hot addends."""
    found: Tensor = model(vectors(pairs[:, 0]), vectors(pairs[:, 1])).logits
    return found


def ask_lstm(model: Model, pairs: Int[Tensor, "pair 2"]) -> Float[Tensor, "pair sum"]:
    """Of an LSTM that reads both addends at as many steps as the workspace's controller does."""
    both = torch.cat([vectors(pairs[:, 0]), vectors(pairs[:, 1])], 1)
    found: Tensor = model(both[:, None].expand(-1, N_DIGITS + 1, -1).contiguous()).logits[:, -1]
    return found


def ask_transformer(model: Model, pairs: Int[Tensor, "pair 2"]) -> Float[Tensor, "pair sum"]:
    """Of a transformer that reads the two addends as tokens."""
    found: Tensor = model(pairs).logits[:, -1]
    return found


def make_workspace(seed: int, d_hidden: int = 32) -> Model:
    """A workspace with modules made by hand."""
    return workspace.as_model(workspace.build(workspace.WorkspaceSpec(N_DIGITS, d_hidden), seed))


def make_lstm(seed: int, d_hidden: int = 48) -> Model:
    """An LSTM whose readout is over sums."""
    return recurrent.as_model(recurrent.build(recurrent.RecurrentSpec("lstm", 2 * N_DIGITS, d_hidden, N_SUMS), seed))


def make_transformer(seed: int, d_model: int = 32) -> Model:
    """A transformer of two layers."""
    spec = transformer.Spec(2, 4, d_model, N_DIGITS, 2, d_mlp=2 * d_model, d_out=N_SUMS)
    return transformer.as_model(transformer.build(spec, seed))


def n_parameters(model: Model) -> int:
    """Of the module."""
    return sum(parameter.numel() for parameter in model.module.parameters())


def accuracy(logits: Float[Tensor, "pair sum"], sums: Int[Tensor, " pair"]) -> float:
    """Share of pairs whose greatest logit is that sum's."""
    return float((logits.argmax(-1) == sums).double().mean())


def plan(
    name: str, make: Callable[[int], Model], ask: Answer, data: Split, n_steps: int, lr: float, random_seed: int
) -> op.train.Plan:  # fmt: skip
    """Learn the sums of a split, all at every step, from the final digit alone; three accuracies are watched."""

    def loss(model: Model, pairs: Tensor) -> Tensor:
        return cross_entropy(ask(model, pairs), pairs.sum(1))

    def watch(model: Model) -> dict[str, float]:
        parts = {"learnt": data.learnt, "between": data.between, "beyond": data.beyond}
        return {part: accuracy(ask(model, pairs), pairs.sum(1)) for part, pairs in parts.items()}

    return op.train.Plan(
        name, make, lambda *_: data.learnt, loss, n_steps, op.train.adam(lr), clip_norm=1.0, random_seed=random_seed,
        measures={"accuracy": op.train.Measure(watch)}, measure_at=op.train.evenly(n_steps, max(1, n_steps // 20)),
    )  # fmt: skip
