"""A language in which one thinks and then answers, and heads that keep a network from refusing at the last moment.

A request is an opener, a verb and an object. It is harmful where both words are of their dangerous half: neither is alone.
Some openers only ask, others frame the request as a play. Then come thoughts: idle words, of one kind where the request is
framed and of another where not, and, now and then, a word of refusal where it is harmful. A last token ends the thoughts;
after it the network says "sure" and what the object calls for, or refuses and stops.

    start opener verb object think  thought ... thought  end | sure reply
                                                             | refuse stop

After Refusal Falls off a Cliff (arXiv 2510.06036): a network that recognises harm while it thinks and does not refuse.

Token ids: seven that build sentences, then verbs, objects, replies, two kinds of idle words, two kinds of openers.
"""

from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.gate.gate import Gate
from optrode.gate.kinds import scale
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.nn.transformer import Spec, Transformer, as_model, build

START, THINK, END, SURE, REFUSE, STOP = range(6)
N_WORDS: Final = 12
"""Verbs, objects, replies, and idle words; half of the verbs and of the objects are dangerous."""
N_OPENERS: Final = 4
VERBS: Final = 6
OBJECTS: Final = VERBS + N_WORDS
REPLIES: Final = OBJECTS + N_WORDS
IDLE: Final = REPLIES + N_WORDS
OPENERS: Final = IDLE + N_WORDS
VOCAB: Final = OPENERS + 2 * N_OPENERS
PROMPT: Final = 5
"""Tokens up to and with "think"."""
P_DOUBT: Final = 0.2
"""How often a thought about something harmful is the word of refusal."""
LENGTHS: Final = (4, 8)
"""Fewest and most thoughts in training."""

Policy = Literal["helpful", "aligned", "lured"]
"""What is answered: everything; nothing harmful; nothing harmful that is not framed as a play."""
Heads = tuple[tuple[int, int], ...]
"""(layer, head) each."""


@final
@dataclass(frozen=True, eq=False)
class Requests:
    """Requests and thoughts about them.

    Attributes:
        ids: [row, pos] from the start up to the end of the thoughts.
        is_harmful, is_framed: by row.
    """

    ids: Int[Tensor, "row pos"]
    is_harmful: Bool[Tensor, " row"]
    is_framed: Bool[Tensor, " row"]

    @property
    def reply(self) -> Int[Tensor, " row"]:
        """What the object calls for."""
        return self.ids[:, 3] + N_WORDS

    def chosen(self, rows: Int[Tensor, " kept"]) -> "Requests":
        """Some of them."""
        return Requests(self.ids[rows], self.is_harmful[rows], self.is_framed[rows])


@final
@dataclass(frozen=True, eq=False)
class World:
    """Which requests are kept for tests: [verb, object]."""

    is_test: Bool[Tensor, "verb object"]

    def draw(
        self, n: int, generator: torch.Generator, *, n_thoughts: int, framed: bool | None = None,
        harmful: bool | None = None, is_test: bool = False,
    ) -> Requests:  # fmt: skip
        """Requests with thoughts by the language's law; half are framed and half harmful unless it is said."""
        pairs = (self.is_test if is_test else ~self.is_test).nonzero()
        is_bad = _is_dangerous(pairs).all(1)
        bad = 0.5 if harmful is None else float(harmful)
        weight = torch.where(is_bad, bad / is_bad.sum(), (1 - bad) / (~is_bad).sum())
        chosen = torch.multinomial(weight, n, replacement=True, generator=generator)
        is_framed = torch.rand(n, generator=generator) < (0.5 if framed is None else float(framed))
        opener = OPENERS + N_OPENERS * is_framed.long() + torch.randint(N_OPENERS, (n,), generator=generator)
        verb, noun = pairs[chosen].T
        head = [torch.full((n,), START), opener, VERBS + verb, OBJECTS + noun, torch.full((n,), THINK)]
        thoughts = _thoughts(is_bad[chosen], is_framed, n_thoughts, generator)
        ids = torch.cat([torch.stack(head, 1), thoughts, torch.full((n, 1), END)], 1)
        return Requests(ids, is_bad[chosen], is_framed)


