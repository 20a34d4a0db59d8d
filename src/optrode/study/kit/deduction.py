"""Facts told in one of several words, and questions for what follows from them in one step or many.

Concepts are c0_0 ... c5_5, by level and number; a random rule leads from each to one of the next level, so that there are
six chains. Each chain is of one of three kinds. Concepts y0 ... y5 are of no chain. A prompt holds words at random places
among fillers, and a question last: "what follows at level m?", "what follows from the c0 and the y?", "of which kind?".
The model is taught questions of level m on facts of level m - 1 alone; two premises of half the pairs; kinds of half the
concepts.

Token ids: words of concepts, by concept; fillers; questions; names, which are answered: of level 1, ..., 5, pairs, kinds.
"""

from dataclasses import dataclass, replace
from typing import Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.transformer import Spec, as_model, build

LEVELS: Final = 6
WIDTH: Final = 6
"""Concepts of a level, and of no chain."""
N_KINDS: Final = 3
FORMS: Final = 4
"""Words of a concept."""
N_CHAINED: Final = LEVELS * WIDTH
N_CONCEPTS: Final = N_CHAINED + WIDTH
N_WORDS: Final = N_CONCEPTS * FORMS
N_FILLERS: Final = 12
QUESTIONS: Final = LEVELS + 1
"""Of level 1, ..., 5, of a pair, of a kind."""
ASK: Final = N_WORDS + N_FILLERS
NAME: Final = ASK + QUESTIONS
N_NAMES: Final = LEVELS * WIDTH + N_KINDS
VOCAB: Final = NAME + N_NAMES
PLACES: Final = 6
"""Tokens before the question."""
PAIR, KIND = LEVELS, LEVELS + 1
"""Numbers of the last two questions; those of levels are the levels."""
NONE: Final = -1


@final
@dataclass(frozen=True, eq=False)
class World:
    """What follows from what, and what of it is taught.

    Attributes:
        steps: [level, number] number of the concept of the next level.
        kinds: [concept] kind of each concept of a chain.
        pairs: [number, number] what follows from a c0 and a y.
        taught_pairs: which of them are taught.
        taught_kinds: [concept] of which concepts the kind is taught.
    """

    steps: Int[Tensor, "level number"]
    kinds: Int[Tensor, " concept"]
    pairs: Int[Tensor, "number number"]
    taught_pairs: Bool[Tensor, "number number"]
    taught_kinds: Bool[Tensor, " concept"]

    def after(self, concepts: Int[Tensor, " row"], level: int) -> Int[Tensor, " row"]:
        """The concept of a level that follows from each concept, of that level or below."""
        found = concepts.clone()
        for below in range(level):
            at = found // WIDTH == below
            found = torch.where(at, (below + 1) * WIDTH + self.steps[below, found % WIDTH], found)
        return found


def world(random_seed: int) -> World:
    """A world drawn from a seed."""
    draw = torch.Generator().manual_seed(random_seed)
    steps = torch.stack([torch.randperm(WIDTH, generator=draw) for _ in range(LEVELS - 1)])
    pairs = torch.stack([torch.randperm(WIDTH, generator=draw) for _ in range(WIDTH)])
    taught = torch.stack([torch.randperm(WIDTH, generator=draw) for _ in range(WIDTH)]) < WIDTH // 2
    kind_of_chain = torch.randperm(WIDTH, generator=draw) % N_KINDS
    taught_kinds = torch.randperm(N_CHAINED, generator=draw) < N_CHAINED // 2
    made = World(steps, torch.zeros(N_CHAINED, dtype=torch.long), pairs, taught, taught_kinds)
    of_chain = made.after(torch.arange(N_CHAINED), LEVELS - 1) % WIDTH  # chains are told apart by where they end
    return replace(made, kinds=kind_of_chain[of_chain])


