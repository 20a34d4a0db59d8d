"""Chains of two sums modulo a small number, written out step by step, for a small transformer.

A chain reads "a o b o c =" and is answered "s t": s = a o b, the step in between, and t = s o c, where o is + or -. A single
sum reads "a o b =" and is answered "s". Token ids: numbers from 0, then "+", "-", "=", and one that pads.

The task of a chain, for scores and circuits, has the right step written after the question and reads both answers, at "="
and at the step; its corrupt prompt is another chain of the same signs, whose answers are both others.
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
from optrode.trial.metric import Metric, targets
from optrode.trial.prompts import Pair, Task

NOTHING: Final = -1
"""A wanted token that is not learned."""
STEP_AT: Final = 5
"""Position of a chain's "=", after which the step is said; the answer is said after the next."""
N_READ: Final = 7
SUM_AT: Final = 3


@final
@dataclass(frozen=True)
class Numbers:
    """Numbers modulo `modulus`, and the token ids."""

    modulus: int = 10

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
        inputs: [row, 7] token ids.
        wanted: [row, 7] what is to follow, or -1.
    """

    inputs: Int[Tensor, "row 7"]
    wanted: Int[Tensor, "row 7"]


def draw_chains(numbers: Numbers, n: int, generator: torch.Generator) -> Int[Tensor, "row 8"]:
    """Chains a o b o c = s t, drawn uniformly, as token ids."""
    a, b, c = torch.randint(numbers.modulus, (3, n), generator=generator)
    signs = numbers.modulus + torch.randint(2, (2, n), generator=generator)
    step = numbers.apply(a, signs[0], b)
    equals = torch.full_like(a, numbers.equals)
    return torch.stack([a, signs[0], b, signs[1], c, equals, step, numbers.apply(step, signs[1], c)], 1)


def written_chains(chains: Int[Tensor, "row 8"]) -> Written:
    """Chains with both answers to be learned."""
    wanted = torch.full((len(chains), N_READ), NOTHING)
    wanted[:, STEP_AT:] = chains[:, STEP_AT + 1 :]
    return Written(chains[:, :N_READ], wanted)


def written_sums(numbers: Numbers, chains: Int[Tensor, "row 8"]) -> Written:
    """The first sums of chains, alone."""
    inputs = torch.full((len(chains), N_READ), numbers.vocab - 1)
    inputs[:, :SUM_AT], inputs[:, SUM_AT] = chains[:, :SUM_AT], numbers.equals
    wanted = torch.full_like(inputs, NOTHING)
    wanted[:, SUM_AT] = chains[:, STEP_AT + 1]
    return Written(inputs, wanted)


def joined(*parts: Written) -> Written:
    """The rows of all."""
    return Written(torch.cat([part.inputs for part in parts]), torch.cat([part.wanted for part in parts]))


def questions(chains: Int[Tensor, "row 8"]) -> Questions:
    """Chains as questions for `reward_loss`, answered with step and answer; only the latter is rewarded."""
    return Questions(chains[:, : STEP_AT + 1], chains[:, STEP_AT + 1 :])


def answer_reward(answers: Int[Tensor, "row 2"], wanted: Int[Tensor, "row 2"]) -> Float[Tensor, " row"]:
    """1 where the answer is right, whatever the step before it; else 0."""
    return (answers[:, 1] == wanted[:, 1]).float()


def loss(model: Model, batch: Written) -> Tensor:
    """Mean cross-entropy of what is wanted, in nats."""
    return cross_entropy(model(batch.inputs).logits.flatten(0, 1), batch.wanted.flatten(), ignore_index=NOTHING)


def distillation_loss(teacher: Model) -> Loss:
    """KL(teacher || student) of the tokens that are wanted, in nats, where the teacher's own likeliest step is written.

    The batch's inputs need their questions only: the step comes from the teacher.
    """

    def distil(model: Model, batch: Written) -> Tensor:
        inputs = batch.inputs.clone()
        with torch.no_grad():
            inputs[:, -1] = teacher(inputs[:, : STEP_AT + 1]).logits[:, -1].argmax(-1)
            taught = teacher(inputs).logits[:, STEP_AT:].log_softmax(-1)
        found: Tensor = model(inputs).logits[:, STEP_AT:].log_softmax(-1)
        divergence: Tensor = (taught.exp() * (taught - found)).sum(-1)
        return divergence.mean()

    return distil


@torch.no_grad()
def accuracy(model: Model, chains: Int[Tensor, "row 8"]) -> float:
    """Share of chains answered rightly when the model writes step and answer itself, the likeliest each time."""
    asked = chains[:, : STEP_AT + 1]
    step = model(asked).logits[:, -1].argmax(-1, keepdim=True)
    answer = model(torch.cat([asked, step], 1)).logits[:, -1].argmax(-1)
    return float((answer == chains[:, -1]).float().mean())


@torch.no_grad()
def expected_reward(model: Model, numbers: Numbers, chains: Int[Tensor, "row 8"]) -> float:
    """Mean probability that an answer sampled at temperature 1 is right, over all steps that can be written before it."""
    asked = chains[:, : STEP_AT + 1]
    first = model(asked).logits[:, -1].softmax(-1)
    steps = torch.arange(numbers.vocab).repeat(len(chains))[:, None]
    rows = torch.cat([asked.repeat_interleave(numbers.vocab, 0), steps], 1)
    then = model(rows).logits[:, -1].softmax(-1).unflatten(0, (len(chains), -1))
    right = then.gather(-1, chains[:, None, -1:].expand(-1, numbers.vocab, 1))[..., 0]
    return float((first * right).sum(1).mean())


def network(numbers: Numbers, random_seed: int, *, n_layers: int = 3, n_heads: int = 8, d_model: int = 64) -> Model:
    """A GPT-2-like transformer with learned positions, untrained."""
    spec = Spec(
        n_layers=n_layers, n_heads=n_heads, d_model=d_model, d_mlp=4 * d_model, vocab=numbers.vocab, n_ctx=N_READ
    )  # fmt: skip
    return as_model(build(spec, random_seed, init="small"))


def chain_task(numbers: Numbers, n: int, random_seed: int = 0) -> Task:
    """Pairs of chains of the same signs; both answers of the corrupt chain are others than the clean one's.

    Raises:
        BadOption: no pair is asked for, or there are too few numbers for other answers.
    """
    if n < 1 or numbers.modulus < 3:
        asked = f"a task of {n} chains modulo {numbers.modulus}"
        raise BadOption(asked, "it has a pair at least, of numbers modulo 3 or more", next_step="give n=64, modulus 10")
    generator = torch.Generator().manual_seed(random_seed)
    pairs: list[Pair] = []
    while len(pairs) < n:
        clean, other = draw_chains(numbers, 4 * n, generator), draw_chains(numbers, 4 * n, generator)
        other[:, [1, 3]] = clean[:, [1, 3]]
        other[:, 6] = numbers.apply(other[:, 0], other[:, 1], other[:, 2])
        other[:, 7] = numbers.apply(other[:, 6], other[:, 3], other[:, 4])
        differs = (clean[:, 6:] != other[:, 6:]).all(1)
        pairs += [_pair(numbers, *both) for both in zip(clean[differs].tolist(), other[differs].tolist(), strict=True)]
    return Task("chain", "Two sums, one after the other.", "logprob", tuple(pairs[:n]), random_seed)


def _pair(numbers: Numbers, clean: list[int], other: list[int]) -> Pair:
    at = range(STEP_AT, N_READ)
    return Pair(
        tuple(clean[:N_READ]), tuple(other[:N_READ]), (clean[-1],), (other[-1],),
        numbers.text(clean[:N_READ]), numbers.text(other[:N_READ]), numbers.text(clean[-1:]), numbers.text(other[-1:]),
        {"equals": STEP_AT, "step": N_READ - 1}, tuple((pos, clean[pos + 1]) for pos in at),
    )  # fmt: skip


def _right_probability(logits: Float[Tensor, "batch read vocab"], pairs: Sequence[Pair]) -> Float[Tensor, " batch"]:
    wanted = torch.tensor([[token for _, token in targets(pair)] for pair in pairs], device=logits.device)
    return logits.softmax(-1).gather(-1, wanted[..., None])[..., 0].mean(-1)


RIGHT_PROBABILITY: Final = Metric("right_probability", "probability", _right_probability, reads_targets=True)
"""Mean probability of the right step and of the right answer after it."""
