"""The figures of control vectors for reasoning."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line
from optrode.study.study import Outcome

READINGS: Final = ("R-C", "PCA-C", "R", "solved - failed")
CONTROLS: Final = ("failed - strings", "R-C, last token", "strings", "strings, PCA", "shuffled", "random")
PLAIN: Final = ("R-C", "PCA-C", "R", "random")
ANSWERS: Final[Mapping[str, str]] = {"right": "right answer", "wrong": "others of the list", "outside": "not in the list"}
DOSE: Final = "dose, in median norms of the stream"


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    return Figures((_doses(outcomes), _controls(outcomes), _answers(outcomes), _change(outcomes), _plain(outcomes)))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    known = [found for one in outcomes if (found := getattr(one.measured[key], part)) is not None]
    return median(known) if known else nan


def _all(
    outcomes: Sequence[Outcome], names: Sequence[str], part: str = "accuracy", *, world: str = "two writers"
) -> tuple[Line, ...]:  # fmt: skip
    return tuple(one.lines[f"{world}.{name}.{part}"] for name in names for one in outcomes)


def _dashed(lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple(replace(line, dashed=True) for line in lines)


def _doses(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Accuracy changes by {_middle(outcomes, 'V1'):+.3f} with the vector of solved items less random strings, by "
        f"{_middle(outcomes, 'V1', 'control'):+.3f} with random vectors"
    )
    caption = (
        "Accuracy on test items over the dose, one line per random seed; the outcome in the title is at the dose that is "
        "best on validation items. R-C: mean state on solved items less that on random strings; PCA-C: principal axis of "
        "these differences; R: no contrast; solved - failed: a contrast by outcome. Dashed: mean of five random vectors."
    )
    lines = (*_all(outcomes, READINGS), *_dashed(_all(outcomes, ("random",))))
    return Chart(title, DOSE, "accuracy", lines, marks={"left alone": 0.0}, caption=caption)


def _controls(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Solved items less random strings gain {_middle(outcomes, 'V10'):+.3f} over failed items less random strings; the "
        f"principal axis of random strings alone gains {_middle(outcomes, 'V3', 'control'):+.3f}"
    )
    caption = (
        "Accuracy over the dose with control vectors, one line per random seed, beside R-C: failed items in place of "
        "solved ones; the mean state on random strings, and the principal axis of their differences; solved less failed "
        "with outcomes shuffled (means of three); random vectors (means of five). R-C, last token: added only at "
        "the position at which it was read."
    )
    lines = (*_all(outcomes, ("R-C",)), *_dashed(_all(outcomes, CONTROLS)))
    return Chart(title, DOSE, "accuracy", lines, marks={"left alone": 0.0}, caption=caption)


def _answers(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"The right answer's probability changes by {_middle(outcomes, 'V6'):+.3f}, that of all answers outside of the "
        f"list by {_middle(outcomes, 'V6', 'control'):+.3f}"
    )
    caption = (
        "Mean probability of the right name, of the three other names of the list together, and of everything else, over "
        "the dose of R-C; one line per random seed."
    )
    lines = tuple(
        replace(line, name=name) for part, name in ANSWERS.items() for line in _all(outcomes, ("R-C",), part)
    )
    return Chart(title, DOSE, "probability", lines, marks={"left alone": 0.0}, caption=caption)


def _change(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"At equal KL, R-C leaves accuracy {_middle(outcomes, 'V7'):+.3f} above random vectors, shuffled outcomes "
        f"{_middle(outcomes, 'V7', 'control'):+.3f}"
    )
    caption = (
        "KL divergence of the answers from those of the model left alone, and their entropy, over the dose of R-C (lines) "
        "and of random vectors (dashed, means of five); one line per random seed."
    )
    parts = {"kl": "KL", "entropy": "entropy"}
    lines = [replace(line, name=name) for part, name in parts.items() for line in _all(outcomes, ("R-C",), part)]
    random = [replace(line, name=f"{name}, random") for part, name in parts.items()
              for line in _all(outcomes, ("random",), part)]  # fmt: skip
    return Chart(title, DOSE, "nats", (*lines, *_dashed(random)), marks={"left alone": 0.0}, caption=caption)


def _plain(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"In a model that has only not learned enough, accuracy changes by {_middle(outcomes, 'V8'):+.3f}, with random "
        f"vectors by {_middle(outcomes, 'V8', 'control'):+.3f}"
    )
    caption = (
        "Accuracy over the dose in a model whose writers are all careful and whose training was stopped early, one line "
        "per random seed. Dashed: mean of five random vectors."
    )
    lines = _all(outcomes, PLAIN[:-1], world="careful writers")
    random = _dashed(_all(outcomes, PLAIN[-1:], world="careful writers"))
    return Chart(title, DOSE, "accuracy", (*lines, *random), marks={"left alone": 0.0}, caption=caption)
