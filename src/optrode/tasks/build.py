"""From drafts in text to a checked Task: encode, drop what is not usable and say why, test the model on it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from optrode.errors import BadOption, NoPairs, TaskTooHard
from optrode.model.model import Model
from optrode.trial.metric import find_metric
from optrode.trial.prompts import Ability, Dropped, Pair, Task
from optrode.trial.run import Bench

_SLOT = re.compile(r"\{(\w+)\}")
_MAX_DRAFTS_PER_PAIR: Final = 50

NOT_ONE_TOKEN: Final = "an answer is not one token"
UNEQUAL: Final = "clean and corrupt have unequal numbers of tokens"
SAME_ANSWER: Final = "a right answer is also a wrong one"
REPEATED: Final = "the same pair was drawn before"
DEGENERATE: Final = "the metric is the same in both worlds"


@dataclass(frozen=True, slots=True)
class Draft:
    """A pair in text.

    Attributes:
        template: text with {slots}; each slot's position becomes a mark of the same name.
        clean, corrupt: slot -> text, with the leading space that belongs to it.
        right, wrong: answers, with their leading space.
    """

    template: str
    clean: Mapping[str, str]
    corrupt: Mapping[str, str]
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a task is, besides its pairs.

    Attributes:
        require_accuracy: the least share of clean prompts that the model must do; 0 lets every model through.
    """

    name: str
    description: str
    metric: str
    n: int
    random_seed: int
    require_accuracy: float = 0.7


def task_from_drafts(model: Model, plan: Plan, drafts: Iterable[Draft]) -> Task:
    """Encode drafts until there are `plan.n` usable pairs, then test the model.

    Raises:
        NoPairs: no draft was usable; the message counts the reasons.
        TaskTooHard: the model's accuracy is below `plan.require_accuracy`.
    """
    return checked_task(model, plan, (pair_from_draft(model, draft) for draft in drafts))


def checked_task(model: Model, plan: Plan, candidates: Iterable[Pair | str]) -> Task:
    """Collect usable pairs (a text among the candidates is the reason why one is not), then test the model."""
    if plan.n < 1:
        raise BadOption(f"task {plan.name} with n={plan.n}", "a task has at least one pair", next_step="give n=1 or more")
    pairs, dropped = _collect(plan, candidates)
    if not pairs:
        raise NoPairs(f"task {plan.name}", _reasons(dropped), next_step="check the prompts against this tokenizer")
    task = Task(plan.name, plan.description, plan.metric, tuple(pairs), plan.random_seed)
    return _tested(model, task, plan, dropped)


def pair_from_draft(model: Model, draft: Draft) -> Pair | str:
    """The pair of a draft, or the reason why it cannot be used."""
    clean, corrupt = (_encode(model, draft.template, slots) for slots in (draft.clean, draft.corrupt))
    right, wrong = (tuple(map(model.to_single_token, answers)) for answers in (draft.right, draft.wrong))
    if None in right or None in wrong:
        return NOT_ONE_TOKEN
    if len(clean) != len(corrupt):
        return UNEQUAL
    if set(right) & set(wrong):
        return SAME_ANSWER
    return Pair(
        clean=clean, corrupt=corrupt,
        right=tuple(i for i in right if i is not None), wrong=tuple(i for i in wrong if i is not None),
        clean_tokens=model.to_str_tokens(clean), corrupt_tokens=model.to_str_tokens(corrupt),
        right_tokens=draft.right, wrong_tokens=draft.wrong,
        marks=_marks(model, draft) | {"end": len(clean) - 1},
    )  # fmt: skip


def _encode(model: Model, template: str, slots: Mapping[str, str]) -> tuple[int, ...]:
    return tuple(int(i) for i in model.to_tokens(template.format(**slots))[0])


def _marks(model: Model, draft: Draft) -> dict[str, int]:
    """Position of each slot's first token: the number of tokens before it."""
    marks = {}
    for slot in _SLOT.finditer(draft.template):
        before = draft.template[: slot.start()].format(**draft.clean)
        marks[slot.group(1)] = model.to_tokens(before).shape[1] if before else 0
    return marks


def _collect(plan: Plan, candidates: Iterable[Pair | str]) -> tuple[list[Pair], Counter[str]]:
    pairs: dict[tuple[tuple[int, ...], ...], Pair] = {}
    dropped: Counter[str] = Counter()
    for n_seen, pair in enumerate(candidates):
        if len(pairs) == plan.n or n_seen >= plan.n * _MAX_DRAFTS_PER_PAIR:
            break
        if isinstance(pair, str):
            dropped[pair] += 1
        elif (pair.clean, pair.corrupt) in pairs:
            dropped[REPEATED] += 1
        else:
            pairs[pair.clean, pair.corrupt] = pair
    return list(pairs.values()), dropped


def _tested(model: Model, task: Task, plan: Plan, dropped: Counter[str]) -> Task:
    bench = Bench(model, task)
    clean, corrupt = bench.base("clean"), bench.base("corrupt")
    kept = [ix for ix in range(len(task)) if clean[ix] != corrupt[ix]]
    dropped[DEGENERATE] += len(task) - len(kept)
    if not kept:
        step = "make clean and corrupt prompts differ in what matters"
        raise NoPairs(f"task {plan.name}", _reasons(dropped), next_step=step)
    ability = Ability(bench.accuracy("clean"), _mean(clean, kept), _mean(corrupt, kept))
    _require(model, plan, ability, len(kept))
    reasons = tuple(Dropped(reason, n) for reason, n in dropped.items() if n)
    return replace(task, pairs=tuple(task.pairs[ix] for ix in kept), dropped=reasons, ability=ability)


def _require(model: Model, plan: Plan, ability: Ability, n: int) -> None:
    does_it = ability.accuracy >= plan.require_accuracy and ability.clean > ability.corrupt
    if does_it or plan.require_accuracy <= 0:
        return
    unit = find_metric(plan.metric).unit
    raise TaskTooHard(
        f"task {plan.name} with {model.name}",
        f"on {n} pairs the model is right on {ability.accuracy:.0%} (needed {plan.require_accuracy:.0%}), "
        f"{plan.metric} {ability.clean:.3g} {unit} on clean and {ability.corrupt:.3g} on corrupt prompts "
        "(clean has to be higher)",
        next_step="there is no behaviour to explain here; choose an easier task, or pass require_accuracy=0 to go on anyway",
    )


def _reasons(dropped: Counter[str]) -> str:
    counted = ", ".join(f"{reason} ({n})" for reason, n in dropped.items() if n)
    return f"no usable pair: {counted or 'none was given'}"


def _mean(values: tuple[float, ...], kept: list[int]) -> float:
    return sum(values[ix] for ix in kept) / len(kept)
