"""Training by reward: answers are sampled within the loss, and better ones than their group's become likelier.

GRPO (Shao et al., arXiv 2402.03300) with one update for each batch of answers, so that the ratio of probabilities is 1 where
its gradient is taken and clipping never acts. Symbols: G = `group`, A = `advantages`, beta = `kl`, pi_ref = `reference`.

    plan = op.train.Plan("reward", make, batch, reward_loss(is_right, n_new=1), n_steps=500, ...)

with `batch(index, generator)` returning `Questions`. What `fit` logs as the loss is minus the mean reward of the answers
sampled in the step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.train.plan import Loss

Reward = Callable[[Tensor, Tensor], Tensor]
"""(answers [row, new], what is wanted [row, ...]) -> reward [row]."""

_LEAST_SPREAD: Final = 1e-6


@final
@dataclass(frozen=True, eq=False)
class Questions:
    """A batch for `reward_loss`.

    Attributes:
        prompts: [row, pos] token ids, all rows of one length.
        wanted: [row, ...] what the reward needs to know of each row: the right answer, say.
    """

    prompts: Int[Tensor, "row pos"]
    wanted: Tensor


def reward_loss(
    reward: Reward, *, n_new: int = 1, group: int = 8, temperature: float = 1.0, is_normed: bool = True,
    reference: Model | None = None, kl: float = 0.0, end: int | None = None,
) -> Loss:  # fmt: skip
    """Policy gradient with group-relative advantages: a loss for `op.train.Plan` over batches of `Questions`.

    Its gradient is that of -mean over answers of [A mean over tokens log pi(token)] + kl KL(pi || pi_ref), its value minus
    the mean reward (plus the KL term). Answers are sampled with torch's global random numbers, which `fit` seeds.

    Args:
        reward: of each sampled answer; anything that can be checked.
        n_new: tokens of an answer.
        group: answers sampled to each question, among which advantages are relative.
        temperature: of sampling, and of the policy whose gradient is taken.
        is_normed: advantages are divided by the standard deviation of the group's rewards.
        reference: model that the policy is held to, usually the one it started from; its weights stay as they are.
        kl: strength of that hold; beta.
        end: token after which nothing counts; None for answers of `n_new` tokens throughout.

    Raises:
        BadOption: fewer than two answers to a question, no token, a temperature of 0, or a hold without a reference.
    """
    _check(n_new, group, temperature, reference, kl)

    def loss(model: Model, batch: Questions) -> Tensor:
        prompts, wanted = (part.repeat_interleave(group, 0) for part in (batch.prompts, batch.wanted))
        answers = sample(model, prompts, n_new, temperature=temperature, end=end)
        rewards = reward(answers, wanted).to(model.dtype)
        counts = is_counted(answers, end).to(model.dtype)
        chosen = answer_logprobs(model, prompts, answers, temperature)
        good = advantages(rewards.unflatten(0, (-1, group)), is_normed=is_normed).flatten()
        gain = _per_answer(chosen * good[:, None], counts)
        total = gain.detach() - gain - rewards.mean()
        if reference is None or kl == 0:
            return total
        with torch.no_grad():
            kept = answer_logprobs(reference, prompts, answers, temperature)
        return total + kl * _per_answer((kept - chosen).exp() - (kept - chosen) - 1, counts)

    return loss


@torch.no_grad()
def sample(
    model: Model, prompts: Int[Tensor, "row pos"], n_new: int, *, temperature: float = 1.0, end: int | None = None
) -> Int[Tensor, "row new"]:
    """Answers drawn token by token with torch's global random numbers; temperature 0 takes the likeliest.

    Args:
        end: token that ends an answer: all later tokens are `end` too.
    """
    answers = prompts[:, :0]
    for _ in range(n_new):
        logits = model(torch.cat([prompts, answers], 1), logits_to_keep=1).logits[:, -1]
        drawn = _drawn(logits, temperature)
        if end is not None and answers.shape[1]:
            drawn = torch.where(answers[:, -1:] == end, end, drawn)
        answers = torch.cat([answers, drawn], 1)
    return answers


def answer_logprobs(
    model: Model, prompts: Int[Tensor, "row pos"], answers: Int[Tensor, "row new"], temperature: float = 1.0
) -> Float[Tensor, "row new"]:
    """Log-probability of each token of the answers, with its gradient."""
    n_new = answers.shape[1]
    logits = model(torch.cat([prompts, answers[:, :-1]], 1), logits_to_keep=n_new).logits
    logprobs: Tensor = (logits / temperature).log_softmax(-1)
    return logprobs.gather(-1, answers[..., None])[..., 0]


def advantages(rewards: Float[Tensor, "question group"], *, is_normed: bool = True) -> Float[Tensor, "question group"]:
    """Reward minus the mean of its group, over the group's standard deviation; 0 where all rewards of a group are equal.

    Without the division they are those of Dr. GRPO (Liu et al., arXiv 2503.20783).
    """
    above = rewards - rewards.mean(1, keepdim=True)
    if not is_normed:
        return above
    spread = rewards.std(1, keepdim=True, correction=0)
    return torch.where(spread > _LEAST_SPREAD, above / spread.clamp(min=_LEAST_SPREAD), 0.0)


def is_counted(answers: Int[Tensor, "row new"], end: int | None) -> Bool[Tensor, "row new"]:
    """True at the tokens of each answer up to and with its first `end`."""
    if end is None:
        return torch.ones_like(answers, dtype=torch.bool)
    ended = (answers == end).long().cumsum(1)
    return (ended == 0) | ((ended == 1) & (answers == end))


def exact_match(answers: Int[Tensor, "row new"], wanted: Int[Tensor, "row new"]) -> Float[Tensor, " row"]:
    """Reward 1 where every token of the answer is the wanted one, else 0."""
    return (answers == wanted).all(1).float()


def _drawn(logits: Float[Tensor, "row vocab"], temperature: float) -> Int[Tensor, "row 1"]:
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1)


def _per_answer(values: Float[Tensor, "row new"], counts: Float[Tensor, "row new"]) -> Tensor:
    """Mean over answers of the mean over the tokens that count."""
    return ((values * counts).sum(1) / counts.sum(1)).mean()


def _check(n_new: int, group: int, temperature: float, reference: Model | None, kl: float) -> None:
    asked = f"reward_loss(n_new={n_new}, group={group}, temperature={temperature:g}, kl={kl:g})"
    if n_new < 1 or group < 2:
        found = "an answer has a token at least, and advantages are relative to another answer"
        raise BadOption(asked, found, next_step="give n_new=1 and group=2, or more")
    if temperature <= 0:
        found = "without chance all answers to a question are one"
        raise BadOption(asked, found, next_step="give a temperature above 0, 1 usually")
    if kl < 0 or kl > 0 and reference is None:
        found = "the policy is held to a reference, with a strength of at least 0"
        raise BadOption(asked, found, next_step="give reference= and kl=0.02, say, or neither")
