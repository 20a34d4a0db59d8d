"""The figures of refusal tokens."""

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line, Map
from optrode.study.papers.refusal_tokens_claims import NEAR
from optrode.study.study import Outcome

SWEPT: Final = ("category 1", "category 2", "category 3", "category 4", "ordinary", "tone")
"""Lines of the sweep, by the ends of their keys."""


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    charts = (_sweep(outcomes), _threshold(outcomes), _again(outcomes), _calibration(outcomes))
    return Figures(charts, (_categories(outcomes),))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    known = [found for one in outcomes if (found := getattr(one.measured[key], part)) is not None]
    return median(known) if known else nan


def _all(outcomes: Sequence[Outcome], *keys: str) -> tuple[Line, ...]:
    return tuple(one.lines[key] for key in keys for one in outcomes)


def _sweep(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"The bias on the refusal tokens moves the refusal rate by {_middle(outcomes, 'D1'):+.2f}, that on a tone token by "
        f"{_middle(outcomes, 'D1', 'control'):+.2f}"
    )
    caption = (
        "Share of prompts that are refused, over the bias on the logits of all refusal tokens, by category of the prompts; "
        "one line per random seed. Categories differ in how many of their prompts are to be refused; ordinary prompts are "
        "always to be answered. Dashed: the bias is on the token that says the tone of the response, just before."
    )
    lines = _all(outcomes, *(f"sweep.{name}" for name in SWEPT))
    return Chart(title, "bias on the logits, nats", "refusal rate", lines, marks={"no bias": 0.0}, caption=caption)


def _threshold(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"A threshold chosen on other prompts changes F1 by {_middle(outcomes, 'D5'):+.3f}, and lies "
        f"{_middle(outcomes, 'D6'):+.2f} from half of the best F1"
    )
    caption = (
        "F1 of refusing, and accuracy, on validation prompts, over the threshold on the probability of the one refusal "
        "token; one line per random seed. Plain decoding is the threshold 0.5."
    )
    marks = {"plain decoding": 0.5}
    return Chart(title, "threshold", "score", _all(outcomes, "F1", "accuracy"), marks=marks, caption=caption)


def _again(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Dialled to the refusal rates of models trained again, one model has {_middle(outcomes, 'D4'):+.3f} of balanced "
        "accuracy over them"
    )
    caption = (
        "Share of the prompts to be refused that are, against share of the prompts to be answered that are refused; one "
        "line per random seed. The dial: one model with tokens, at biases from -8 to 8. Trained again: two models "
        "without tokens, from data with other shares of refusals."
    )
    lines = (*_all(outcomes, "dial"), *(replace(one, dashed=True) for one in _all(outcomes, "again")))
    return Chart(title, "refused of those to be answered", "refused of those to be refused", lines, caption=caption)


def _calibration(outcomes: Sequence[Outcome]) -> Chart:
    title = f"The tokens' probability differs from the planted one by {_middle(outcomes, 'D7'):.3f} on average"
    caption = (
        "Planted probability of being refused against the probability of all refusal tokens together, means over prompts "
        "in tenths of the latter; one line per random seed. Dashed: the same."
    )
    same = Line("the same", (0.0, 1.0), (0.0, 1.0), dashed=True)
    lines = (*_all(outcomes, "calibration"), same)
    return Chart(title, "probability of refusal tokens", "planted probability", lines, caption=caption)


def _categories(outcomes: Sequence[Outcome]) -> Map:
    maps = [one.maps["moved"] for one in outcomes]
    title = (
        f"A category's token moves its own refusals by {_middle(outcomes, 'D2'):+.2f}, any other's by at most "
        f"{_middle(outcomes, 'D2', 'control'):.2f}"
    )
    caption = (
        f"Change of the refusal rate between a bias of -{NEAR:g} and of {NEAR:g} nats on one token (down), in prompts of "
        "each category (across); medians over random seeds. Last row: another model, with one token for all categories."
    )
    cells = tuple(
        tuple(median(cell for cell in cells if cell is not None) for cells in zip(*rows, strict=True))
        for rows in zip(*(one.cells for one in maps), strict=True)
    )
    return replace(maps[0], title=title, caption=caption, cells=cells, is_signed=True)
