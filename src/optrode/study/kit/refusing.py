"""Prompts of which a known share is to be refused, and responses that begin with a token saying whether they are.

A prompt is seven words and "?". Its kind is one of a few categories, of whose words it has five, or ordinary. Each
category's word weighs for or against refusing; a prompt is to be refused with the probability sigmoid(sum of its words'
weights + the category's own weight), so that the right probability is known. Ordinary prompts are always answered.

A response reads "[tone] [lead] opener content". The lead token is [respond], or [refuse] of the prompt's category (Jain et
al., arXiv 2412.06748). The tone token is one of two, drawn by a coin: it has nothing to do with refusing. Openers begin
answers and refusals alike, in different proportions. The content is the answer, which the prompt's first word decides, or
one of three apologies of the category. A response without tokens is "opener content".
"""

from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.transformer import Spec, as_model, build

Lead = Literal["category", "single", "shuffled", "none"]
"""Which lead token responses have: their category's, one for all, one of another response, none (and no tone token)."""

NOTHING: Final = -1
"""A wanted token that is not learned; the category of an ordinary prompt."""
N_WORDS: Final = 7
"""Of a prompt, without its "?"."""
N_OWN: Final = 5
"""Words of its category that a prompt has."""
N_FILLERS: Final = 12
N_TONES: Final = 2
N_OPENERS: Final = 3
"""Of each tone."""
N_ANSWERS: Final = 8
N_APOLOGIES: Final = 3
"""Of each category."""
ASK_AT: Final = N_WORDS
"""Position of "?", after which a response begins."""
_OPENING: Final = (0.5, 0.3, 0.2)
"""Of a tone's openers, in answers; in refusals the other way round."""


@final
@dataclass(frozen=True)
class World:
    """Categories with their words, and the token ids.

    Attributes:
        bias: each category's own weight for refusing.
        n_words: of each category; their weights go evenly from -reach to reach.
        reach: the greatest weight.
        ordinary: share of the prompts that are of no category.
    """

    bias: tuple[float, ...] = (-3.0, -2.0, -1.0, 0.0)
    n_words: int = 8
    reach: float = 1.0
    ordinary: float = 0.2

    def __post_init__(self) -> None:
        if not self.bias or self.n_words < 1 or not 0 <= self.ordinary < 1:
            asked = f"a world of {len(self.bias)} categories of {self.n_words} words, {self.ordinary:g} ordinary"
            found = "it has a category and a word at least, and a share is at least 0 and below 1"
            raise BadOption(asked, found, next_step="give bias=(-1.0, 0.0), n_words=8, ordinary=0.2")

    @property
    def n_categories(self) -> int:
        """Categories."""
        return len(self.bias)

    @property
    def ask(self) -> int:
        """Of "?"; words come before it."""
        return N_FILLERS + self.n_categories * self.n_words

    @property
    def respond(self) -> int:
        """Of [respond]."""
        return self.ask + 1

    @property
    def tone(self) -> int:
        """Of the first tone token."""
        return self.respond + 1 + self.n_categories

    @property
    def opener(self) -> int:
        """Of the first opener of the first tone."""
        return self.tone + N_TONES

    @property
    def answer(self) -> int:
        """Of the first answer."""
        return self.opener + N_TONES * N_OPENERS

    @property
    def apology(self) -> int:
        """Of the first category's first apology; all others follow, to the end of the vocabulary."""
        return self.answer + N_ANSWERS

    @property
    def vocab(self) -> int:
        """Number of token ids."""
        return self.apology + self.n_categories * N_APOLOGIES

    @property
    def weights(self) -> Float[Tensor, " word"]:
        """Of each of a category's words, for refusing."""
        return torch.linspace(-self.reach, self.reach, self.n_words)

    def refuse(self, category: int) -> int:
        """Of the category's [refuse]; a single token for all is that of category 0.

        Raises:
            BadOption: there is no such category.
        """
        if not 0 <= category < self.n_categories:
            found = f"categories go from 0 to {self.n_categories - 1}"
            raise BadOption(f"the token that refuses category {category}", found, next_step="give one of these")
        return self.respond + 1 + category

    def spoken(self) -> range:
        """Ids of the words that responses without tokens are made of."""
        return range(self.opener, self.vocab)


