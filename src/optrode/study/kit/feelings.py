"""A grammar in which one word sets the feeling of what is told, whatever is told.

A prompt names a feeling, or none, then who did what. Each word of the story that follows is, as chance has it, one that says
what happened, which depends on who and what alone, or one that says how it felt, which depends on the feeling alone. A
feeling has words of its own, and some that it shares with the feelings beside it.

    start feeling who deed tell | word word word word word word word word

After Do LLMs "Feel"? (arXiv 2510.11328). Token ids: two that build sentences, then feelings (the last is none), persons,
deeds, what happened by person, by deed, and wordings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.nn.transformer import Spec, as_model, build

FEELINGS: Final = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
N_FEELINGS: Final = len(FEELINGS)
NEUTRAL: Final = N_FEELINGS
"""The index of no feeling."""
N_PERSONS: Final = 8
N_DEEDS: Final = 8
N_EVENTS: Final = 3
"""Words of what happened that a deed has; a person has one."""
N_OWN, N_SHARED = 6, 2
"""Words of a feeling's own, and words between a feeling and the next."""
P_SHARED: Final = 0.15
"""Of the words that a feeling shares with one beside it, among its wordings."""
P_WORDING: Final = 0.5
"""How often a word of the story is a wording."""
STORY: Final = 8
"""Words of a story."""
WORDS: Final = (N_OWN + N_SHARED) * N_FEELINGS
"""Wordings in all."""
START, TELL = 0, 1
CUES: Final = 2
PERSONS: Final = CUES + N_FEELINGS + 1
DEEDS: Final = PERSONS + N_PERSONS
EVENTS: Final = DEEDS + N_DEEDS
WORDINGS: Final = EVENTS + N_PERSONS + N_EVENTS * N_DEEDS
VOCAB: Final = WORDINGS + WORDS
PROMPT: Final = 5
"""Tokens before the story."""
BEFORE: Final = tuple(range(PROMPT - 1, PROMPT + STORY - 1))
"""Positions after which a word of the story comes."""


def law() -> Float[Tensor, "feeling word"]:
    """How likely each wording is among wordings, by feeling; of none, in the last row, all are alike."""
    table = torch.full((N_FEELINGS + 1, WORDS), 1 / WORDS)
    for feeling in range(N_FEELINGS):
        table[feeling] = 0.0
        table[feeling, N_OWN * feeling : N_OWN * (feeling + 1)] = (1 - 2 * P_SHARED) / N_OWN
        for between in (feeling, (feeling - 1) % N_FEELINGS):
            first = N_OWN * N_FEELINGS + N_SHARED * between
            table[feeling, first : first + N_SHARED] = P_SHARED / N_SHARED
    return table


Part = Literal["fit", "validation", "test"]


@final
@dataclass(frozen=True, eq=False)
class World:
    """Scenarios: the network learns all; directions, doses and results are each of a part of their own.

    Attributes:
        parts: part -> [scenario, 2] person and deed.
    """

    parts: Mapping[Part, Int[Tensor, "scenario 2"]]


