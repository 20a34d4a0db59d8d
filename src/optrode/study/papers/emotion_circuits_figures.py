"""The figures of emotion circuits."""

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line, Map
from optrode.study.study import Outcome

HELD: Final = ("as it is", "told to feel", "circuit", "steering", "random, same strength", "random, its best")
"""What is held, in the order of the bars."""
AXES: Final = {"felt": "of the asked feeling", "well": "well told", "both": "both"}


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    return Figures((_held(outcomes), _traded(outcomes), _off(outcomes)), _maps(outcomes))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    known = [found for one in outcomes if (found := getattr(one.measured[key], part)) is not None]
    return median(known) if known else nan


def _medians(outcomes: Sequence[Outcome], key: str, name: str) -> Line:
    """Bars: medians over seeds, with the range."""
    columns = list(zip(*(one.lines[key].y for one in outcomes), strict=True))
    places = tuple(float(ix) for ix in range(len(columns)))
    middle, low, high = (tuple(float(pick(one)) for one in columns) for pick in (median, min, max))
    return Line(name, places, middle, low, high)


def _held(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Turned up, the circuit gives {_middle(outcomes, 'E3'):.0%} of the stories the asked feeling, random parts "
        f"{_middle(outcomes, 'E3', 'control'):.0%}; of well told ones it has {_middle(outcomes, 'E4'):+.2f} on steering"
    )
    caption = (
        "Share of stories of test scenarios that are of the asked feeling, that are well told, and that are both; medians "
        "over random seeds. All but the second have a neutral prompt; strengths are those that are best on other scenarios."
    )
    lines = tuple(_medians(outcomes, f"test.{axis}", name) for axis, name in AXES.items())
    return Chart(title, "held", "share of stories", lines, "bars", HELD, caption=caption)


def _traded(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Feeling costs good telling: with the circuit {_middle(outcomes, 'E5'):+.2f}, at twice the strength "
        f"{_middle(outcomes, 'E5', 'control'):+.2f}"
    )
    caption = (
        "Validation scenarios at all strengths and doses, all random seeds; a steering vector after any of the layers. "
        "Better is up and to the right."
    )
    names = {"circuit": "circuit", "steering": "steering vector", "random": "random parts"}
    lines = tuple(
        Line(name, one.lines[f"{key}.felt"].y, one.lines[f"{key}.well"].y) for key, name in names.items() for one in outcomes
    )
    return Chart(title, "share of the asked feeling", "share well told", lines, "points", caption=caption)


def _off(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Without its circuit a named feeling is in {_middle(outcomes, 'E2'):.0%} of the stories, without random parts in "
        f"{_middle(outcomes, 'E2', 'control'):.0%}"
    )
    caption = (
        "Share of stories of the feeling that the prompt names while that feeling's heads and neurons, or as many random "
        "ones, are held at their means over feelings; medians over random seeds."
    )
    labels = ("nothing held", "circuit", "random")
    bars = (_medians(outcomes, "off", "of the named feeling"),)
    chance = {"chance": 1 / 6}
    return Chart(title, "held at the mean", "share of stories", bars, "bars", labels, levels=chance, caption=caption)


def _maps(outcomes: Sequence[Outcome]) -> tuple[Map, ...]:
    shown = {
        "heads": ("What each head writes along feelings' directions", "Score, mean over feelings; the first random seed."),
        "importance": (
            "How much of what a sublayer adds along a direction reaches the end",
            "Growth of the last layer's projection for each unit added to what the sublayer writes; mean over feelings.",
        ),
    }
    kept = outcomes[0].maps if outcomes else {}
    return tuple(replace(kept[key], title=title, caption=said) for key, (title, said) in shown.items() if key in kept)
