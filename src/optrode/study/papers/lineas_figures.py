"""The figures of LinEAS."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line
from optrode.study.study import Outcome

METHODS: Final = ("learned together", "fitted site by site")
CONDITIONS: Final = (
    "no maps", "LinEAS", "Linear-AcT", "LinEAS, no labels", "features shuffled", "LinEAS, l1", "random features",
)  # fmt: skip
"""What a language model is steered by, as the bars are named."""


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    return Figures((_coupling(outcomes), _sparsity(outcomes), _few(outcomes), _strength(outcomes), _words(outcomes)))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    found = [getattr(one.measured[key], part) for one in outcomes if key in one.measured]
    known = [value for value in found if value is not None and isfinite(value)]
    return median(known) if known else nan


def _said(outcomes: Sequence[Outcome], part: str, condition: int) -> float:
    """What a model wrote, median over seeds."""
    return median(one.lines[f"said.{part}"].y[condition] for one in outcomes)


def _all(outcomes: Sequence[Outcome], names: dict[str, str], *, dashed: str = "") -> tuple[Line, ...]:
    """Lines of these keys, of all seeds, under these names."""
    return tuple(
        replace(one.lines[key], name=name, dashed=name == dashed) for key, name in names.items() for one in outcomes
    )  # fmt: skip


def _coupling(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Where later blocks depend on how features go together, maps learned together leave {_middle(outcomes, 'L1'):.2f} "
        f"of what maps fitted site by site leave; where nothing does, {_middle(outcomes, 'L1', 'control'):.2f}"
    )
    caption = (
        "Sum over four sites of the squared Wasserstein distance between steered source and target, on unseen rows, over "
        "that without maps. The gain within the blocks says how much hangs on pairs of features. One line per random seed."
    )
    lines = _all(outcomes, {f"gain.{name}": name for name in METHODS})
    return Chart(title, "gain of the blocks", "share of the distance that is left", lines, log_y=True, caption=caption)


def _sparsity(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"With l1 = 0.01, {_middle(outcomes, 'L2'):.0%} of the features need no map, and {_middle(outcomes, 'L3'):.2f} "
        f"times the distance is left; with as many drawn at random, {_middle(outcomes, 'L3', 'control'):.2f} times"
    )
    caption = (
        "Distance on unseen rows over that under maps without l1, against the share of features left exactly as they are, "
        "for l1 from 0 to 0.03. Below 1 the maps that are left out had fitted noise. 112 of 128 features are idle by design "
        "(0.875)."
    )
    lines = _all(outcomes, {"l1.left": "with l1", "l1.random": "drawn at random"}, dashed="drawn at random")
    return Chart(
        title, "share of features left as they are", "distance left, over that without l1", lines, log_y=True,
        levels={"no l1": 1.0}, caption=caption,
    )  # fmt: skip


def _few(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"From 32 + 32 rows, maps leave {_middle(outcomes, 'L4'):.0%} of the distance on unseen rows; from the same rows "
        f"without labels, {_middle(outcomes, 'L4', 'control'):.0%}"
    )
    caption = "Distance on unseen rows over that without maps, against the number of rows on each side; one line per seed."
    lines = _all(outcomes, {"n.right": "LinEAS", "n.unlabelled": "LinEAS, no labels"}, dashed="LinEAS, no labels")
    return Chart(title, "rows on each side", "share of the distance that is left", lines, log_x=True, caption=caption)


def _strength(outcomes: Sequence[Outcome]) -> Chart:
    by_site = _said(outcomes, "theirs", CONDITIONS.index("Linear-AcT"))
    title = (
        f"A language model that starts in one dialect goes on in the other: {_middle(outcomes, 'L5'):.0%} of its words "
        f"under maps learned together, {by_site:.0%} under maps fitted site by site"
    )
    caption = (
        "Share of the other dialect's words among those of either, after prompts of the first, and share of words whose "
        "concept may follow the one before (dashed), against the strength of the maps. One line per random seed."
    )
    words = _all(outcomes, {f"theirs.{name}": f"other dialect, {name}" for name in METHODS})
    kept = _all(outcomes, {f"follows.{name}": f"may follow, {name}" for name in METHODS})
    lines = (*words, *(replace(one, dashed=True) for one in kept))
    return Chart(title, "strength of the maps", "share of words", lines, caption=caption)


def _words(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Maps of the selected features give {_middle(outcomes, 'L7'):.0%} of the other dialect's words; maps of as many "
        f"features drawn at random {_middle(outcomes, 'L7', 'control'):.0%}"
    )
    caption = (
        "What a language model writes after prompts of one dialect: medians over random seeds. No labels: maps from rows of "
        "both dialects on both sides. Features shuffled: the maps' weights and biases at other features. Random features: "
        "maps without l1 for as many features of each site as l1 leaves, drawn at random."
    )
    places = tuple(float(ix) for ix in range(len(CONDITIONS)))
    lines = tuple(
        Line(name, places, tuple(_said(outcomes, part, ix) for ix in range(len(places))))
        for part, name in (("theirs", "other dialect's words"), ("follows", "concepts that may follow"))
    )
    return Chart(title, "held while it writes", "share of words", lines, kind="bars", labels=CONDITIONS, caption=caption)
