"""Gendered pronoun (after Mathwin et al., 2023), with our own prompts."""

import random
from collections.abc import Iterator

from optrode.model.model import Model
from optrode.tasks.build import Draft, Plan, task_from_drafts
from optrode.tasks.words import FEMALE_NAMES, MALE_NAMES, single
from optrode.trial.prompts import Task

QUALITIES = ("good", "kind", "close", "funny", "great", "nice", "dear", "true", "loyal")


def pronoun(model: Model, n: int = 32, random_seed: int = 0, *, require_accuracy: float = 0.7) -> Task:
    """She or he? "So Mary is a really good friend, isn't" -> " she"; the corrupt prompt has a name of the other gender.

    Marks: name, quality, end.

    Raises:
        NoPairs, TaskTooHard: from the check of the task.
    """
    description = "Gendered pronoun: the pronoun agrees with the name."
    plan = Plan("pronoun", description, "logit_gap", n, random_seed, require_accuracy)
    return task_from_drafts(model, plan, _drafts(model, random.Random(random_seed)))


def _drafts(model: Model, rng: random.Random) -> Iterator[Draft]:
    names = (single(model, FEMALE_NAMES), single(model, MALE_NAMES))
    qualities = single(model, QUALITIES)
    answers = (" she", " he")
    while all(names) and qualities:
        gender = rng.randrange(2)
        slots = {"quality": f" {rng.choice(qualities)}"}
        clean, corrupt = (slots | {"name": f" {rng.choice(names[g])}"} for g in (gender, 1 - gender))
        yield Draft(
            "So{name} is a really{quality} friend, isn't", clean, corrupt, (answers[gender],), (answers[1 - gender],)
        )
