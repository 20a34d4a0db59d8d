"""Indirect object identification (Wang et al., arXiv 2211.00593), with our own prompts."""

import random
from collections.abc import Iterator
from typing import Final

from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.tasks.build import Draft, Plan, task_from_drafts
from optrode.tasks.words import FEMALE_NAMES, MALE_NAMES, OBJECTS, PLACES, single
from optrode.trial.prompts import Task

ORDERS: Final = {
    "abba": "When{io} and{s1} went to the{place},{s2} gave a{object} to",
    "baba": "When{s1} and{io} went to the{place},{s2} gave a{object} to",
}


def ioi(
    model: Model, n: int = 32, random_seed: int = 0, *, order: str = "abba", require_accuracy: float = 0.7
) -> Task:
    """Who was given the drink? The clean prompt repeats the subject, the corrupt one repeats the indirect object.

    "When Mary and John went to the store, John gave a drink to" -> " Mary", against "... store, Mary gave a drink to"
    -> " John". The two differ in one token. Marks: io, s1, s2, end. The orders "abba" and "baba" may use different
    circuits, so they are separate tasks.

    Raises:
        BadOption: no such order.
        NoPairs, TaskTooHard: from the check of the task.
    """
    if order not in ORDERS:
        raise BadOption(f"order {order!r}", "no such order of names", nearest=nearest(order, ORDERS) or tuple(ORDERS))
    plan = Plan("ioi", "Indirect object identification: complete the sentence with the name that is not repeated.",
                "logit_gap", n, random_seed, require_accuracy)  # fmt: skip
    return task_from_drafts(model, plan, _drafts(model, order, random.Random(random_seed)))


def _drafts(model: Model, order: str, rng: random.Random) -> Iterator[Draft]:
    names = single(model, FEMALE_NAMES + MALE_NAMES)
    places, objects = single(model, PLACES), single(model, OBJECTS)
    while len(names) > 1 and places and objects:
        io, subject = (f" {name}" for name in rng.sample(names, 2))
        slots = {"io": io, "s1": subject, "place": f" {rng.choice(places)}", "object": f" {rng.choice(objects)}"}
        yield Draft(ORDERS[order], slots | {"s2": subject}, slots | {"s2": io}, (io,), (subject,))
