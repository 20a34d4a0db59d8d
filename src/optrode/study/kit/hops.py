"""Two-hop questions over a random world of facts, answered with the bridge entity written out or without.

A fact is (h, r) -> t: entity h has relation r to entity t. A question "h r1 r2" asks for t = r2(r1(h)); its bridge is
b = r1(h). With the bridge written, a sequence is h r1 r2 b t, and b and t are learned; without it h r1 r2 t. Single facts
are sequences h r t. Some facts are out of distribution: taught alone, and in no two-hop question of the training
(Wang et al., arXiv 2405.15071; explicit chains of thought: arXiv 2502.04667).

Token ids: entities from 0, then relations, then one that pads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.transformer import Spec, Transformer, as_model, build
from optrode.site.recording import record

NOTHING: Final = -1
"""A wanted token that is not learned; the tail of a fact that there is not."""
FACT_AT: Final = 1
BRIDGE_AT: Final = 2
"""Position after which the bridge is said; without one, the answer. A single fact's tail is said after position 1."""
ANSWER_AT: Final = 3


@final
@dataclass(frozen=True, eq=False)
class World:
    """Facts.

    Attributes:
        tails: [entity, relation] the entity that it leads to, or -1.
        is_ood: [entity, relation] facts that are in no question of the training.
    """

    tails: Int[Tensor, "entity relation"]
    is_ood: Bool[Tensor, "entity relation"]

    @property
    def n_entities(self) -> int:
        """Entities; their ids are their token ids."""
        return len(self.tails)

    @property
    def vocab(self) -> int:
        """Entities, relations, and one that pads: the last."""
        return sum(self.tails.shape) + 1


@final
@dataclass(frozen=True, eq=False)
class Questions:
    """Two-hop questions and the facts under them, as token ids.

    Attributes:
        facts: [fact, 3] h, r, t: all single facts.
        train, id_test, ood_test: [question, 5] h, r1, r2, b, t. Questions of training and of the ID test are made of facts
            that are in distribution; in the OOD test, neither hop is.
    """

    facts: Int[Tensor, "fact 3"]
    train: Int[Tensor, "train 5"]
    id_test: Int[Tensor, "id 5"]
    ood_test: Int[Tensor, "ood 5"]


