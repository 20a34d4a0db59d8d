"""The figures of the inference circuit of in-context learning."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line, Map, Slides
from optrode.study.study import Outcome

STEPS: Final = ("xq>sq", "x>s", "s>y", "y>sq", "x>y", "s>sq", "x>sq")
"""The four steps of the circuit, in the order of the claims, and three ways past them."""
ARMS: Final = ("free", "bypass closed")
_LEVELS: Final = {"a random demonstration's label": 0.5}


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    charts = (_cuts(outcomes, ARMS[0]), _cuts(outcomes, ARMS[1]), _training(outcomes), _alignment(outcomes))
    maps = (*(_layers(outcomes, arm) for arm in ARMS), _heads(outcomes))
    return Figures(charts, tuple(one for one in maps if one is not None), _slides(outcomes))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    found = [getattr(one.measured[key], part) for one in outcomes if key in one.measured]
    known = [value for value in found if value is not None and not isnan(value)]
    return median(known) if known else nan


def _cuts(outcomes: Sequence[Outcome], arm: str) -> Chart:
    if arm == ARMS[0]:
        title = (
            f"Cutting the query's encoding leaves {_share(outcomes, 'I1')} of the accuracy above chance, cutting retrieval "
            f"{_share(outcomes, 'I4')}; cutting the merge s > y leaves {_share(outcomes, 'I3')}, with the bypass x > y "
            f"cut too {_share(outcomes, 'I5')}"
        )
    else:
        title = (
            f"Trained without the bypass x > y, at most {_share(outcomes, 'I6')} of the accuracy above chance is left when "
            "one of the four steps is cut"
        )
    caption = (
        "Accuracy with a step's attention cut in all layers, and with as many other arrows cut at random (mean of 20 "
        "draws); median over seeds. x, s, y: words, forerunner token and label of the demonstrations; xq, sq: of the query. "
        "The first four are the paper's steps, the others ways past them."
    )
    lines = tuple(
        Line(name, tuple(float(ix) for ix in range(len(STEPS))), _median(outcomes, f"{key}.{arm}"))
        for key, name in (("cut", "step cut"), ("random", "as many random arrows cut"))
    )
    return Chart(title, "step", "accuracy", lines, kind="bars", labels=STEPS, levels=_LEVELS, caption=caption)


def _share(outcomes: Sequence[Outcome], key: str) -> str:
    """A median share in percent; accuracy below chance counts as nothing left."""
    value = _middle(outcomes, key)
    return "?" if isnan(value) else f"{max(value, 0.0):.0%}"


def _median(outcomes: Sequence[Outcome], key: str) -> tuple[float, ...]:
    rows = [one.lines[key].y for one in outcomes if key in one.lines]
    return tuple(median(column) for column in zip(*rows, strict=True))


def _all(outcomes: Sequence[Outcome], start: str) -> tuple[Line, ...]:
    return tuple(kept for one in outcomes for key, kept in one.lines.items() if key.startswith(start))


def _training(outcomes: Sequence[Outcome]) -> Chart:
    free, closed = (median(one.x[-1] for one in _all(outcomes, f"training.{arm}")) for arm in ARMS)
    title = f"Free training takes {free:.0f} updates, training with the bypass closed {closed:.0f}"
    caption = (
        "Accuracy of labels at the query while the network trains, one line per random seed; runs stop at 0.95. In the "
        "second kind of run labels may not look at words (x > y), at any layer, so that everything must go through s."
    )
    return Chart(title, "updates", "accuracy", _all(outcomes, "training."), levels=_LEVELS, caption=caption)


def _alignment(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"The query's forerunner token comes to hold what its words mean: alignment {_middle(outcomes, 'I8'):.2f} against "
        f"{_middle(outcomes, 'I8', 'control'):.2f} before training"
    )
    caption = (
        "Kernel alignment of the residual stream with the classes' own vectors: mean share of common 15 nearest neighbours, "
        "before the first layer (0) and after each; one line per random seed, dashed before training."
    )
    return Chart(title, "layer", "kernel alignment", _all(outcomes, "alignment."), caption=caption)


def _layers(outcomes: Sequence[Outcome], arm: str) -> Map | None:
    kept = [one.maps[arm] for one in outcomes if arm in one.maps]
    if not kept:
        return None
    title = f"In which layer each step is needed: accuracy with it cut there ({arm})"
    caption = "Median over seeds. A step that may be cut in any one layer, but not in all, is done in several."
    return replace(kept[0], title=title, cells=_median_cells(kept), caption=caption)


def _median_cells(maps: Sequence[Map]) -> tuple[tuple[float | None, ...], ...]:
    rows, columns = range(len(maps[0].rows)), range(len(maps[0].columns))
    return tuple(tuple(median(one.cells[row][column] or 0.0 for one in maps) for column in columns) for row in rows)


def _heads(outcomes: Sequence[Outcome]) -> Map | None:
    kept = [one.maps["induction"] for one in outcomes if "induction" in one.maps]
    if not kept:
        return None
    title = f"Which heads look at the right label: induction correctness, {_middle(outcomes, 'I9'):.2f} for the best"
    caption = "Attention from the query's forerunner token to the right label less that to the wrong one; first random seed."
    return replace(kept[0], title=title, caption=caption)


def _slides(outcomes: Sequence[Outcome]) -> tuple[Slides, ...]:
    title = "Where attention goes, layer by layer: words to s and y early, labels to the query's s last"
    caption = (
        "Mean attention over heads and rows whose query is of the second demonstration's class, after free training (first "
        "random seed): from each position (down) to those before it (across)."
    )
    kept = [one.slides["patterns"] for one in outcomes if "patterns" in one.slides]
    return tuple(replace(one, title=title, caption=caption) for one in kept[:1])