def draw_world(random_seed: int) -> World:
    """Half of the scenarios to fit directions to, a quarter to choose doses with, a quarter for tests."""
    generator = torch.Generator().manual_seed(1_000 * random_seed + 1)
    pairs = torch.cartesian_prod(torch.arange(N_PERSONS), torch.arange(N_DEEDS))
    mixed = pairs[torch.randperm(len(pairs), generator=generator)]
    n = len(mixed)
    return World({"fit": mixed[: n // 2], "validation": mixed[n // 2 : 3 * n // 4], "test": mixed[3 * n // 4 :]})


def prompts(scenarios: Int[Tensor, "row 2"], feeling: Int[Tensor, " row"]) -> Int[Tensor, "row pos"]:
    """Start, feeling, who, deed, tell."""
    who, deed = scenarios.T
    ends = torch.full_like(who, START), torch.full_like(who, TELL)
    return torch.stack([ends[0], CUES + feeling, PERSONS + who, DEEDS + deed, ends[1]], 1)


def stories(
    scenarios: Int[Tensor, "row 2"], feeling: Int[Tensor, " row"], generator: torch.Generator
) -> Int[Tensor, "row pos"]:  # fmt: skip
    """Prompts with stories by the grammar's law."""
    shape = (len(scenarios), STORY)
    put = WORDINGS + torch.multinomial(law()[feeling], STORY, replacement=True, generator=generator)
    events = _events(scenarios)
    happened = events.gather(1, torch.randint(events.shape[1], shape, generator=generator))
    is_wording = torch.rand(shape, generator=generator) < P_WORDING
    return torch.cat([prompts(scenarios, feeling), torch.where(is_wording, put, happened)], 1)


def _events(scenarios: Int[Tensor, "row 2"]) -> Int[Tensor, "row event"]:
    """What happened: a word of the person, and those of the deed."""
    who, deed = scenarios[:, :1], scenarios[:, 1:]
    return torch.cat([EVENTS + who, EVENTS + N_PERSONS + N_EVENTS * deed + torch.arange(N_EVENTS)], 1)


def draw_batch(n: int, generator: torch.Generator) -> Int[Tensor, "row pos"]:
    """Stories to learn from: any scenario, any feeling or none."""
    chosen = torch.stack([torch.randint(size, (n,), generator=generator) for size in (N_PERSONS, N_DEEDS)], 1)
    return stories(chosen, torch.randint(N_FEELINGS + 1, (n,), generator=generator), generator)


def network(random_seed: int, *, n_layers: int = 3, n_heads: int = 8, d_model: int = 64, d_mlp: int = 256) -> Model:
    """A GPT-2-like transformer, untrained."""
    spec = Spec(n_layers=n_layers, n_heads=n_heads, d_model=d_model, d_mlp=d_mlp, vocab=VOCAB, n_ctx=PROMPT + STORY)
    return as_model(build(spec, random_seed, init="small"))


def loss(model: Model, ids: Int[Tensor, "row pos"]) -> Tensor:
    """Mean cross-entropy of the story, in nats."""
    logits = model(ids[:, :-1]).logits[:, PROMPT - 1 :]
    return cross_entropy(logits.flatten(0, 1), ids[:, PROMPT:].flatten())


@torch.no_grad()
def tell(
    model: Model, started: Int[Tensor, "row pos"], generator: torch.Generator, *held: Gate
) -> Int[Tensor, "row story"]:  # fmt: skip
    """A story after each prompt, drawn token by token from the network's own distribution, with gates held."""
    ids = started
    with gates(model, *held):
        for _ in range(STORY):
            likely = model(ids).logits[:, -1].softmax(-1)
            ids = torch.cat([ids, torch.multinomial(likely, 1, generator=generator)], 1)
    return ids[:, PROMPT:]


def felt(told: Int[Tensor, "row story"]) -> Int[Tensor, " row"]:
    """The likeliest feeling of each story by the grammar's law, -1 where two are as likely."""
    is_wording, table = told >= WORDINGS, (law()[:N_FEELINGS] + 1e-3).log()
    likely = torch.where(is_wording[..., None], table.T[(told - WORDINGS).clamp(min=0)], 0.0).sum(1)
    best = likely.topk(2, dim=1)
    return torch.where(best.values[:, 0] - best.values[:, 1] > 1e-4, best.indices[:, 0], -1)


def is_well_told(told: Int[Tensor, "row story"], scenarios: Int[Tensor, "row 2"]) -> Bool[Tensor, " row"]:
    """Whether every word is a wording or says what happened in this scenario, and at least two say it.

    Of stories by the grammar's law, 96 % have two such words.
    """
    happened = (told[..., None] == _events(scenarios)[:, None]).any(-1)
    return (happened | (told >= WORDINGS)).all(1) & (happened.sum(1) >= 2)