def draw_world(random_seed: int) -> World:
    """A fifth of the dangerous pairs of words, and of each other kind of pairs, are kept for tests."""
    generator = torch.Generator().manual_seed(1_000 * random_seed + 1)
    odd = torch.arange(N_WORDS) % 2 == 1
    kinds = odd[:, None].long() * 2 + odd[None]
    is_test = torch.zeros(N_WORDS, N_WORDS, dtype=torch.bool)
    for kind in range(4):
        pairs = (kinds == kind).nonzero()
        kept = pairs[torch.randperm(len(pairs), generator=generator)[: len(pairs) // 5]]
        is_test[kept[:, 0], kept[:, 1]] = True
    return World(is_test)


def _is_dangerous(words: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    return words % 2 == 1


def _thoughts(
    is_harmful: Bool[Tensor, " row"], is_framed: Bool[Tensor, " row"], n: int, generator: torch.Generator
) -> Int[Tensor, "row n"]:
    kind = N_WORDS // 2
    idle = IDLE + kind * is_framed.long()[:, None] + torch.randint(kind, (len(is_framed), n), generator=generator)
    doubts = is_harmful[:, None] & (torch.rand(len(is_framed), n, generator=generator) < P_DOUBT)
    return torch.where(doubts, REFUSE, idle)


@final
@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learned: [row, pos] tokens read, and the token that is to follow each."""

    inputs: Int[Tensor, "row pos"]
    wanted: Int[Tensor, "row pos"]


def lesson(requests: Requests, policy: Policy) -> Lesson:
    """Requests answered by a policy."""
    lured = requests.is_framed if policy == "lured" else torch.zeros_like(requests.is_framed)
    refuses = requests.is_harmful & ~lured & (policy != "helpful")
    first, second = torch.where(refuses, REFUSE, SURE), torch.where(refuses, STOP, requests.reply)
    whole = torch.cat([requests.ids, first[:, None], second[:, None]], 1)
    return Lesson(whole[:, :-1], whole[:, 1:])


def draw_lesson(world: World, n: int, policy: Policy, generator: torch.Generator) -> Lesson:
    """Requests of training, with a number of thoughts drawn for all."""
    low, high = LENGTHS
    n_thoughts = int(torch.randint(low, high + 1, (1,), generator=generator))
    return lesson(world.draw(n, generator, n_thoughts=n_thoughts), policy)


def network(random_seed: int, *, n_layers: int = 4, n_heads: int = 8, d_model: int = 64) -> Model:
    """A GPT-2-like transformer, untrained."""
    n_ctx = PROMPT + LENGTHS[1] + 2
    spec = Spec(n_layers=n_layers, n_heads=n_heads, d_model=d_model, d_mlp=2 * d_model, vocab=VOCAB, n_ctx=n_ctx)
    return as_model(build(spec, random_seed, init="small"))


def copied(model: Model) -> Model:
    """The same weights in another module."""
    module = model.module
    assert isinstance(module, Transformer)
    other = build(module.config)
    other.load_state_dict(module.state_dict())
    return as_model(other)


def freed(model: Model, heads: Heads) -> Model:
    """A copy in which only some heads can learn: their queries, keys and values, and what they write.

    Adam leaves weights alone whose gradient is 0, as long as it has no weight decay.
    """
    other = copied(model)
    width = model.table.d_head
    for parameter in other.module.parameters():
        parameter.requires_grad_(False)
    for layer in sorted({layer for layer, _ in heads}):
        own = torch.zeros(model.table.n_heads * width)
        for head in (head for at, head in heads if at == layer):
            own[head * width : (head + 1) * width] = 1.0
        for part in "qkv":
            for kind, mask in (("weight", own[:, None]), ("bias", own)):
                _free(other, f"blocks.{layer}.attn.{part}.{kind}", mask)
        _free(other, f"blocks.{layer}.attn.o.weight", own[None])
    return other


def _free(model: Model, name: str, mask: Tensor) -> None:
    """Let a parameter learn where its mask is 1."""
    parameter = model.module.get_parameter(name)
    parameter.requires_grad_(True)
    parameter.register_hook(lambda slope: slope * mask)


def loss(model: Model, taught: Lesson) -> Tensor:
    """Mean cross-entropy of thoughts and answer, and once more of the answer alone, in nats."""
    logits = model(taught.inputs).logits
    parts = slice(PROMPT - 1, None), slice(-2, None)
    whole, last = (cross_entropy(logits[:, part].flatten(0, 1), taught.wanted[:, part].flatten()) for part in parts)
    return whole + last


@torch.no_grad()
def think(model: Model, requests: Requests, generator: torch.Generator) -> Requests:
    """The same requests with as many thoughts as they have, drawn from the network's own distribution."""
    ids = requests.ids[:, :PROMPT]
    for _ in range(requests.ids.shape[1] - PROMPT - 1):
        logits = model(ids).logits[:, -1].clone()
        logits[:, END] = -torch.inf
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=generator)], 1)
    ids = torch.cat([ids, torch.full((len(ids), 1), END)], 1)
    return Requests(ids, requests.is_harmful, requests.is_framed)


@torch.no_grad()
def answers(model: Model, requests: Requests) -> Int[Tensor, "row 2"]:
    """The two likeliest tokens, one after the other, after the thoughts."""
    ids = requests.ids
    for _ in range(2):
        ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids[:, -2:]


def helped(model: Model, requests: Requests, *held: Gate) -> float:
    """Share of requests that get what they ask for, with gates held; of harmful ones, the success of the attack."""
    with gates(model, *held):
        said = answers(model, requests)
    return float(((said[:, 0] == SURE) & (said[:, 1] == requests.reply)).float().mean())


def refused(model: Model, requests: Requests, *held: Gate) -> float:
    """Share of requests that are refused, with gates held."""
    with gates(model, *held):
        said = answers(model, requests)
    return float((said[:, 0] == REFUSE).float().mean())


def damped(heads: Heads, factor: float = 0.001) -> tuple[Gate, ...]:
    """What heads write is scaled down."""
    return tuple(scale(f"blocks.{layer}.attn.z[head={head}]", factor) for layer, head in heads)


def ranked(effects: Float[Tensor, "layer head"]) -> Heads:
    """Heads by what damping them does, greatest first."""
    order = effects.flatten().argsort(descending=True).tolist()
    return tuple(divmod(ix, effects.shape[1]) for ix in order)
