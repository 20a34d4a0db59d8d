"""Chains of two sums modulo a small number, answered at once, for a small transformer.

A chain reads "a o b o c =" and is answered "t" = (a o b) o c, where o is + or -: the step in between is not written. A
single sum reads "a o b =" and is answered likewise. Token ids: numbers from 0, then "+", "-", "=", and one that pads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.transformer import Spec, as_model, build
from optrode.study.kit.reward import Questions
from optrode.train.plan import Loss
from optrode.trial.prompts import Pair, Task

NOTHING: Final = -1
"""A wanted token that is not learned."""
N_READ: Final = 6
"""Tokens of a chain, the answer left out; it is said after the last of them, "="."""
SUM_AT: Final = 3
"""Position of a single sum's "="."""


@final
@dataclass(frozen=True)
class Numbers:
    """Numbers modulo `modulus`, and the token ids."""

    modulus: int = 5

    @property
    def equals(self) -> int:
        """Of "="; "+" and "-" are the two before."""
        return self.modulus + 2

    @property
    def vocab(self) -> int:
        """Number of token ids; the last pads."""
        return self.modulus + 4

    def apply(self, left: Tensor, sign: Tensor, right: Tensor) -> Tensor:
        """Sums (sign "+") or differences, modulo."""
        return (left + torch.where(sign == self.modulus, right, -right)) % self.modulus

    def text(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Token ids as text."""
        names = [*map(str, range(self.modulus)), "+", "-", "=", "."]
        return tuple(names[token] for token in ids)


@final
@dataclass(frozen=True, eq=False)
class Written:
    """Sequences to learn.

    Attributes:
        inputs: [row, 6] token ids.
        wanted: [row, 6] what is to follow, or -1.
    """

    inputs: Int[Tensor, "row 6"]
    wanted: Int[Tensor, "row 6"]


def draw_chains(numbers: Numbers, n: int, generator: torch.Generator) -> Int[Tensor, "row 7"]:
    """Chains a o b o c = t, drawn uniformly, as token ids."""
    a, b, c = torch.randint(numbers.modulus, (3, n), generator=generator)
    signs = numbers.modulus + torch.randint(2, (2, n), generator=generator)
    answer = numbers.apply(numbers.apply(a, signs[0], b), signs[1], c)
    return torch.stack([a, signs[0], b, signs[1], c, torch.full_like(a, numbers.equals), answer], 1)


def written_chains(chains: Int[Tensor, "row 7"]) -> Written:
    """Chains whose answer is to be learned."""
    wanted = torch.full((len(chains), N_READ), NOTHING)
    wanted[:, -1] = chains[:, -1]
    return Written(chains[:, :N_READ], wanted)


def written_sums(numbers: Numbers, chains: Int[Tensor, "row 7"]) -> Written:
    """The first sums of chains, alone."""
    inputs = torch.full((len(chains), N_READ), numbers.vocab - 1)
    inputs[:, :SUM_AT], inputs[:, SUM_AT] = chains[:, :SUM_AT], numbers.equals
    wanted = torch.full_like(inputs, NOTHING)
    wanted[:, SUM_AT] = numbers.apply(chains[:, 0], chains[:, 1], chains[:, 2])
    return Written(inputs, wanted)


def joined(*parts: Written) -> Written:
    """The rows of all."""
    return Written(torch.cat([part.inputs for part in parts]), torch.cat([part.wanted for part in parts]))


def questions(chains: Int[Tensor, "row 7"]) -> Questions:
    """Chains as questions for `reward_loss` with `exact_match`."""
    return Questions(chains[:, :N_READ], chains[:, N_READ:])


def loss(model: Model, batch: Written) -> Tensor:
    """Mean cross-entropy of what is wanted, in nats."""
    return cross_entropy(model(batch.inputs).logits.flatten(0, 1), batch.wanted.flatten(), ignore_index=NOTHING)


def distillation_loss(teacher: Model) -> Loss:
    """KL(teacher || student) of the answers to chains, in nats; what the batch wants is not looked at."""

    def distil(model: Model, batch: Written) -> Tensor:
        with torch.no_grad():
            taught = teacher(batch.inputs).logits[:, -1].log_softmax(-1)
        found: Tensor = model(batch.inputs).logits[:, -1].log_softmax(-1)
        divergence: Tensor = (taught.exp() * (taught - found)).sum(-1)
        return divergence.mean()

    return distil


@torch.no_grad()
def accuracy(model: Model, chains: Int[Tensor, "row 7"]) -> float:
    """Share of chains whose likeliest answer is right."""
    return float((_answers(model, chains).argmax(-1) == chains[:, -1]).float().mean())


@torch.no_grad()
def expected_reward(model: Model, chains: Int[Tensor, "row 7"]) -> float:
    """Mean probability that an answer sampled at temperature 1 is right."""
    return float(_answers(model, chains).softmax(-1).gather(-1, chains[:, -1:]).mean())


def network(numbers: Numbers, random_seed: int, *, n_layers: int = 3, n_heads: int = 8, d_model: int = 64) -> Model:
    """A GPT-2-like transformer with learned positions, untrained."""
    spec = Spec(
        n_layers=n_layers, n_heads=n_heads, d_model=d_model, d_mlp=4 * d_model, vocab=numbers.vocab, n_ctx=N_READ
    )  # fmt: skip
    return as_model(build(spec, random_seed, init="small"))


def chain_task(numbers: Numbers, n: int, random_seed: int = 0) -> Task:
    """Pairs of chains of the same signs and other answers. Metric: probability of the right answer less the other's.

    Raises:
        BadOption: no pair is asked for, or there is no other number.
    """
    if n < 1 or numbers.modulus < 2:
        asked = f"a task of {n} chains modulo {numbers.modulus}"
        raise BadOption(asked, "it has a pair at least, of numbers modulo 2 or more", next_step="give n=64, modulus 5")
    generator = torch.Generator().manual_seed(random_seed)
    pairs: list[Pair] = []
    while len(pairs) < n:
        clean, other = draw_chains(numbers, 4 * n, generator), draw_chains(numbers, 4 * n, generator)
        fits = (clean[:, [1, 3]] == other[:, [1, 3]]).all(1) & (clean[:, -1] != other[:, -1])
        pairs += [_pair(numbers, *both) for both in zip(clean[fits].tolist(), other[fits].tolist(), strict=True)]
    return Task("chain", "Two sums, one after the other.", "prob_gap", tuple(pairs[:n]), random_seed)


def _answers(model: Model, chains: Int[Tensor, "row 7"]) -> Float[Tensor, "row vocab"]:
    logits: Tensor = model(chains[:, :N_READ]).logits[:, -1]
    return logits


def _pair(numbers: Numbers, clean: list[int], other: list[int]) -> Pair:
    return Pair(
        tuple(clean[:N_READ]), tuple(other[:N_READ]), (clean[-1],), (other[-1],),
        numbers.text(clean[:N_READ]), numbers.text(other[:N_READ]), numbers.text(clean[-1:]), numbers.text(other[-1:]),
        {"end": N_READ - 1},
    )  # fmt: skip
