"""Recall of capital cities, with our own prompts."""

import random
from collections.abc import Iterator

from optrode.model.model import Model
from optrode.tasks.build import Draft, Plan, task_from_drafts
from optrode.tasks.words import CAPITALS, single
from optrode.trial.prompts import Task


def capitals(model: Model, n: int = 32, random_seed: int = 0, *, require_accuracy: float = 0.7) -> Task:
    """Which city? "The capital of France is the city of" -> " Paris"; the corrupt prompt names another country.

    Marks: country, end.

    Raises:
        NoPairs, TaskTooHard: from the check of the task.
    """
    plan = Plan("capitals", "Recall: name the capital city of a country.", "logit_gap", n, random_seed, require_accuracy)
    return task_from_drafts(model, plan, _drafts(model, random.Random(random_seed)))


def _drafts(model: Model, rng: random.Random) -> Iterator[Draft]:
    known = [pair for pair in CAPITALS if len(single(model, pair)) == 2]
    while len(known) > 1:
        (country, city), (other, other_city) = rng.sample(known, 2)
        clean, corrupt = ({"country": f" {name}"} for name in (country, other))
        yield Draft("The capital of{country} is the city of", clean, corrupt, (f" {city}",), (f" {other_city}",))
