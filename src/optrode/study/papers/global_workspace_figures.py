"""The figures of the study of the global workspace."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from optrode.claims import Chart, Figures, Line, Map
from optrode.study.study import Outcome

NAMES = ("workspace", "LSTM", "transformer")


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """Accuracy over training and over size, what gates do, and the gates themselves."""
    charts = (*(_training(outcomes, part) for part in PARTS), _sizes(outcomes), _gates(outcomes))
    return Figures(charts, (_map(outcomes[0]),))


PARTS = {
    "between": ("G1", "unseen sums no greater than those learnt"),
    "beyond": ("G2", "sums greater than any that was learnt"),
}


def _value(outcomes: Sequence[Outcome], claim: str, *, of_control: bool = False) -> float:
    """Median over random seeds; NaN where it could not be measured."""
    found = [one.measured[claim] for one in outcomes if claim in one.measured]
    known = [value for one in found if (value := one.control if of_control else one.value) is not None]
    known = [value for value in known if math.isfinite(value)]
    return median(known) if known else math.nan


def _training(outcomes: Sequence[Outcome], part: str) -> Chart:
    claim, what = PARTS[part]
    ours, others = _value(outcomes, claim), _value(outcomes, claim, of_control=True)
    lines = [one.lines[f"{name}.{part}"] for name in NAMES for one in outcomes]
    first = outcomes[0].lines
    learnt = [replace(first[f"{name}.learnt"], name=f"{name}, learnt", dashed=True) for name in NAMES]
    return Chart(
        f"The workspace solves {ours:.0%} of {what}, the better baseline {others:.0%}.",
        "training step", "accuracy", (*lines, *learnt),
        caption="Lines of one colour are random seeds; dashed: the sums that are learnt, first seed. Chance is 1 in 19.",
    )  # fmt: skip


def _sizes(outcomes: Sequence[Outcome]) -> Chart:
    lines = [replace(one.lines[f"{name}.between.size"], name=name) for name in NAMES for one in outcomes]
    ahead = _value(outcomes, "G1") - _value(outcomes, "G1", of_control=True)
    return Chart(
        f"With the fewest parameters it is ahead of the better baseline by {ahead:.2f} of all unseen sums of that kind.",
        "parameters", "accuracy on unseen sums no greater than those learnt", tuple(lines),
        "points", log_x=True, caption="One point a network; points of one colour are random seeds.",
    )  # fmt: skip


def _gates(outcomes: Sequence[Outcome]) -> Chart:
    kinds = {"own": ("G5", True), "of another pair": ("G4", False), "of another, steps shuffled": ("G4", True),
             "mean": ("G5", False), "hand chain": ("G6", False), "wrong hand chain": ("G6", True)}  # fmt: skip
    values = [
        tuple(_value((one,), claim, of_control=control) for claim, control in kinds.values()) for one in outcomes
    ]  # fmt: skip
    x = tuple(map(float, range(len(kinds))))
    given = _value(outcomes, "G4")
    return Chart(
        f"Gates carry the second addend: under another pair's, {given:.0%} of answers are the sum with its second addend.",
        "gates held", "share of answers that are the sum expected",
        tuple(Line("accuracy", x, tuple(row)) for row in values), "bars", labels=tuple(kinds),
        caption="Expected is first addend + second, the second being the other pair's where its gates are held. Mean: every "
        "gate at its mean over the sums that were learnt. Bars of one colour are random seeds.",
    )  # fmt: skip


def _map(first: Outcome) -> Map:
    share = _value((first,), "G3")
    return replace(
        first.maps["gates"],
        title=f"For {share:.0%} of unseen sums the gates spell Input, as many Increments as are to be added, Output.",
        caption="Gates of the first random seed's network, step by step, for 3 + 0 to 3 + 6. The steps that a short "
        "chain leaves over go to more of Input before or Output after.",
    )  # fmt: skip
