"""A language of two dialects: the same concepts follow each other in both, in other words.

A row is in one dialect throughout. Concepts follow a chain in which each has a few successors, all alike; most concepts are
said in the dialect's word, the others in a word that both share. What is said (the chain) and how (the dialect) can be told
apart in what a model writes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.nn.spec import Spec
from optrode.nn.transformer import as_model, build
from optrode.train.plan import Plan, adam

OURS: Final = 0
THEIRS: Final = 1
SHARED: Final = 2
"""Kinds of words: ids are kind x n_concepts + concept."""


@final
@dataclass(frozen=True)
class Dialects:
    """The language.

    Attributes:
        n_concepts: of the chain.
        n_next: successors of each concept.
        p_shared: how often the shared word is used.
        length: words of a row; before them is one token for its beginning.
        random_seed: of the chain.
    """

    n_concepts: int = 12
    n_next: int = 3
    p_shared: float = 0.3
    length: int = 24
    random_seed: int = 0

    @property
    def beginning(self) -> int:
        """Token id before the first word."""
        return 3 * self.n_concepts

    @cached_property
    def successors(self) -> Int[Tensor, "concept next"]:
        """Of each concept."""
        generator = torch.Generator().manual_seed(self.random_seed + 77)
        drawn = [torch.randperm(self.n_concepts, generator=generator)[: self.n_next] for _ in range(self.n_concepts)]
        return torch.stack(drawn)

    @property
    def entropy(self) -> float:
        """Of a word after the others of its row, in nats: the least loss once the dialect is known."""
        shared = torch.tensor([self.p_shared, 1 - self.p_shared])
        return float(torch.tensor(float(self.n_next)).log() - (shared * shared.log()).sum())


def draw(
    law: Dialects, n: int, generator: torch.Generator, dialect: int | None = None, length: int | None = None
) -> Int[Tensor, "row pos"]:
    """Rows of a dialect, or each of any."""
    kind = torch.randint(2, (n,), generator=generator) if dialect is None else torch.full((n,), dialect)
    concept = torch.randint(law.n_concepts, (n,), generator=generator)
    words = [torch.full((n,), law.beginning)]
    for _ in range(length or law.length):
        is_shared = torch.rand(n, generator=generator) < law.p_shared
        words.append(torch.where(is_shared, SHARED, kind) * law.n_concepts + concept)
        concept = law.successors[concept, torch.randint(law.n_next, (n,), generator=generator)]
    return torch.stack(words, 1)


def network(law: Dialects, random_seed: int = 0) -> Model:
    """A small language model of the usual kind, untrained."""
    spec = Spec(
        n_layers=3, n_heads=4, d_model=48, vocab=3 * law.n_concepts + 1, n_ctx=2 * law.length + 1, d_mlp=96, norm="rms",
        positions="rotary", has_bias=False,
    )  # fmt: skip
    return as_model(build(spec, random_seed, init="small"), "language model of two dialects")


def loss(model: Model, rows: Int[Tensor, "row pos"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of every word given those before it, in nats."""
    return cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())


def plan(law: Dialects, random_seed: int, n_steps: int = 500) -> Plan:
    """How a model learns the language, both dialects alike."""
    batch = lambda _, generator: draw(law, 64, generator)  # noqa: E731
    return Plan("dialects", lambda seed: network(law, seed), batch, loss, n_steps, adam(3e-3), random_seed=random_seed)


@torch.no_grad()
def go_on(
    model: Model, rows: Int[Tensor, "row pos"], n_words: int, generator: torch.Generator, *held: Gate
) -> Int[Tensor, "row longer"]:
    """Rows with words added that the model draws by its own probabilities while gates are held."""
    with gates(model, *held):
        for _ in range(n_words):
            probabilities = model(rows).logits[:, -1].softmax(-1)
            rows = torch.cat([rows, torch.multinomial(probabilities, 1, generator=generator)], 1)
    return rows


@final
@dataclass(frozen=True)
class Said:
    """What a model wrote.

    Attributes:
        theirs: share of the other dialect's words among those of either.
        follows: share of words whose concept may follow the one before, the beginning token never.
    """

    theirs: float
    follows: float


def read(law: Dialects, rows: Int[Tensor, "row pos"], start: int) -> Said:
    """What was written from position `start` on; NaN for `theirs` where only shared words were."""
    new, before = rows[:, start:], rows[:, start - 1 : -1]
    kind = new // law.n_concepts
    n_either = int((kind <= THEIRS).sum())
    theirs = int((kind == THEIRS).sum()) / n_either if n_either else float("nan")
    may_follow = (law.successors[before % law.n_concepts] == (new % law.n_concepts)[..., None]).any(-1)
    return Said(theirs, float((may_follow & (new < law.beginning)).double().mean()))
