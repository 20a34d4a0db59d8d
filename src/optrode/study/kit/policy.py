"""A tiny policy that answers questions out of a book, and is tuned by reward or by example from the same pretrained weights.

A question reads "a b =" and has one right answer among `n` numbers; no rule connects questions, so that the book is learnt
by heart. Pretraining gives the right answer half of the time and either of two wrong ones else, so that a policy knows the
right answer and is at a reward of 1/2: what reward can then sharpen. Tuning reaches the blocks' matrices alone.

    book = policy.write(12, generator)
    base = policy.pretrain(book, size, random_seed=0)
    tuned = policy.tune(book, size, base, "reward", random_seed=1)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, final, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.nn.spec import Spec
from optrode.nn.transformer import as_model, build
from optrode.study.kit.reward import Questions, exact_match, reward_loss
from optrode.train.loop import fit
from optrode.train.masks import random_rotation
from optrode.train.plan import Loss, Measure, Plan, Stop, adam, adamw, evenly
from optrode.train.records import Series

Way = Literal["reward", "example"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)
Weights = Mapping[str, Tensor]
N_WRONG: Final = 2


@final
@dataclass(frozen=True, eq=False)
class Book:
    """Questions and answers; the four answers to a question all differ.

    Attributes:
        questions: [question, 3] "a b =", token ids 0 to n - 1, and n for "=".
        right: [question] right answers.
        wrong: [question, 2] what pretraining says as well.
        other: [question] answers of another book, which pretraining never saw.
    """

    questions: Int[Tensor, "question 3"]
    right: Int[Tensor, " question"]
    wrong: Int[Tensor, "question wrong"]
    other: Int[Tensor, " question"]

    @property
    def n_numbers(self) -> int:
        """Numbers that can stand in a question or be an answer."""
        return int(self.questions[0, 2])


@final
@dataclass(frozen=True)
class Size:
    """Of a policy, and of its training.

    Attributes:
        d_model, n_layers, n_heads: of the transformer; its MLP is four times as wide.
        n_pretrain: steps of pretraining on `rows` answers each.
        n_questions: in a batch of tuning.
        group: answers to each question that reward compares.
        most_steps: of tuning, if the reward is not reached before.
        every: steps between two looks at the reward.
        wanted: reward at which tuning ends.
    """

    d_model: int = 64
    n_layers: int = 3
    n_heads: int = 4
    n_pretrain: int = 800
    rows: int = 128
    n_questions: int = 32
    group: int = 8
    most_steps: int = 1500
    every: int = 5
    wanted: float = 0.9
    lr: float = 3e-4


@final
@dataclass(frozen=True, eq=False)
class Tuned:
    """A policy after tuning.

    Attributes:
        weights: of all its parameters.
        n_steps: that it took.
        reward: mean probability of the wanted answer over all questions, by step.
    """

    weights: Weights
    n_steps: int
    reward: Series


@final
@dataclass(frozen=True, eq=False)
class Tuning:
    """How a tuning run departs from the usual one.

    Attributes:
        is_other: towards the answers of the other book.
        n_steps: exactly so many, whatever the reward.
        masks: parameter -> the weights of it that may change.
    """

    is_other: bool = False
    n_steps: int | None = None
    masks: Mapping[str, Bool[Tensor, "row column"]] = field(default_factory=dict)


def write(n_numbers: int, generator: torch.Generator) -> Book:
    """A book of n^2 questions with answers drawn at random.

    Raises:
        BadOption: fewer numbers than a question has answers.
    """
    n_answers = N_WRONG + 2
    if n_numbers < n_answers:
        found = f"a question has {n_answers} answers that all differ"
        raise BadOption(f"a book of {n_numbers} numbers", found, next_step=f"give {n_answers} or more")
    pairs = torch.cartesian_prod(torch.arange(n_numbers), torch.arange(n_numbers))
    questions = torch.cat([pairs, torch.full((len(pairs), 1), n_numbers)], 1)
    answers = torch.rand(len(pairs), n_numbers, generator=generator).argsort(1)[:, :n_answers]
    return Book(questions, answers[:, 0], answers[:, 1:-1], answers[:, -1])


def network(book: Book, size: Size, weights: Weights | None = None, random_seed: int = 0) -> Model:
    """A policy with fresh weights, or with given ones."""
    spec = Spec(
        n_layers=size.n_layers, n_heads=size.n_heads, d_model=size.d_model, vocab=book.n_numbers + 1, n_ctx=3,
        d_mlp=4 * size.d_model, norm="rms", positions="learned", has_bias=False,
    )  # fmt: skip
    module = build(spec, random_seed, init="torch")
    if weights is not None:
        module.load_state_dict(dict(weights))
    return as_model(module, "policy")


def matrices(weights: Weights) -> tuple[str, ...]:
    """Names of the blocks' matrices: those that are tuned and looked at."""
    return tuple(name for name, weight in weights.items() if name.startswith("blocks.") and weight.dim() == 2)


