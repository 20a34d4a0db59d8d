"""Greater-than (Hanna et al., arXiv 2305.00586), with our own prompts and for any tokenizer of numbers."""

import random
from collections.abc import Iterator

from optrode.model.model import Model
from optrode.tasks.build import NOT_ONE_TOKEN, Draft, Plan, checked_task, pair_from_draft
from optrode.tasks.words import SPANS, single
from optrode.trial.prompts import Pair, Task

TEMPLATE = "The{span} lasted from the year{century}{start} to the year{century}"


def greater_than(model: Model, n: int = 32, random_seed: int = 0, *, require_accuracy: float = 0.7) -> Task:
    """Which year can it have ended in? The clean prompt starts in 17YY, the corrupt one in 1701.

    The answers are the tokens that can follow: two digits at once or one, as the tokenizer cuts numbers. A token is
    right if every year that begins with it lies after the start, and wrong if none does; tokens in between are left
    out. The metric is the summed probability of right minus that of wrong tokens. Marks: span, start, end.

    Raises:
        NoPairs, TaskTooHard: from the check of the task.
    """
    plan = Plan("greater_than", "Greater-than: the year in which something ends comes after the year in which it began.",
                "prob_gap", n, random_seed, require_accuracy)  # fmt: skip
    return checked_task(model, plan, _pairs(model, random.Random(random_seed)))


def _pairs(model: Model, rng: random.Random) -> Iterator[Pair | str]:
    spans = single(model, SPANS)
    while spans:
        start, century = rng.randrange(21, 80), rng.choice((" 15", " 16", " 17", " 18"))
        slots = {"span": f" {rng.choice(spans)}", "century": century}
        clean, corrupt = slots | {"start": f"{start:02d}"}, slots | {"start": "01"}
        right, wrong = _answers(model, TEMPLATE.format(**clean), start)
        yield pair_from_draft(model, Draft(TEMPLATE, clean, corrupt, right, wrong)) if right and wrong else NOT_ONE_TOKEN


def _answers(model: Model, prompt: str, start: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts of the first tokens that continue the prompt to a year after, or not after, the start."""
    n_prompt = model.to_tokens(prompt).shape[1]
    years: dict[str, list[bool]] = {}
    for year in range(2, 99):
        first = int(model.to_tokens(f"{prompt}{year:02d}")[0, n_prompt])
        years.setdefault(model.to_string([first]), []).append(year > start)
    right = tuple(text for text, after in years.items() if all(after))
    return right, tuple(text for text, after in years.items() if not any(after))
