"""The figures of emergent attention heads."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line, Map
from optrode.study.study import Outcome

ARMS: Final = ("fine-tuning", "distillation", "reward")


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    charts = (_born(outcomes), _died(outcomes), _reward(outcomes), _ablated(outcomes), _bounds(outcomes))
    return Figures(charts, _maps(outcomes))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    known = [found for one in outcomes if (found := getattr(one.measured[key], part)) is not None]
    return median(known) if known else nan


def _all(outcomes: Sequence[Outcome], name: str) -> tuple[Line, ...]:
    return tuple(one.lines[f"{arm}.{name}"] for arm in ARMS for one in outcomes)


def _ends(outcomes: Sequence[Outcome], arm: str, name: str) -> float:
    return median(one.lines[f"{arm}.{name}"].y[-1] for one in outcomes)


def _born(outcomes: Sequence[Outcome]) -> Chart:
    counts = ", ".join(f"{arm} {_ends(outcomes, arm, 'born'):.0f}" for arm in ARMS)
    title = f"Emergent heads at the end: {counts}; resampled prompts alone make {_middle(outcomes, 'T1', 'control'):.1f}"
    caption = (
        "Heads that are active at a checkpoint and were not in the base model, one line per random seed. A head is active "
        "where ablating it alone loses a tenth of what the model gets from a clean chain over a corrupt one."
    )
    return Chart(title, "updates", "emergent heads", _all(outcomes, "born"), caption=caption)


def _died(outcomes: Sequence[Outcome]) -> Chart:
    counts = ", ".join(f"{arm} {_ends(outcomes, arm, 'died'):.0f}" for arm in ARMS)
    caption = "Heads that were active in the base model and are not at a checkpoint, one line per random seed."
    return Chart(f"Heads of the base model given up by the end: {counts}", "updates", "heads given up",
                 _all(outcomes, "died"), caption=caption)  # fmt: skip


def _reward(outcomes: Sequence[Outcome]) -> Chart:
    ends = ", ".join(f"{arm} {_ends(outcomes, arm, 'reward'):.2f}" for arm in ARMS)
    caption = (
        "Probability that a sampled answer is right: what training by reward climbs. One line per random seed; all start "
        "from the seed's base model, with the same optimiser."
    )
    title = f"Expected reward at the end: {ends}"
    return Chart(title, "updates", "expected reward", _all(outcomes, "reward"), caption=caption)


def _ablated(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Without its emergent heads, the fine-tuned model loses {_middle(outcomes, 'T7'):.2f} of its accuracy; without as "
        f"many others, {_middle(outcomes, 'T7', 'control'):.2f}"
    )
    caption = (
        "Accuracy lost with heads ablated together (output zero): emergent heads of the fine-tuned model; as many random "
        "ones that are active in neither model; the emergent heads in the base model (means of 20 draws where there are "
        "more to draw from). Medians over random seeds."
    )
    groups = [[one.lines["lost"].y[place] for one in outcomes] for place in range(3)]
    bars = Line("accuracy lost", (0.0, 1.0, 2.0), _each(median, groups), _each(min, groups), _each(max, groups))
    labels = ("emergent heads", "random others", "emergent, in the base model")
    return Chart(title, "ablated", "accuracy lost", (bars,), "bars", labels, caption=caption)


def _bounds(outcomes: Sequence[Outcome]) -> Chart:
    half = ", ".join(f"{arm} {median(one.lines[f'{arm}.bounds'].y[1] for one in outcomes):.0f}" for arm in ARMS)
    caption = (
        "Emergent heads at the end against the share of the gap from which on a head counts as active; all other figures "
        "use a tenth. One line per random seed. Where the lines cross, which training adds more heads depends on the bound."
    )
    title = f"With a bound half as high, emergent heads at the end are: {half}"
    return Chart(title, "share of the gap", "emergent heads", _all(outcomes, "bounds"), log_x=True, caption=caption)


def _maps(outcomes: Sequence[Outcome]) -> tuple[Map, ...]:
    """Of the first random seed: another's heads are others."""
    first = outcomes[0]
    caption = (
        "What ablating each head alone loses at checkpoints, as a share of the gap between clean and corrupt chains, from "
        f"random seed {first.random_seed}. Rows are layer and head; a head is active from .1 on."
    )
    titles = {arm: f"{arm.capitalize()}: {first.lines[f'{arm}.born'].y[-1]:.0f} heads are new at the end, "
                   f"{first.lines[f'{arm}.died'].y[-1]:.0f} of the base model are given up" for arm in ARMS}  # fmt: skip
    return tuple(replace(first.maps[arm], title=title, caption=caption) for arm, title in titles.items())


def _each(pick: Callable[[Sequence[float]], float], groups: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(pick(group) for group in groups)
