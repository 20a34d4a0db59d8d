"""Metrics: pure functions of logits, one value per prompt, higher is better, differentiable where it makes sense."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.errors import BadOption, nearest
from optrode.trial.prompts import Pair

Function = Callable[..., Float[Tensor, " batch"]]
"""(logits [batch, read, vocab], pairs) -> [batch]; where `against` is set, plain logits come third."""


@dataclass(frozen=True)
class Metric:
    """A named function of the logits at the positions that it reads.

    Attributes:
        name, unit: for tables and plots.
        function: (logits [batch, read, vocab], pairs) -> [batch].
        reads_targets: read the logits at the pairs' target positions; otherwise only those of the last token.
        columns: the token ids whose logits are all that it reads for a pair; None for the whole vocabulary.
        against: the function also gets the plain logits of this world ("clean", "corrupt") at the same positions.
    """

    name: str
    unit: str
    function: Function
    reads_targets: bool = False
    columns: Callable[[Pair], tuple[int, ...]] | None = None
    against: str | None = None

    def positions(self, pair: Pair) -> tuple[int, ...]:
        """Positions whose logits it reads; the same for all pairs of a group of equal length."""
        return tuple(pos for pos, _ in targets(pair)) if self.reads_targets else (pair.length - 1,)


def targets(pair: Pair) -> tuple[tuple[int, int], ...]:
    """A pair's targets, by default its first right answer at the last position."""
    return pair.targets or ((pair.length - 1, pair.right[0]),)


def logit_gap(logits: Float[Tensor, "batch read vocab"], pairs: Sequence[Pair]) -> Float[Tensor, " batch"]:
    """Mean logit of the right answers minus mean logit of the wrong ones, after the last token."""
    last = logits[:, -1]
    return torch.stack([row[list(p.right)].mean() - row[list(p.wrong)].mean() for row, p in zip(last, pairs, strict=True)])


def prob_gap(logits: Float[Tensor, "batch read vocab"], pairs: Sequence[Pair]) -> Float[Tensor, " batch"]:
    """Summed probability of the right answers minus that of the wrong ones (Hanna et al., arXiv 2305.00586)."""
    probs = logits[:, -1].softmax(-1)
    return torch.stack([row[list(p.right)].sum() - row[list(p.wrong)].sum() for row, p in zip(probs, pairs, strict=True)])


def kl(
    logits: Float[Tensor, "batch read vocab"], pairs: Sequence[Pair], plain: Float[Tensor, "batch read vocab"]
) -> Float[Tensor, " batch"]:
    """Minus the divergence KL(clean run || gated run) of the next-token distributions, mean over positions, in nats."""
    wanted, found = plain.log_softmax(-1), logits.log_softmax(-1)
    return -(wanted.exp() * (wanted - found)).sum(-1).mean(-1)


def accuracy(logits: Float[Tensor, "batch read vocab"], pairs: Sequence[Pair]) -> Float[Tensor, " batch"]:
    """1 where the model is right (`is_right`), else 0."""
    return torch.tensor(is_right(logits, pairs), dtype=logits.dtype, device=logits.device)


def logprob(logits: Float[Tensor, "batch read vocab"], pairs: Sequence[Pair]) -> Float[Tensor, " batch"]:
    """Mean log-probability of the target tokens, in nats: the negative loss."""
    wanted = torch.tensor([[token for _, token in targets(pair)] for pair in pairs], device=logits.device)
    return logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0].mean(-1)


def _answers(pair: Pair) -> tuple[int, ...]:
    return (*pair.right, *pair.wrong)


METRICS: Final = {
    "logit_gap": Metric("logit_gap", "logits", logit_gap, columns=_answers),
    "prob_gap": Metric("prob_gap", "probability", prob_gap),
    "logprob": Metric("logprob", "nats", logprob, reads_targets=True),
    "kl": Metric("kl", "nats", kl, against="clean"),
    "accuracy": Metric("accuracy", "share right", accuracy),
}


def narrowed(metric: Metric, pairs: Sequence[Pair]) -> tuple[tuple[int, ...] | None, tuple[Pair, ...]]:
    """The columns of the logits that a metric needs for these pairs, and the pairs with token ids counted in them."""
    if metric.columns is None:
        return None, tuple(pairs)
    wanted = tuple(sorted({token for pair in pairs for token in metric.columns(pair)}))
    at = {token: ix for ix, token in enumerate(wanted)}
    return wanted, tuple(
        replace(pair, right=tuple(at[t] for t in pair.right), wrong=tuple(at[t] for t in pair.wrong)) for pair in pairs
    )


def measure(metric: Metric, logits: Tensor, pairs: Sequence[Pair], plain: Tensor | None = None) -> Float[Tensor, " batch"]:
    """[batch] the metric; `plain` is needed where it measures against a plain run."""
    extra: tuple[Any, ...] = () if metric.against is None else (plain,)
    return metric.function(logits, pairs, *extra)


def find_metric(metric: str | Metric) -> Metric:
    """The metric of a name; a `Metric` of the caller's own passes through.

    Raises:
        BadOption: no metric has this name.
    """
    if isinstance(metric, Metric):
        return metric
    if metric not in METRICS:
        raise BadOption(f"metric {metric!r}", "no such metric", nearest=nearest(metric, METRICS) or tuple(METRICS))
    return METRICS[metric]


def is_right(logits: Float[Tensor, "batch read vocab"], pairs: Sequence[Pair]) -> tuple[bool, ...]:
    """Whether the model does the task on each prompt.

    With wrong answers given: the best right answer beats the best wrong one. Without: the target tokens are the model's
    first choice at half of the target positions at least.
    """
    return tuple(_is_right(row, pair) for row, pair in zip(logits.detach(), pairs, strict=True))


def _is_right(row: Float[Tensor, "read vocab"], pair: Pair) -> bool:
    if pair.wrong:
        return bool(row[-1, list(pair.right)].max() > row[-1, list(pair.wrong)].max())
    wanted = torch.tensor([token for _, token in targets(pair)], device=row.device)
    return bool((row.argmax(-1) == wanted).float().mean() >= 0.5)