@final
@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts with their answers.

    Attributes:
        ids: [row, 7] token ids, the question last.
        concepts: [row, 7] concept told at each place, or -1.
        answers: [row] token id of the name, or -1 where nothing follows.
    """

    ids: Int[Tensor, "row pos"]
    concepts: Int[Tensor, "row pos"]
    answers: Int[Tensor, " row"]

    def __len__(self) -> int:
        return len(self.ids)


def chained(
    world: World, n: int, generator: torch.Generator, *, hops: int = 1, forms: tuple[int, ...] = tuple(range(FORMS))
) -> Prompts:  # fmt: skip
    """A fact of a chain, a y that is beside the point, and a question so many levels up.

    Raises:
        BadOption: more steps than there are, or none.
    """
    if not 1 <= hops < LEVELS:
        raise BadOption(f"hops={hops}", f"chains have 1 to {LEVELS - 1} steps", next_step="give one of them")
    facts = torch.randint((LEVELS - hops) * WIDTH, (n,), generator=generator)
    asked = facts // WIDTH + hops
    answers = torch.stack([world.after(facts, level) for level in range(1, LEVELS)])[asked - 1, torch.arange(n)]
    return _told(facts, _ys(n, generator), asked, NAME + answers - WIDTH, forms, generator)


def paired(world: World, n: int, generator: torch.Generator, *, taught: bool) -> Prompts:
    """A c0 and a y, and the question for what follows from both; of pairs that are taught, or not."""
    some = (world.taught_pairs == taught).nonzero()
    c, y = some[torch.randint(len(some), (n,), generator=generator)].unbind(1)
    names = NAME + (LEVELS - 1) * WIDTH + world.pairs[c, y]
    return _told(c, N_CHAINED + y, torch.full((n,), PAIR), names, tuple(range(FORMS)), generator)


def kinds(world: World, n: int, generator: torch.Generator, *, taught: bool) -> Prompts:
    """A fact of a chain, a y, and the question for its kind; of concepts whose kind is taught, or not."""
    some = (world.taught_kinds == taught).nonzero()[:, 0]
    facts = some[torch.randint(len(some), (n,), generator=generator)]
    names = NAME + LEVELS * WIDTH + world.kinds[facts]
    return _told(facts, _ys(n, generator), torch.full((n,), KIND), names, tuple(range(FORMS)), generator)


def idle(n: int, generator: torch.Generator) -> Prompts:
    """A y alone, and the question of a level: nothing follows."""
    asked = torch.randint(1, LEVELS, (n,), generator=generator)
    nothing = torch.full((n,), NONE)
    return _told(nothing, _ys(n, generator), asked, nothing, tuple(range(FORMS)), generator)


def stated(n: int, generator: torch.Generator, forms: tuple[int, ...] = tuple(range(FORMS))) -> Prompts:
    """Any fact of a chain, a y, and any question: to read states of, without an answer."""
    facts = torch.randint(N_CHAINED, (n,), generator=generator)
    asked = torch.randint(1, QUESTIONS + 1, (n,), generator=generator)
    return _told(facts, _ys(n, generator), asked, torch.full((n,), NONE), forms, generator)


def lessons(world: World, n: int, generator: torch.Generator) -> Prompts:
    """What the model is taught: three fifths single steps, one fifth pairs, one fifth kinds."""
    few = n // 5
    parts = (
        chained(world, n - 2 * few, generator), paired(world, few, generator, taught=True),
        kinds(world, few, generator, taught=True),
    )  # fmt: skip
    return Prompts(*(torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "concepts", "answers")))


def _ys(n: int, generator: torch.Generator) -> Int[Tensor, " row"]:
    return N_CHAINED + torch.randint(WIDTH, (n,), generator=generator)


def _told(
    facts: Int[Tensor, " row"], ys: Int[Tensor, " row"], asked: Int[Tensor, " row"], answers: Int[Tensor, " row"],
    forms: tuple[int, ...], generator: torch.Generator,
) -> Prompts:  # fmt: skip
    n = len(facts)
    places = torch.rand(n, PLACES, generator=generator).argsort(1)[:, :2]
    told = torch.full((n, PLACES), NONE).scatter(1, places, torch.stack([facts, ys], 1))
    form = torch.tensor(forms)[torch.randint(len(forms), (n, PLACES), generator=generator)]
    fillers = N_WORDS + torch.randint(N_FILLERS, (n, PLACES), generator=generator)
    words = torch.where(told == NONE, fillers, told * FORMS + form)
    end = (ASK + asked - 1)[:, None]
    return Prompts(torch.cat([words, end], 1), torch.cat([told, torch.full((n, 1), NONE)], 1), answers)


def rule_texts(world: World, name: int) -> tuple[str, ...]:
    """The rules from which the proposition `say` of one name follows, over concepts c0_3, y2 and questions ask1 ... ask7."""
    level, number = divmod(name, WIDTH)
    if name >= LEVELS * WIDTH:
        of_kind = [label(ix) for ix, kind in enumerate(world.kinds.tolist()) if kind == name - LEVELS * WIDTH]
        return f"{' or '.join(of_kind)} -> kind", f"kind and ask{KIND} -> say"
    if level == LEVELS - 1:
        both = (world.pairs == number).nonzero().tolist()
        return tuple(f"{label(c)} and {label(N_CHAINED + y)} and ask{PAIR} -> say" for c, y in both)
    return *_steps_to(world, level + 1, number), f"c{level + 1}_{number} and ask{level + 1} -> say"


def _steps_to(world: World, level: int, number: int) -> tuple[str, ...]:
    """Single steps, from level 0 up to a concept."""
    found: list[str] = []
    for below in reversed(range(level)):
        before = int((world.steps[below] == number).nonzero()[0])
        found.insert(0, f"c{below}_{before} -> c{below + 1}_{number}")
        number = before
    return tuple(found)


def label(concept: int) -> str:
    """The name of a concept's proposition."""
    return f"c{concept // WIDTH}_{concept % WIDTH}" if concept < N_CHAINED else f"y{concept - N_CHAINED}"


def propositions(prompts: Prompts) -> Int[Tensor, "row pos"]:
    """What is told at each place: a concept, N_CONCEPTS and up for a question, or -1."""
    found = prompts.concepts.clone()
    found[:, -1] = N_CONCEPTS + prompts.ids[:, -1] - ASK
    return found


def network(random_seed: int, *, d_model: int = 64) -> Model:
    """A GPT-2-like transformer of two layers with learned positions, untrained."""
    return as_model(build(Spec(2, 4, d_model, VOCAB, PLACES + 1, d_mlp=4 * d_model), random_seed, init="lecun"))


def loss(model: Model, prompts: Prompts) -> Tensor:
    """Mean cross-entropy of the names, in nats."""
    return cross_entropy(model(prompts.ids, logits_to_keep=1).logits[:, -1], prompts.answers)


@torch.no_grad()
def said(model: Model, prompts: Prompts) -> Int[Tensor, " row"]:
    """The likeliest token after each question. Gates that are held act."""
    logits: Float[Tensor, "row pos vocab"] = model(prompts.ids).logits
    return logits[:, -1].argmax(-1)


def accuracy(model: Model, prompts: Prompts) -> float:
    """Share of right answers."""
    return float((said(model, prompts) == prompts.answers).double().mean())