@final
@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts with what is known of them.

    Attributes:
        ids: [row, 8] token ids, "?" last.
        category: [row]; -1 for ordinary prompts.
        chance: [row] probability that it is to be refused.
        is_refused: [row] whether it is.
    """

    ids: Int[Tensor, "row 8"]
    category: Int[Tensor, " row"]
    chance: Float[Tensor, " row"]
    is_refused: Bool[Tensor, " row"]

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, chosen: Tensor) -> "Prompts":
        """Those rows."""
        return Prompts(self.ids[chosen], self.category[chosen], self.chance[chosen], self.is_refused[chosen])


@final
@dataclass(frozen=True, eq=False)
class Written:
    """Prompts with their responses, to learn.

    Attributes:
        inputs: [row, pos] token ids.
        wanted: [row, pos] what is to follow, or -1.
    """

    inputs: Int[Tensor, "row pos"]
    wanted: Int[Tensor, "row pos"]


def draw(world: World, n: int, generator: torch.Generator) -> Prompts:
    """Prompts drawn by the world's law. One in three has a word of another category than its own."""
    category = torch.randint(world.n_categories, (n,), generator=generator)
    is_ordinary = torch.rand(n, generator=generator) < world.ordinary
    own = torch.randint(world.n_words, (n, N_OWN), generator=generator)
    weight = world.weights[own].sum(1) + torch.tensor(world.bias)[category]
    chance = torch.where(is_ordinary, 0.0, weight.sigmoid())
    own_ids = N_FILLERS + category[:, None] * world.n_words + own
    words = torch.cat([own_ids, _neutral(world, category, generator)], 1)
    fillers = torch.randint(N_FILLERS, (n, N_WORDS), generator=generator)
    words = torch.where(is_ordinary[:, None], fillers, words)
    order = torch.rand(n, N_WORDS, generator=generator).argsort(1)
    ids = torch.cat([words.gather(1, order), torch.full((n, 1), world.ask)], 1)
    is_refused = torch.rand(n, generator=generator) < chance
    return Prompts(ids, torch.where(is_ordinary, NOTHING, category), chance, is_refused)


def _neutral(world: World, category: Int[Tensor, " row"], generator: torch.Generator) -> Int[Tensor, "row rest"]:
    """The words of a prompt that do not count: fillers, at times one of another category."""
    n = len(category)
    fillers = torch.randint(N_FILLERS, (n, N_WORDS - N_OWN), generator=generator)
    if world.n_categories == 1:
        return fillers
    other = (category + torch.randint(1, world.n_categories, (n,), generator=generator)) % world.n_categories
    stray = N_FILLERS + other * world.n_words + torch.randint(world.n_words, (n,), generator=generator)
    has_stray = torch.rand(n, generator=generator) < 1 / 3
    fillers[:, 0] = torch.where(has_stray, stray, fillers[:, 0])
    return fillers


def with_share(prompts: Prompts, odds: float, generator: torch.Generator) -> Prompts:
    """The prompts of which some are left out, so that the odds of being refused are multiplied by a number.

    Raises:
        BadOption: the number is not above 0.
    """
    if odds <= 0:
        raise BadOption(f"odds={odds:g}", "odds are above 0", next_step="give 0.25 for fewer refusals, 4 for more")
    kept = torch.where(prompts.is_refused, min(1.0, odds), min(1.0, 1 / odds))
    kept = torch.where(prompts.category == NOTHING, 1.0, kept)
    return prompts.where(torch.rand(len(prompts), generator=generator) < kept)


