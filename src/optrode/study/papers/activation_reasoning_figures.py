"""The figures of rules over latents."""

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line
from optrode.study.study import Outcome

LEFT: Final = ("rules", "alone")
CONTROLS: Final = ("rules off", "other rules", "random latents")
SHARES: Final = {"L7": "pairs never taught", "L8": "kinds never taught", "L6": "other words"}
CHANCE: Final = {"1 of 6": 1 / 6}


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    return Figures((_hops(outcomes), _words(outcomes), _unseen(outcomes)))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    known = [found for one in outcomes if (found := getattr(one.measured[key], part)) is not None]
    return median(known) if known else nan


def _all(outcomes: Sequence[Outcome], names: Sequence[str], *, dashed: bool = False) -> tuple[Line, ...]:
    return tuple(replace(one.lines[name], dashed=dashed) for name in names for one in outcomes)


def _hops(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Five steps away, {_middle(outcomes, 'L1'):.0%} of the answers are right with rules over latents, "
        f"{_middle(outcomes, 'L1', 'control'):.0%} with rules off; from one step to five the model alone loses "
        f"{_middle(outcomes, 'L2', 'control'):.0%}"
    )
    caption = (
        "Share of right answers over the number of steps between the fact and what is asked, one line per random seed. "
        "Dashed: rules off (detected concepts strengthened), rules of another world, and latents drawn at random. The model "
        "was taught single steps."
    )
    lines = (*_all(outcomes, LEFT), *_all(outcomes, CONTROLS, dashed=True))
    return Chart(title, "steps", "share of right answers", lines, levels=CHANCE, caption=caption)


def _words(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"On words that no latent was chosen on, {_middle(outcomes, 'L6'):.0%} of the answers two to five steps away are "
        f"right with rules, {_middle(outcomes, 'L6', 'control'):.0%} without"
    )
    caption = (
        "Share of right answers over the number of steps for all words (lines) and for words on which latents were not "
        "chosen (dashed), one line per random seed."
    )
    lines = (*_all(outcomes, LEFT), *_all(outcomes, [f"{arm}, other words" for arm in LEFT], dashed=True))
    return Chart(title, "steps", "share of right answers", lines, levels=CHANCE, caption=caption)


def _unseen(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Pairs never taught: {_middle(outcomes, 'L7'):.0%} right with rules, {_middle(outcomes, 'L7', 'control'):.0%} "
        f"alone; kinds never taught: {_middle(outcomes, 'L8'):.0%} and {_middle(outcomes, 'L8', 'control'):.0%}"
    )
    caption = "Share of right answers, median over random seeds, with rules and by the model alone."
    xs = tuple(float(ix) for ix in range(len(SHARES)))
    lines = tuple(
        Line(name, xs, tuple(_middle(outcomes, key, part) for key in SHARES))
        for name, part in (("rules", "value"), ("alone", "control"))
    )
    labels = tuple(SHARES.values())
    return Chart(title, "what is new", "share of right answers", lines, kind="bars", labels=labels, caption=caption)
