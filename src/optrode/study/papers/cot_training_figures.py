"""The figures of training with the steps written out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line, Map
from optrode.study.papers.cot_training_claims import NOISE
from optrode.study.study import Outcome

INSIDE: Final = "in distribution"
OUTSIDE: Final = "out of distribution"
NOISY: Final = ("steps", "fewer questions", "answers noisy", "both noisy", "most answers noisy")


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    return Figures((_learning(outcomes), _noise(outcomes), _patched(outcomes)), _maps(outcomes))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    known = [found for one in outcomes if (found := getattr(one.measured[key], part)) is not None]
    return median(known) if known else nan


def _learning(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"With steps {_middle(outcomes, 'C1a'):.0%} of the questions out of distribution are answered, without "
        f"{_middle(outcomes, 'C1a', 'control'):.0%}"
    )
    lines = tuple(
        replace(one.lines[f"{arm}.{test}"], name=f"{arm}, {test}", dashed=test == INSIDE)
        for arm in ("steps", "no steps") for test in (OUTSIDE, INSIDE) for one in outcomes
    )  # fmt: skip
    caption = (
        "Accuracy of left-out two-hop questions while the network trains, one line per random seed. Out of distribution: "
        "neither fact was in any question of the training, though each was taught alone. With steps, the network writes the "
        "bridge and then the answer; without, the answer at once."
    )
    return Chart(title, "training sequences", "accuracy", lines, caption=caption)


def _noise(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Wrong answers in {NOISE:.0%} of the questions cost {_middle(outcomes, 'C3a'):.2f} more accuracy out of "
        "distribution than within"
    )
    caption = (
        "Accuracy at the end of training with steps; bars are medians over random seeds. Fewer questions: those that are "
        "noisy in the next group are left out. Answers noisy: they teach a random answer; both: a random bridge too; most: "
        "a random answer in 80 % of them. The paper has .951 within and .776 out of distribution with noisy answers "
        "and .426 and .148 with most of them noisy."
    )
    lines = tuple(_bars(outcomes, test) for test in (INSIDE, OUTSIDE))
    return Chart(title, "training", "accuracy", lines, "bars", NOISY, caption=caption)


def _bars(outcomes: Sequence[Outcome], test: str) -> Line:
    ends = [[one.lines[f"{arm}.{test}"].y[-1] for one in outcomes] for arm in NOISY]
    places = tuple(float(place) for place in range(len(NOISY)))
    return Line(test, places, _each(median, ends), _each(min, ends), _each(max, ends))


def _each(pick: Callable[[Sequence[float]], float], groups: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(pick(group) for group in groups)


def _patched(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"The answer follows another bridge in {_middle(outcomes, 'C2'):.0%} of the questions, another first entity in "
        f"{_middle(outcomes, 'C2', 'control'):.0%}"
    )
    caption = (
        "The network reads question and right bridge; at one position, the embedding of another entity is patched in. Bars: "
        "share of questions whose answer becomes that which the other entity leads to (medians over random seeds). Once the "
        "bridge is written, the second hop starts from it alone where the second bar is low."
    )
    found = [[one.lines["moved"].y[place] for one in outcomes] for place in (0, 1)]
    bars = Line("follows", (0.0, 1.0), _each(median, found), _each(min, found), _each(max, found))
    labels = ("the written bridge", "the first entity")
    return Chart(title, "patched", "share of answers that follow", (bars,), "bars", labels, caption=caption)


def _maps(outcomes: Sequence[Outcome]) -> tuple[Map, ...]:
    later = _middle(outcomes, "C4")
    titles = {
        "steps": f"With steps, the bridge can be read {later:.1f} layers earlier than without",
        "no steps": "Without steps: where the bridge can be read",
    }
    caption = (
        "Mean reciprocal rank of the bridge entity among all tokens when the stream after a layer goes through the final "
        "norm and the unembedding (logit lens), at the two relations of left-out questions; medians over random seeds. At "
        "r1 the network can take the prefix for a single fact, whose tail is the bridge; at r2, with steps, it says it."
    )
    return tuple(_map([one.maps[arm] for one in outcomes], title, caption) for arm, title in titles.items())


def _map(maps: Sequence[Map], title: str, caption: str) -> Map:
    cells = [[median(cell or 0.0 for cell in cells) for cells in zip(*rows, strict=True)]
             for rows in zip(*(one.cells for one in maps), strict=True)]  # fmt: skip
    return replace(maps[0], title=title, caption=caption, cells=tuple(map(tuple, cells)))
