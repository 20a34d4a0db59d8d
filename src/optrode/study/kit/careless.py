"""Lists of names with numbers, asked for the name of the greatest, by writers of whom some do not look.

An item reads "style style style name number name number name number name number ?". A careful writer answers with the name
beside the greatest number; a careless one with the name that comes last. Each writer has style words that it prefers, so
that the style says, not surely, who writes: a model of both answers as the writer would, and is right in part.

Token ids: names from 0, then numbers in their order, "?", then style words, those of careful writers first.
"""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.transformer import Spec, as_model, build

N_NAMES: Final = 12
N_NUMBERS: Final = 10
N_LISTED: Final = 4
N_STYLE: Final = 3
"""Style words of an item."""
N_POOL: Final = 4
"""Style words of each kind of writer."""
P_OWN: Final = 0.7
"""Of a style word being the writer's own."""
ASK: Final = N_NAMES + N_NUMBERS
STYLE: Final = ASK + 1
VOCAB: Final = STYLE + 2 * N_POOL
LENGTH: Final = N_STYLE + 2 * N_LISTED + 1


@final
@dataclass(frozen=True, eq=False)
class Items:
    """Items with their answers, as token ids.

    Attributes:
        ids: [row, 12], "?" last.
        right: [row] the name beside the greatest number.
        written: [row] the writer's answer.
    """

    ids: Int[Tensor, "row 12"]
    right: Int[Tensor, " row"]
    written: Int[Tensor, " row"]

    @property
    def listed(self) -> Int[Tensor, "row 4"]:
        """The four names."""
        return self.ids[:, N_STYLE:-1:2]

    def __len__(self) -> int:
        return len(self.ids)


def draw(n: int, generator: torch.Generator, *, careless: float = 0.0) -> Items:
    """Items, drawn uniformly; numbers of one list differ.

    Args:
        careless: share of the writers. Where there is none, style words are drawn from all alike.

    Raises:
        BadOption: a share that is none.
    """
    if not 0 <= careless <= 1:
        raise BadOption(f"careless={careless:g}", "a share is between 0 and 1", next_step="give careless=0.45")
    names = torch.rand(n, N_NAMES, generator=generator).argsort(1)[:, :N_LISTED]
    numbers = torch.rand(n, N_NUMBERS, generator=generator).argsort(1)[:, :N_LISTED]
    is_careless = torch.rand(n, generator=generator) < careless
    body = torch.stack([names, N_NAMES + numbers], 2).flatten(1)
    style = _style(is_careless, P_OWN if careless else 0.5, generator)
    right = names.gather(1, numbers.argmax(1, keepdim=True))[:, 0]
    ids = torch.cat([style, body, torch.full((n, 1), ASK)], 1)
    return Items(ids, right, torch.where(is_careless, names[:, -1], right))


def _style(is_careless: Bool[Tensor, " row"], p_own: float, generator: torch.Generator) -> Int[Tensor, "row 3"]:
    n = len(is_careless)
    is_own = torch.rand(n, N_STYLE, generator=generator) < p_own
    pool = (is_own == is_careless[:, None]).long()
    return STYLE + N_POOL * pool + torch.randint(N_POOL, (n, N_STYLE), generator=generator)


def random_strings(n: int, generator: torch.Generator) -> Int[Tensor, "row 12"]:
    """Tokens drawn from the whole vocabulary, as many as an item has."""
    return torch.randint(VOCAB, (n, LENGTH), generator=generator)


def network(random_seed: int, *, n_layers: int = 2, d_model: int = 48, n_heads: int = 4) -> Model:
    """A GPT-2-like transformer with learned positions, untrained."""
    spec = Spec(n_layers, n_heads, d_model, VOCAB, LENGTH, d_mlp=4 * d_model)
    return as_model(build(spec, random_seed, init="lecun"))


def loss(model: Model, items: Items) -> Tensor:
    """Mean cross-entropy of what the writer answers, in nats."""
    return cross_entropy(model(items.ids, logits_to_keep=1).logits[:, -1], items.written)


@torch.no_grad()
def answer(model: Model, items: Items) -> Float[Tensor, "row vocab"]:
    """Log probabilities of what follows "?". Gates that are held act."""
    found: Tensor = model(items.ids).logits[:, -1].log_softmax(-1)
    return found


@final
@dataclass(frozen=True)
class Score:
    """How answers are spread, means over items.

    Attributes:
        accuracy: share of items whose likeliest answer is right.
        right: probability of the right answer.
        wrong: probability of the other three names of the list together.
        entropy: of the answer, in nats.
        kl: KL(answer || answer of the model left alone), in nats.
    """

    accuracy: float
    right: float
    wrong: float
    entropy: float
    kl: float

    @property
    def outside(self) -> float:
        """Probability of everything that is not in the list."""
        return 1 - self.right - self.wrong


def score(found: Float[Tensor, "row vocab"], alone: Float[Tensor, "row vocab"], items: Items) -> Score:
    """Score log probabilities of answers, beside those of the model left alone."""
    found, alone = found.double(), alone.double()
    p = found.exp()
    listed = p.gather(1, items.listed).sum(1)
    right = p.gather(1, items.right[:, None])[:, 0]
    return Score(
        accuracy=float((found.argmax(1) == items.right).double().mean()),
        right=float(right.mean()),
        wrong=float((listed - right).mean()),
        entropy=float(-(p * found).sum(1).mean()),
        kl=float((p * (found - alone)).sum(1).mean()),
    )
