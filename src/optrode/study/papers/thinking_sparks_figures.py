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
    charts = (_born(outcomes), _died(outcomes), _reward(outcomes), _ablated(outcomes), _sizes(outcomes))
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
        "Heads of the circuit at a checkpoint that are not in the base model's, one line per random seed. Circuits are the "
        "strongest 4 % of all edges by EAP-IG that are on a way from the input to the logits."
    )
    return Chart(title, "updates", "emergent heads", _all(outcomes, "born"), caption=caption)


def _died(outcomes: Sequence[Outcome]) -> Chart:
    counts = ", ".join(f"{arm} {_ends(outcomes, arm, 'died'):.0f}" for arm in ARMS)
    caption = "Heads of the base model's circuit that are not in that of a checkpoint, one line per random seed."
    return Chart(f"Heads of the base model given up by the end: {counts}", "updates", "heads given up",
                 _all(outcomes, "died"), caption=caption)  # fmt: skip


def _reward(outcomes: Sequence[Outcome]) -> Chart:
    ends = ", ".join(f"{arm} {_ends(outcomes, arm, 'reward'):.2f}" for arm in ARMS)
    caption = (
        "Probability that a sampled answer is right, over all steps that may be written before it; this is what training by "
        "reward climbs. One line per random seed; all start from the seed's base model, with the same optimiser."
    )
    title = f"Expected reward at the end: {ends}"
    return Chart(title, "updates", "expected reward", _all(outcomes, "reward"), caption=caption)


def _ablated(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Without its emergent heads, the fine-tuned model loses {_middle(outcomes, 'T7'):.2f} of its accuracy; without as "
        f"many others, {_middle(outcomes, 'T7', 'control'):.2f}"
    )
    caption = (
        "Accuracy lost with heads ablated together (output zero): the emergent heads of the fine-tuned model; as many "
        "random ones that are in neither circuit (mean of 20 draws); the same emergent heads in the base. "
        "Medians over random seeds."
    )
    groups = [[one.lines["lost"].y[place] for one in outcomes] for place in range(3)]
    bars = Line("accuracy lost", (0.0, 1.0, 2.0), _each(median, groups), _each(min, groups), _each(max, groups))
    labels = ("emergent heads", "random others", "emergent, in the base model")
    return Chart(title, "ablated", "accuracy lost", (bars,), "bars", labels, caption=caption)


def _sizes(outcomes: Sequence[Outcome]) -> Chart:
    twice = ", ".join(f"{arm} {median(one.lines[f'{arm}.sizes'].y[5] for one in outcomes):.0f}" for arm in ARMS)
    caption = (
        "Emergent heads at the end against the size of circuits, as a share of all edges; all other figures use 4 %. One "
        "line per random seed. Where the lines cross, which training adds more heads depends on the size."
    )
    title = f"With circuits twice as large, emergent heads at the end are: {twice}"
    return Chart(title, "edges of a circuit, share of all", "emergent heads", _all(outcomes, "sizes"), log_x=True,
                 caption=caption)  # fmt: skip


def _maps(outcomes: Sequence[Outcome]) -> tuple[Map, ...]:
    """Of the first random seed: another's heads are others."""
    first = outcomes[0]
    caption = (
        "How often each head is in the circuit when prompts are resampled, at checkpoints, from random seed "
        f"{first.random_seed}. Rows are layer and head; heads that no run's circuit ever holds are left out."
    )
    titles = {arm: f"{arm.capitalize()}: {first.lines[f'{arm}.born'].y[-1]:.0f} heads are new at the end, "
                   f"{first.lines[f'{arm}.died'].y[-1]:.0f} of the base model are given up" for arm in ARMS}  # fmt: skip
    return tuple(replace(first.maps[arm], title=title, caption=caption) for arm, title in titles.items())


def _each(pick: Callable[[Sequence[float]], float], groups: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(pick(group) for group in groups)
