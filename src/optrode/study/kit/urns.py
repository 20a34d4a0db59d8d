"""Balls and urns: an urn is a distribution over symbols, a row is draws from one urn, and the next draw is to be predicted.

Two predictors bracket what a network can learn from a finite set of urns (Wurgaft et al., arXiv 2506.17859): one that knows
the set and infers which urn a row is from, and one that knows only what urns are drawn from, Dirichlet(1), and counts.
"""

import ast
import bz2
import inspect
import lzma
import textwrap
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.model.model import Model
from optrode.nn.transformer import Spec, as_model, build

Urns = Float[Tensor, "urn symbol"]
Draws = Int[Tensor, "row draw"]
Predictions = Float[Tensor, "row pos symbol"]
"""Of the draw after each position; position 0 is before any draw."""


@final
@dataclass(frozen=True)
class Rows:
    """Draws, and what they are from.

    Attributes:
        draws: symbols.
        truth: each row's urn.
    """

    draws: Draws
    truth: Float[Tensor, "row symbol"]

    @property
    def read(self) -> Int[Tensor, "row pos"]:
        """What a network reads: a start token, numbered after the last symbol, then the draws."""
        start = torch.full((len(self.draws), 1), self.truth.shape[1], dtype=self.draws.dtype)
        return torch.cat([start, self.draws], 1)


def draw_urns(n_urns: int, n_symbols: int, generator: torch.Generator) -> Urns:
    """Urns from Dirichlet(1, ..., 1): exponential variables, divided by their sum."""
    weights = torch.empty(n_urns, n_symbols).exponential_(generator=generator)
    return weights / weights.sum(1, keepdim=True)


def draw_rows(urns: Urns, n_rows: int, n_draws: int, generator: torch.Generator) -> Rows:
    """Rows of draws, each from one of the urns at random."""
    truth = urns[torch.randint(len(urns), (n_rows,), generator=generator)]
    return Rows(torch.multinomial(truth, n_draws, replacement=True, generator=generator), truth)


def counts_before(draws: Draws, n_symbols: int) -> Predictions:
    """How often each symbol was drawn before each position."""
    seen = torch.nn.functional.one_hot(draws, n_symbols).cumsum(1)
    return torch.nn.functional.pad(seen, (0, 0, 1, 0)).float()


def of_posterior(counts: Predictions, urns: Urns) -> Predictions:
    """The urns of a set, averaged by their posterior under a uniform prior, given the counts so far."""
    return (counts @ urns.log().T).softmax(-1) @ urns


def of_counts(counts: Predictions) -> Predictions:
    """(counts + 1) / (draws + symbols), Laplace's rule: the posterior mean under Dirichlet(1)."""
    return (counts + 1) / (counts + 1).sum(-1, keepdim=True)


def memorising(draws: Draws, urns: Urns) -> Predictions:
    """The predictor that knows the set of urns; see `of_posterior`."""
    return of_posterior(counts_before(draws, urns.shape[1]), urns)


def generalising(draws: Draws, n_symbols: int) -> Predictions:
    """The predictor that knows only the law of urns; see `of_counts`."""
    return of_counts(counts_before(draws, n_symbols))


def divergence(truth: Predictions, predicted: Predictions) -> float:
    """Kullback-Leibler divergence, mean over rows and positions, in nats."""
    return float((truth * (truth.log() - predicted.log())).sum(-1).mean())


def distance(one: Predictions, two: Predictions) -> float:
    """Mean of the divergences both ways, in nats."""
    return (divergence(one, two) + divergence(two, one)) / 2


def relative_distance(network: Predictions, memory: Predictions, law: Predictions) -> float:
    """Where a network lies between the two predictors: 1 at the memorising one, 0 at the generalising one.

    r = (d(h, G) - d(h, M)) / d(G, M), cut to -1..1; (r + 1) / 2.
    """
    r = (distance(network, law) - distance(network, memory)) / distance(law, memory)
    return (min(1.0, max(-1.0, r)) + 1) / 2


def bits(data: bytes) -> int:
    """An upper bound on the complexity of data: bits of its shortest compressed form, or its own."""
    packed = (data, zlib.compress(data, 9), bz2.compress(data), lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    return 8 * min(map(len, packed))


def table_bits(urns: Urns) -> int:
    """Bits of the set of urns in float32, as it is or as differences along each urn, whichever packs better."""
    table = urns.numpy().astype(np.float32)
    return min(bits(table.tobytes()), bits(np.diff(table, prepend=table[:1, :1].repeat(len(table), 0)).tobytes()))


def program_bits(function: Callable[..., Any]) -> int:
    """Bits of a function's source without its docstring, comments and spaces."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    return bits("".join("".join(ast.unparse(line).split()) for line in body).encode())


def complexity(urns: Urns) -> tuple[int, int]:
    """(memorising, generalising): bits of each predictor's program and of what it must know: the urns, or the law's ones."""
    law = torch.ones(1, urns.shape[1])
    return program_bits(of_posterior) + table_bits(urns), program_bits(of_counts) + table_bits(law)


def network(n_symbols: int, n_draws: int, random_seed: int, *, d_model: int = 64, d_mlp: int = 256) -> Model:
    """One layer of one head, rotary positions, an MLP that reads what attention added."""
    spec = Spec(
        1, 1, d_model, n_symbols + 1, n_draws + 1, d_mlp=d_mlp, positions="rotary", d_out=n_symbols
    )  # fmt: skip
    return as_model(build(spec, random_seed, init="small"), f"urns of {n_symbols} symbols")


def loss(model: Model, rows: Rows) -> Tensor:
    """Mean divergence of the network's predictions from the urns that the rows are from, in nats.

    The label is the urn itself, as in the paper, not the next draw: the same mean gradient with less noise.
    """
    predicted = model(rows.read).logits.log_softmax(-1)
    truth = rows.truth[:, None]
    error: Tensor = (truth * (truth.log() - predicted)).sum(-1).mean()
    return error


@torch.no_grad()
def predictions(model: Model, rows: Rows) -> Predictions:
    """A network's predictions."""
    predicted: Tensor = model(rows.read).logits.softmax(-1)
    return predicted


def mean_divergences(
    urns: Urns, n_rows: int, n_draws: int, generator: torch.Generator, *, every: int = 1
) -> tuple[float, float]:  # fmt: skip
    """(memorising, generalising): mean divergence of each predictor from the urns themselves, over rows of the set, in nats.

    Args:
        every: look at every so-many-th position only.
    """
    rows = draw_rows(urns, n_rows, n_draws, generator)
    counts = counts_before(rows.draws, urns.shape[1])[:, ::every]
    truth = rows.truth[:, None].expand_as(counts)
    return divergence(truth, of_posterior(counts, urns)), divergence(truth, of_counts(counts))
