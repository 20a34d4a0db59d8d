"""Random pairs for models that we made ourselves: those whose outputs tell the two worlds apart, and how many did not."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Final

from optrode.errors import BadOption, NoPairs
from optrode.model.model import Model
from optrode.trial.prompts import Dropped, Pair, Task
from optrode.truth.projection import SAME_OUTPUT, Prompts, is_same, outputs

REPEATED: Final = "the same pair was drawn before"
N_ROUNDS: Final = 50
"""How many times n pairs are drawn before fewer have to do; fewer times once all pairs of a round were drawn before."""


def drawn(model: Model, task: Task, candidates: Iterable[Pair], n: int) -> Task:
    """The task with the first `n` candidates whose outputs differ between the worlds; fewer where there are fewer.

    Raises:
        BadOption: `n` is less than 1.
        NoPairs: no candidate will do.
    """
    if n < 1:
        raise BadOption(f"task {task.name} with n={n}", "a task has at least one pair", next_step="give n=1 or more")
    stream, seen, kept = iter(candidates), set[Prompts](), list[Pair]()
    left_out: Counter[str] = Counter()
    for _ in range(N_ROUNDS):
        fresh = _fresh(list(islice(stream, n)), seen, left_out)
        held = outputs(model, fresh)
        for pair in fresh:
            if is_same(*held[pair.clean, pair.corrupt]):
                left_out[SAME_OUTPUT] += 1
            else:
                kept.append(pair)
        if len(kept) >= n or not fresh:
            break
    if not kept:
        step = "make prompts that differ in what the model reads"
        raise NoPairs(f"task {task.name}", f"{SAME_OUTPUT} for all {len(seen)} pairs drawn", next_step=step)
    return replace(task, pairs=tuple(kept[:n]), dropped=tuple(Dropped(why, count) for why, count in left_out.items()))


def _fresh(pairs: list[Pair], seen: set[Prompts], left_out: Counter[str]) -> list[Pair]:
    """Pairs that were not drawn before."""
    found = []
    for pair in pairs:
        key = (pair.clean, pair.corrupt)
        if key in seen:
            left_out[REPEATED] += 1
        else:
            seen.add(key)
            found.append(pair)
    return found
