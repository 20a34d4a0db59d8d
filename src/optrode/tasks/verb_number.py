"""Subject-verb agreement, with our own prompts."""

import random
from collections.abc import Iterator

from optrode.model.model import Model
from optrode.tasks.build import Draft, Plan, task_from_drafts
from optrode.tasks.words import NOUNS, SPOTS, single
from optrode.trial.prompts import Task

VERBS = ((" is", " was", " has"), (" are", " were", " have"))


def agreement(model: Model, n: int = 32, random_seed: int = 0, *, require_accuracy: float = 0.7) -> Task:
    """Singular or plural? "The keys near the table" -> " are"; the corrupt prompt has the other number of the noun.

    Marks: subject, spot, end.

    Raises:
        NoPairs, TaskTooHard: from the check of the task.
    """
    plan = Plan("agreement", "Subject-verb agreement: the verb agrees with the subject, not with the noun beside it.",
                "logit_gap", n, random_seed, require_accuracy)  # fmt: skip
    return task_from_drafts(model, plan, _drafts(model, random.Random(random_seed)))


def _drafts(model: Model, rng: random.Random) -> Iterator[Draft]:
    nouns = [pair for pair in NOUNS if len(single(model, pair)) == 2]
    spots = single(model, SPOTS)
    while nouns and spots:
        noun, number = rng.choice(nouns), rng.randrange(2)
        slots = {"spot": f" {rng.choice(spots)}"}
        clean, corrupt = (slots | {"subject": f" {noun[i]}"} for i in (number, 1 - number))
        yield Draft("The{subject} near the{spot}", clean, corrupt, VERBS[number], VERBS[1 - number])