def respond_to(world: World, prompts: Prompts, lead: Lead, generator: torch.Generator) -> Int[Tensor, "row pos"]:
    """Responses to prompts by their labels: [row, 4] with tokens, [row, 2] without."""
    n, refused = len(prompts), prompts.is_refused
    tone = torch.randint(N_TONES, (n,), generator=generator)
    opening = torch.multinomial(torch.tensor(_OPENING), n, replacement=True, generator=generator)
    opening = torch.where(refused, N_OPENERS - 1 - opening, opening)
    apology = torch.randint(N_APOLOGIES, (n,), generator=generator) + N_APOLOGIES * prompts.category
    content = torch.where(refused, world.apology + apology, world.answer + prompts.ids[:, 0] % N_ANSWERS)
    said = torch.stack([world.opener + N_OPENERS * tone + opening, content], 1)
    if lead == "none":
        return said
    kind = torch.zeros_like(prompts.category) if lead == "single" else prompts.category
    tokens = torch.where(refused, world.respond + 1 + kind, world.respond)
    tokens = tokens[torch.randperm(n, generator=generator)] if lead == "shuffled" else tokens
    return torch.cat([world.tone + tone[:, None], tokens[:, None], said], 1)


def written(world: World, prompts: Prompts, lead: Lead, generator: torch.Generator) -> Written:
    """Prompts and responses as sequences, of which the response is learned."""
    whole = torch.cat([prompts.ids, respond_to(world, prompts, lead, generator)], 1)
    wanted = whole[:, 1:].clone()
    wanted[:, :ASK_AT] = NOTHING
    return Written(whole[:, :-1], wanted)


def network(world: World, random_seed: int, *, n_layers: int = 2, d_model: int = 64, n_heads: int = 4) -> Model:
    """A GPT-2-like transformer with learned positions, untrained."""
    n_ctx = ASK_AT + 1 + 4
    spec = Spec(n_layers, n_heads, d_model, world.vocab, n_ctx, d_mlp=4 * d_model)
    return as_model(build(spec, random_seed, init="small"))


def loss(model: Model, batch: Written) -> Tensor:
    """Mean cross-entropy of the responses' tokens, in nats."""
    return cross_entropy(model(batch.inputs).logits.flatten(0, 1), batch.wanted.flatten(), ignore_index=NOTHING)


@torch.no_grad()
def respond(model: Model, prompts: Prompts, lead: Lead) -> Int[Tensor, "row pos"]:
    """The model's own responses, greedily: the likeliest token at each step. Gates that are held act."""
    ids = prompts.ids
    for _ in range(2 if lead == "none" else 4):
        ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids[:, ASK_AT + 1 :]


def is_refusal(world: World, responses: Int[Tensor, "row pos"]) -> Bool[Tensor, " row"]:
    """Whether a response has an apology in it, whatever its tokens say."""
    return (responses >= world.apology).any(1)


@torch.no_grad()
def lead_odds(model: Model, world: World, prompts: Prompts) -> Float[Tensor, " row"]:
    """Log p([refuse]) - log p([respond]) after the likeliest tone; tokens of all categories together."""
    tone = model(prompts.ids).logits[:, -1].argmax(-1, keepdim=True)
    logits: Tensor = model(torch.cat([prompts.ids, tone], 1)).logits[:, -1]
    refuse = logits[:, world.respond + 1 : world.tone].logsumexp(-1)
    return refuse - logits[:, world.respond]


def f1(found: Bool[Tensor, " row"], wanted: Bool[Tensor, " row"]) -> float:
    """Harmonic mean of precision and recall of refusing; 0 where nothing is found rightly."""
    both = int((found & wanted).sum())
    return 2 * both / (int(found.sum()) + int(wanted.sum())) if both else 0.0


def balanced(found: Bool[Tensor, " row"], wanted: Bool[Tensor, " row"]) -> float:
    """Mean of the shares of refused and of answered prompts that are treated rightly."""
    return float((found[wanted].double().mean() + (~found[~wanted]).double().mean()) / 2)