def pretrain(book: Book, size: Size, random_seed: int = 0) -> Weights:
    """Weights of a policy that learnt the book, wrong answers and all, with weight decay."""

    def batch(index: int, _: torch.Generator) -> Questions:
        numbers = _numbers(random_seed, index)
        which = torch.randint(len(book.right), (size.rows,), generator=numbers)
        is_right = torch.rand(size.rows, generator=numbers) < 0.5
        wrong = book.wrong[which, torch.randint(N_WRONG, (size.rows,), generator=numbers)]
        return Questions(book.questions[which], torch.where(is_right, book.right[which], wrong)[:, None])

    plan = Plan(
        "pretraining", lambda seed: network(book, size, None, seed), batch, example_loss, size.n_pretrain,
        adamw(3e-3, weight_decay=0.3), random_seed=random_seed,
    )  # fmt: skip
    return _weights(fit(plan).model)


def tune(
    book: Book, size: Size, start: Weights, way: str, random_seed: int, how: Tuning = Tuning()  # noqa: B008
) -> Tuned:
    """A policy tuned from pretrained weights, until the mean reward passes what is wanted or for a number of steps.

    Args:
        way: "reward" samples answers and makes the better ones likelier, "example" is shown the right ones.
        random_seed: of the questions, and of the answers that are sampled.

    Raises:
        BadOption: no such way.
    """
    if way not in WAYS:
        raise BadOption(f"tuning by {way!r}", "no such way", nearest=nearest(way, WAYS) or WAYS)
    wanted = book.other if how.is_other else book.right

    def batch(index: int, _: torch.Generator) -> Questions:
        which = torch.randint(len(wanted), (size.n_questions,), generator=_numbers(random_seed, index))
        return Questions(book.questions[which], wanted[which, None])

    loss: Loss = reward_loss(exact_match, group=size.group) if way == "reward" else example_loss
    plan = Plan(
        f"tuning by {way}", lambda _: _tunable(network(book, size, start), how.masks), batch, loss,
        how.n_steps or size.most_steps, adam(size.lr), measures={"reward": Measure(expected_reward(book, wanted))},
        measure_at=evenly(how.n_steps or size.most_steps, size.every), random_seed=random_seed,
        stop=Stop("reward", above=size.wanted) if how.n_steps is None else None,
    )  # fmt: skip
    ran = fit(plan)
    return Tuned(_weights(ran.model), ran.run.n_steps, ran.run.measures["reward"])


def example_loss(model: Model, batch: Questions) -> Float[Tensor, ""]:
    """Mean cross-entropy of the wanted answers, in nats."""
    return cross_entropy(model(batch.prompts, logits_to_keep=1).logits[:, -1], batch.wanted[:, 0])


def expected_reward(book: Book, wanted: Int[Tensor, " question"]) -> Callable[[Model], float]:
    """Mean probability of the wanted answer over all questions: what a sampled answer earns on average."""

    @torch.no_grad()
    def measure(model: Model) -> float:
        chances = model(book.questions, logits_to_keep=1).logits[:, -1].softmax(-1)
        return float(chances.gather(1, wanted[:, None]).mean())

    return measure


def turned(weights: Weights, layer: int, n_heads: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The same policy with the heads of one layer in other coordinates: q and k, and v and what reads it, turned alike.

    What the network computes stays as it is, since scores and head outputs do not depend on the coordinates; where its
    weights are large does not.
    """
    found = dict(weights)
    q, k, v, o = (f"blocks.{layer}.attn.{part}.weight" for part in "qkvo")
    width = found[q].shape[0] // n_heads
    for first, second in ((q, k), (v, o)):
        turn = torch.block_diag(*(random_rotation(width, generator) for _ in range(n_heads)))
        found[first] = (turn @ found[first].double()).to(found[first].dtype)
        moved = found[second].double()
        found[second] = (turn @ moved if second == k else moved @ turn.T).to(found[second].dtype)
    return found


def _numbers(random_seed: int, index: int) -> torch.Generator:
    """Random numbers of one batch of one run."""
    return torch.Generator().manual_seed((random_seed << 16) + index)


def _tunable(model: Model, masks: Mapping[str, Bool[Tensor, "row column"]]) -> Model:
    """The model with only the blocks' matrices to learn, and of them what a mask leaves free."""
    names = matrices(model.module.state_dict())
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(name in names)
        if name in masks:
            parameter.register_hook(masks[name].to(parameter.dtype).mul)
    return model


def _weights(model: Model) -> Weights:
    return {name: weight.detach().clone() for name, weight in model.module.state_dict().items()}