@final
@dataclass(frozen=True, eq=False)
class Lessons:
    """What is learned.

    Attributes:
        inputs: [row, 4] token ids.
        wanted: [row, 4] token id that is to follow, or -1.
        n_facts: rows that are single facts; they come first.
    """

    inputs: Int[Tensor, "row 4"]
    wanted: Int[Tensor, "row 4"]
    n_facts: int

    def batch(self, n: int, fact_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows drawn with replacement, `fact_share` of them single facts."""
        n_facts = round(n * fact_share)
        facts = torch.randint(self.n_facts, (n_facts,), generator=generator)
        rest = torch.randint(self.n_facts, len(self.inputs), (n - n_facts,), generator=generator)
        chosen = torch.cat([facts, rest])
        return self.inputs[chosen], self.wanted[chosen]


def draw_world(n_entities: int, n_relations: int, out_degree: int, ood_share: float, generator: torch.Generator) -> World:
    """Each entity has `out_degree` different relations, to entities drawn at random.

    Raises:
        BadOption: more relations of an entity than there are, or a share that is none.
    """
    if not 1 <= out_degree <= n_relations or not 0 <= ood_share < 1:
        asked = f"a world of out_degree={out_degree}, ood_share={ood_share:g}"
        found = f"an entity has 1 to {n_relations} relations, and a share is at least 0 and below 1"
        raise BadOption(asked, found, next_step="give out_degree=8, ood_share=0.1")
    chosen = torch.rand(n_entities, n_relations, generator=generator).argsort(1)[:, :out_degree]
    tails = torch.full((n_entities, n_relations), NOTHING)
    tails.scatter_(1, chosen, torch.randint(n_entities, (n_entities, out_degree), generator=generator))
    facts = (tails >= 0).nonzero()
    left_out = facts[torch.randperm(len(facts), generator=generator)[: round(ood_share * len(facts))]]
    is_ood = torch.zeros_like(tails, dtype=torch.bool)
    is_ood[left_out[:, 0], left_out[:, 1]] = True
    return World(tails, is_ood)


def chains(world: World, allowed: Bool[Tensor, "entity relation"]) -> Int[Tensor, "question 5"]:
    """All questions h, r1, r2, b, t of two allowed facts, as token ids."""
    h, r1 = (allowed & (world.tails >= 0)).nonzero(as_tuple=True)
    bridge = world.tails[h, r1]
    first, r2 = (allowed & (world.tails >= 0))[bridge].nonzero(as_tuple=True)
    n, b = world.n_entities, bridge[first]
    return torch.stack([h[first], n + r1[first], n + r2, b, world.tails[b, r2]], 1)


def ask(world: World, phi: float, n_test: int, generator: torch.Generator) -> Questions:
    """Questions to train and to test on.

    Args:
        phi: questions of training over facts in distribution, where there are as many.
        n_test: questions of the ID test, which are not in training, and most of the OOD test.
    """
    h, r = (world.tails >= 0).nonzero(as_tuple=True)
    inside, outside = (_shuffled(chains(world, mask), generator) for mask in (~world.is_ood, world.is_ood))
    n_train = round(phi * int((~world.is_ood[h, r]).sum()))
    facts = torch.stack([h, world.n_entities + r, world.tails[h, r]], 1)
    return Questions(facts, inside[n_test : n_test + n_train], inside[:n_test], outside[:n_test])


def lessons(
    world: World, facts: Int[Tensor, "fact 3"], questions: Int[Tensor, "question 5"], *, has_bridge: bool = True
) -> Lessons:  # fmt: skip
    """Facts and questions as sequences, learned after the question only."""
    pad = world.vocab - 1
    n_facts, n = len(facts), len(facts) + len(questions)
    inputs, wanted = torch.full((n, 4), pad), torch.full((n, 4), NOTHING)
    inputs[:n_facts, :2], wanted[:n_facts, FACT_AT] = facts[:, :2], facts[:, 2]
    inputs[n_facts:, :3] = questions[:, :3]
    if has_bridge:
        inputs[n_facts:, 3] = questions[:, 3]
        wanted[n_facts:, BRIDGE_AT], wanted[n_facts:, ANSWER_AT] = questions[:, 3], questions[:, 4]
    else:
        wanted[n_facts:, BRIDGE_AT] = questions[:, 4]
    return Lessons(inputs, wanted, n_facts)


def with_noise(
    lesson: Lessons, share: float, n_entities: int, generator: torch.Generator, *, at: tuple[int, ...] = (ANSWER_AT,)
) -> Lessons:  # fmt: skip
    """Lessons in which a share of the questions teach a random entity in place of the right one, the same each time.

    Args:
        at: positions after which it is said: the answer's, the bridge's, or both.
    """
    wanted, inputs = lesson.wanted.clone(), lesson.inputs.clone()
    is_bad = torch.zeros(len(wanted), dtype=torch.bool)
    is_bad[lesson.n_facts :] = torch.rand(len(wanted) - lesson.n_facts, generator=generator) < share
    for pos in at:
        wanted[is_bad, pos] = torch.randint(n_entities, (int(is_bad.sum()),), generator=generator)
        if pos == BRIDGE_AT:
            inputs[is_bad, ANSWER_AT] = wanted[is_bad, pos]
    return Lessons(inputs, wanted, lesson.n_facts)


def network(world: World, random_seed: int, *, n_layers: int = 3, d_model: int = 64, n_heads: int = 4) -> Model:
    """A GPT-2-like transformer with learned positions, untrained."""
    spec = Spec(n_layers=n_layers, n_heads=n_heads, d_model=d_model, d_mlp=4 * d_model, vocab=world.vocab, n_ctx=4)
    return as_model(build(spec, random_seed, init="small"))


def loss(model: Model, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of what is wanted, in nats."""
    inputs, wanted = batch
    return cross_entropy(model(inputs).logits.flatten(0, 1), wanted.flatten(), ignore_index=NOTHING)


Answer = Callable[[Model, Tensor], Tensor]
"""(model, questions [question, 5], of which it reads the first three) -> answers [question]."""


@torch.no_grad()
def answer_directly(model: Model, questions: Int[Tensor, "question 5"]) -> Int[Tensor, " question"]:
    """The likeliest answer right after the question."""
    likeliest: Tensor = model(questions[:, :3]).logits[:, BRIDGE_AT].argmax(-1)
    return likeliest


@torch.no_grad()
def answer_by_bridge(model: Model, questions: Int[Tensor, "question 5"]) -> Int[Tensor, " question"]:
    """The likeliest answer after the likeliest bridge, which the model writes itself."""
    bridge = answer_directly(model, questions)
    likeliest: Tensor = model(torch.cat([questions[:, :3], bridge[:, None]], 1)).logits[:, ANSWER_AT].argmax(-1)
    return likeliest


@torch.no_grad()
def answer_given_bridge(model: Model, questions: Int[Tensor, "question 5"]) -> Int[Tensor, " question"]:
    """The likeliest answer after the right bridge."""
    likeliest: Tensor = model(questions[:, :4]).logits[:, ANSWER_AT].argmax(-1)
    return likeliest


def accuracy(model: Model, questions: Int[Tensor, "question 5"], answer: Answer) -> float:
    """Share of questions whose answer is right."""
    return float((answer(model, questions) == questions[:, 4]).float().mean())


def other_entities(
    world: World, questions: Int[Tensor, "question 5"], column: int, generator: torch.Generator
) -> tuple[Int[Tensor, "kept 5"], Int[Tensor, " kept"], Int[Tensor, " kept"]]:
    """Another entity for each question's head (column 0) or bridge (3), and the answer which that would lead to.

    Returns:
        The questions for which a fact tells that answer and it is another one; the entity; the answer.
    """
    n = world.n_entities
    shift = torch.randint(1, n, (len(questions),), generator=generator)
    other = (questions[:, column] + shift) % n
    bridge = other if column == 3 else world.tails[other, questions[:, 1] - n]
    moved = torch.where(bridge >= 0, world.tails[bridge, questions[:, 2] - n], NOTHING)
    is_kept = (moved >= 0) & (moved != questions[:, 4])
    return questions[is_kept], other[is_kept], moved[is_kept]


def readability(
    model: Model, questions: Int[Tensor, "question 5"], wanted: Int[Tensor, " question"]
) -> Float[Tensor, "layer pos"]:
    """How well an entity can be read off the residual stream after each layer, at r1 and r2: mean reciprocal rank, 0..1.

    It is ranked among all tokens by the logits that the final norm and unembedding make of the stream (logit lens).
    """
    module = model.module
    assert isinstance(module, Transformer)
    ids = {"input_ids": questions[:, :3]}
    streams = record(model, ids, "blocks.*.resid_post").stack("resid_post")[:, :, 1:]
    with torch.no_grad():
        logits = module.unembed(module.final_norm(streams))
    own = logits.gather(-1, wanted[None, :, None, None].expand(len(logits), -1, logits.shape[2], 1))
    ranks: Tensor = 1 + (logits > own).sum(-1)
    return (1 / ranks).mean(1)


def _shuffled(rows: Int[Tensor, "n 5"], generator: torch.Generator) -> Int[Tensor, "n 5"]:
    return rows[torch.randperm(len(rows), generator=generator)]
