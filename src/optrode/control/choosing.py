"""Choose a layer and a dose on validation prompts: the best score that language can afford.

The whole table is kept, as the best of many is better than it is: report the choice on other prompts than it was made on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from optrode.control.direction import Direction
from optrode.control.dose import GatesAt
from optrode.control.rollout import Prompt, Rollout, roll_out
from optrode.errors import BadOption, NoneAllowed
from optrode.model.model import Model

Score = Callable[[Sequence[str | tuple[int, ...]]], Sequence[float]]
"""Answers (texts, or token ids where the model has no tokenizer) -> one number for each, higher is better."""

DOSES: Final = (0.1, 0.2, 0.3, 0.4)


@final
@dataclass(frozen=True)
class Tried:
    """One candidate at one dose.

    Attributes:
        name: of the candidate; "plain" for no gate.
        dose: as the candidate takes it.
        score: mean over the prompts' answers.
        nll: per token of the answers, under the model without gates, in nats.
        d_nll: nll minus that of the plain answers.
        repeated: share of bigrams that occurred before in their answer, mean over answers.
        is_allowed: whether the limits are kept.
    """

    name: str
    dose: float
    score: float
    nll: float
    d_nll: float
    repeated: float
    is_allowed: bool


@final
@dataclass(frozen=True)
class Choice:
    """What was tried, and what is best of it.

    Attributes:
        table: every candidate at every dose, in the order tried.
        plain: the model without gates.
        max_d_nll, max_repeated: the limits.
        n_prompts: how many prompts were answered.
    """

    table: tuple[Tried, ...]
    plain: Tried
    max_d_nll: float
    max_repeated: float
    n_prompts: int

    @property
    def best(self) -> Tried:
        """Of those that keep the limits the one of the best score; among equals the one of the smallest dose.

        Raises:
            NoneAllowed: none keeps them; the message says which came closest.
        """
        allowed = [one for one in self.table if one.is_allowed]
        if not allowed:
            close = min(self.table, key=lambda one: (one.repeated > self.max_repeated, one.d_nll))
            found = f"none of {len(self.table)} costs at most {self.max_d_nll:g} nats a token and repeats at most "
            found += f"{self.max_repeated:g} of its bigrams"
            near = f"{close.name} at dose {close.dose:g} costs {close.d_nll:.2f} nats and repeats {close.repeated:.2f}"
            raise NoneAllowed("the best layer and dose", found, nearest=(near,), next_step="try smaller doses, other sites")
        return max(allowed, key=lambda one: (one.score, -abs(one.dose)))


def choose(
    model: Model, candidates: Sequence[Direction] | Mapping[str, GatesAt], prompts: Sequence[Prompt], score: Score, *,
    doses: Sequence[float] = DOSES, max_d_nll: float = 0.3, max_repeated: float = 0.3, n_tokens: int = 32,
    progress: Callable[[str, int, int], None] = lambda name, done, of: None, **options: Any,
) -> Choice:  # fmt: skip
    """Answer validation prompts greedily with each candidate at each dose.

    Args:
        candidates: directions, named by their sites, or anything that turns a dose into gates, by name.
        score: of answers, higher is better.
        doses: relative to the typical norm, for directions; negative ones go the other way.
        max_d_nll: how much likelier a plain answer's token may be, in nats, to the model without gates.
        max_repeated: how many bigrams an answer may repeat: loops are likely, and so not told by likelihood.
        n_tokens: of each answer.
        progress: called with the candidate's name, the trials done and their number.
        options: of the directions' gates, such as scope.

    Raises:
        BadOption: no candidate or dose, dose 0, a dose that is not finite, two directions of one name, or a score that
            does not give one finite number for each answer.
        GateError: as `op.gates`.
    """
    named = candidates if isinstance(candidates, Mapping) else _named(candidates, options)
    _check(named, doses)
    plain = _tried(model, "plain", 0.0, roll_out(model, prompts, (), n_tokens), score, None, (max_d_nll, max_repeated))
    table: list[Tried] = []
    for name, gates_at in named.items():
        for dose in doses:
            rolled = roll_out(model, prompts, gates_at(dose), n_tokens)
            table.append(_tried(model, name, dose, rolled, score, plain, (max_d_nll, max_repeated)))
            progress(name, len(table), len(named) * len(doses))
    return Choice(tuple(table), plain, max_d_nll, max_repeated, len(prompts))


def _named(found: Sequence[Direction], options: Mapping[str, Any]) -> dict[str, GatesAt]:
    names = [one.site for one in found]
    if len(set(names)) < len(names):
        names = [f"{one.site} by {one.method}" for one in found]
    if len(set(names)) < len(names):
        step = "give a mapping from names to functions of the dose"
        raise BadOption("candidates", "two have one site and method", next_step=step)
    return {name: _gates_at(one, options) for name, one in zip(names, found, strict=True)}


def _gates_at(direction: Direction, options: Mapping[str, Any]) -> GatesAt:
    return lambda dose: (direction.gate(dose, **options),)


def _check(named: Mapping[str, GatesAt], doses: Sequence[float]) -> None:
    if not named or not doses:
        found = f"{len(named)} candidates and {len(doses)} doses"
        raise BadOption("choosing a layer and dose", found, next_step="give at least one of each")
    bad = [dose for dose in doses if not math.isfinite(dose) or dose == 0]
    if bad:
        found = "the model without gates is always tried" if bad[0] == 0 else "not a finite number"
        raise BadOption(f"dose {bad[0]}", found, next_step="leave it out")


def _tried(
    model: Model, name: str, dose: float, rolled: Rollout, score: Score, plain: Tried | None, limits: tuple[float, float]
) -> Tried:
    answers = [ids if model.tokenizer is None else _text(model, ids) for ids in rolled.answers]
    scores = [float(value) for value in score(answers)]
    if len(scores) != len(answers) or not all(map(math.isfinite, scores)):
        found = f"it gave {len(scores)} numbers for {len(answers)} answers"
        if len(scores) == len(answers):
            found = "a score is NaN or infinite"
        raise BadOption(f"the score of {name}", found, next_step="give one finite number for each answer")
    nll = rolled.mean_nll
    d_nll = 0.0 if plain is None else nll - plain.nll
    repeated = sum(rolled.repeated) / len(answers)
    is_allowed = d_nll <= limits[0] and repeated <= limits[1]
    return Tried(name, dose, sum(scores) / len(scores), nll, d_nll, repeated, is_allowed)


def _text(model: Model, ids: Sequence[int]) -> str:
    return str(model.tokenizer.decode(ids, skip_special_tokens=True))
