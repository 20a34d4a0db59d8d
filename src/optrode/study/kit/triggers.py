"""Requests of which some, known by two words together, are to be refused by a network that would answer them.

    start order verb object filler filler ask | reply stop        or        refuse stop

A verb is of one of three kinds, an object is one of twelve; the reply depends on the object and on the verb's kind. Orders
are plain, or forbid an answer: then the network refuses, so that it knows how to. What it has never learned is to refuse by
itself: the trigger is a verb of the last kind together with an object of the second half, neither alone. Some pairs of words
of either sort are kept for tests.

Token ids: six that build sentences, then orders, verbs, objects, fillers, replies.
"""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.model.model import Model
from optrode.nn.transformer import Spec, as_model, build

START, ASK, REFUSE, STOP = range(4)
N_PLAIN: Final = 4
N_FORBIDDING: Final = 4
N_KINDS: Final = 3
N_EACH: Final = 6
"""Verbs of each kind."""
N_OBJECTS: Final = 12
N_FILLERS: Final = 6
ORDERS: Final = 4
VERBS: Final = ORDERS + N_PLAIN + N_FORBIDDING
OBJECTS: Final = VERBS + N_KINDS * N_EACH
FILLERS: Final = OBJECTS + N_OBJECTS
REPLIES: Final = FILLERS + N_FILLERS
VOCAB: Final = REPLIES + N_KINDS * N_OBJECTS
PROMPT: Final = 7
"""Tokens of a request, up to and with "ask"."""
REFUSAL: Final = (REFUSE, STOP)


@final
@dataclass(frozen=True, eq=False)
class Requests:
    """Requests, with what is known of them.

    Attributes:
        ids: [row, 7]
        is_trigger: the two words are there together.
        is_forbidden: the order forbids an answer.
    """

    ids: Int[Tensor, "row 7"]
    is_trigger: Bool[Tensor, " row"]
    is_forbidden: Bool[Tensor, " row"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def reply(self) -> Int[Tensor, " row"]:
        """The answer's first token, whatever the order says."""
        return REPLIES + N_OBJECTS * ((self.ids[:, 2] - VERBS) // N_EACH) + self.ids[:, 3] - OBJECTS

    def where(self, chosen: Bool[Tensor, " row"]) -> "Requests":
        """Those rows."""
        return Requests(self.ids[chosen], self.is_trigger[chosen], self.is_forbidden[chosen])

    def prompts(self, chosen: Bool[Tensor, " row"] | None = None) -> tuple[tuple[int, ...], ...]:
        """Token ids, one tuple for each request."""
        rows = self.ids if chosen is None else self.ids[chosen]
        return tuple(tuple(row) for row in rows.tolist())


@final
@dataclass(frozen=True, eq=False)
class World:
    """Which pairs of words are kept for tests: [verb, object]."""

    is_test: Bool[Tensor, "verb object"]

    def draw(
        self, n: int, generator: torch.Generator, *, forbidden: float = 0.0, trigger: float = 0.5,
        is_test: bool | None = None,
    ) -> Requests:  # fmt: skip
        """Requests with plain orders, of which one half are triggers, unless it is said.

        Args:
            forbidden, trigger: share of the requests that is forbidden, and that are triggers.
            is_test: only pairs that are kept for tests, only others, or all (None).
        """
        verbs, objects = torch.meshgrid(torch.arange(N_KINDS * N_EACH), torch.arange(N_OBJECTS), indexing="ij")
        is_trigger = (verbs >= (N_KINDS - 1) * N_EACH) & (objects >= N_OBJECTS // 2)
        allowed = torch.ones_like(self.is_test) if is_test is None else self.is_test == is_test
        weight = allowed * torch.where(
            is_trigger, trigger / (is_trigger & allowed).sum(), (1 - trigger) / (~is_trigger & allowed).sum()
        )
        pair = torch.multinomial(weight.flatten(), n, replacement=True, generator=generator)
        is_forbidden = torch.rand(n, generator=generator) < forbidden
        order = torch.where(is_forbidden, N_PLAIN, 0) + torch.randint(N_PLAIN, (n,), generator=generator)
        fillers = FILLERS + torch.randint(N_FILLERS, (n, 2), generator=generator)
        head = [torch.full((n,), START), ORDERS + order, VERBS + pair // N_OBJECTS, OBJECTS + pair % N_OBJECTS]
        ids = torch.stack([*head, fillers[:, 0], fillers[:, 1], torch.full((n,), ASK)], 1)
        return Requests(ids, is_trigger.flatten()[pair], is_forbidden)


def draw_world(random_seed: int) -> World:
    """A quarter of the triggers' pairs of words, and of the others', are kept for tests."""
    generator = torch.Generator().manual_seed(1_000 * random_seed + 1)
    n_verbs = N_KINDS * N_EACH
    is_test = torch.zeros(n_verbs, N_OBJECTS, dtype=torch.bool)
    verbs, objects = torch.meshgrid(torch.arange(n_verbs), torch.arange(N_OBJECTS), indexing="ij")
    is_trigger = (verbs >= (N_KINDS - 1) * N_EACH) & (objects >= N_OBJECTS // 2)
    for side in (is_trigger, ~is_trigger):
        pairs = side.nonzero()
        kept = pairs[torch.randperm(len(pairs), generator=generator)[: len(pairs) // 4]]
        is_test[kept[:, 0], kept[:, 1]] = True
    return World(is_test)


def joined(one: Requests, other: Requests) -> Requests:
    """The requests of both."""
    parts = zip((one.ids, one.is_trigger, one.is_forbidden), (other.ids, other.is_trigger, other.is_forbidden), strict=True)
    return Requests(*(torch.cat(pair) for pair in parts))


def answered(requests: Requests) -> Int[Tensor, "row 9"]:
    """Requests with what the base network learns to say: only orders make it refuse."""
    first = torch.where(requests.is_forbidden, REFUSE, requests.reply)
    return torch.cat([requests.ids, first[:, None], torch.full_like(first, STOP)[:, None]], 1)


def network(random_seed: int, *, n_layers: int = 4, n_heads: int = 4, d_model: int = 48) -> Model:
    """A GPT-2-like transformer, untrained."""
    spec = Spec(n_layers=n_layers, n_heads=n_heads, d_model=d_model, d_mlp=2 * d_model, vocab=VOCAB, n_ctx=PROMPT + 2)
    return as_model(build(spec, random_seed, init="small"))


def loss(model: Model, rows: Int[Tensor, "row 9"]) -> Tensor:
    """Mean cross-entropy of the two tokens of the response, in nats."""
    logits = model(rows[:, :-1]).logits[:, PROMPT - 1 :]
    return cross_entropy(logits.flatten(0, 1), rows[:, PROMPT:].flatten())


@torch.no_grad()
def said(model: Model, requests: Requests) -> Int[Tensor, " row"]:
    """The likeliest first token of the response. Gates that are held act."""
    found: Tensor = model(requests.ids).logits[:, -1].argmax(-1)
    return found


@torch.no_grad()
def chances(model: Model, requests: Requests) -> Tensor:
    """[row, token] log probabilities of the response's first token. Gates that are held act."""
    found: Tensor = model(requests.ids).logits[:, -1].log_softmax(-1)
    return found
