"""Curves over training steps: one colour per run, abrupt changes marked, steps on an axis that the reader may switch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from optrode.reports.blocks import fold, heading, plot, table
from optrode.reports.blocks import text as html
from optrode.reports.charts import FEW, MARGIN, N_TONES, STILL, curve_trace, tick_text
from optrode.reports.figures import LEGEND, Figure, layout_of, text
from optrode.reports.words import count, short, whole
from optrode.train.phases import PhaseChange, thinned
from optrode.train.records import Series

TALL: Final = 400
LOW: Final = 330
CHANGED: Final = "phase change"
HOVER: Final = "<b>%{fullData.name}</b><br>step %{x:,.0f}: %{y:.4~g}<extra></extra>"


@dataclass(frozen=True)
class Curve:
    """One measure of one run.

    Attributes:
        name: of the run; runs of one name, random seeds say, have one colour.
        tone: number of that colour.
        series: the measure.
        changes: its phase changes.
    """

    name: str
    tone: int
    series: Series
    changes: tuple[PhaseChange, ...]


@dataclass(frozen=True)
class StepAxis:
    """The axis that all curves of a page share.

    Attributes:
        first, last: smallest positive step, and the last.
        marks: (number of a colour, step) of vertical lines.
    """

    first: int
    last: int
    marks: tuple[tuple[int, int], ...] = ()

    @property
    def zero(self) -> float:
        """Where step 0 stands on the logarithmic axis: one doubling before the first."""
        return self.first / 2


def axis_over(every: Sequence[Series], marks: Sequence[tuple[int, int]] = ()) -> StepAxis:
    """The axis that holds all these curves."""
    steps = [step for series in every for step in series.steps]
    first = min((step for step in steps if step > 0), default=1)
    return StepAxis(first, max(first, max(steps, default=1)), tuple(marks))


def steps_figure(curves: Sequence[Curve], axis: StepAxis, unit: str) -> Figure:
    """Curves over steps. `views` are the two forms of the axis; it starts as the logarithmic one."""
    named: set[str] = set()
    traces: list[Figure] = []
    for curve in curves:
        series = thinned(curve.series)
        mode = "lines+markers" if len(series.steps) <= FEW else "lines"
        x = [axis.zero if step == 0 else step for step in series.steps]
        is_new = curve.name not in named
        traces.append(curve_trace(x, series.values, curve.name, curve.tone, mode, is_new, hovertemplate=HOVER))
        named.add(curve.name)
    changed = [curve for curve in curves if curve.changes]
    traces += [_diamonds(curve, axis, ix == 0) for ix, curve in enumerate(changed)]
    layout = layout_of(
        xaxis=_views(axis)["log"], yaxis={"title": {"text": text(unit)}, **STILL}, margin=MARGIN,
        shapes=[_line(tone, step) for tone, step in axis.marks],
    )  # fmt: skip
    views = {"zero": axis.zero, **_views(axis)}
    return {"data": traces, "layout": layout | {"showlegend": True, "legend": {**LEGEND, "y": -0.3}}, "views": views}


def _diamonds(curve: Curve, axis: StepAxis, is_new: bool) -> Figure:
    steps = [change.step for change in curve.changes]
    words = [f"<b>{text(curve.name)}</b><br>{change_words(change)}" for change in curve.changes]
    more: dict[str, Any] = {"customdata": words, "hovertemplate": "%{customdata}<extra></extra>"}
    heights = [_height_at(curve.series, step) for step in steps]
    trace = curve_trace(steps, heights, CHANGED, curve.tone, "markers", is_new, **more)
    return trace | {"meta": {"role": f"change-{curve.tone % N_TONES}"}}


def change_words(change: PhaseChange) -> str:
    """A phase change in words, for a label."""
    between = f"between steps {whole(change.start)} and {whole(change.end)}"
    return f"steepest at step {whole(change.step)}, from {short(change.before)} to {short(change.after)} {between}"


def _height_at(series: Series, step: int) -> float:
    shown = thinned(series)
    return float(np.interp(step, shown.steps, shown.values))


def _line(tone: int, step: int) -> Figure:
    """A vertical line in the colour of a run."""
    return {
        "type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": step, "x1": step, "layer": "below",
        "name": f"series-{tone % N_TONES}", "line": {"width": 1.2, "dash": "dot"},
    }  # fmt: skip


def _views(axis: StepAxis) -> dict[str, Figure]:
    powers = range(math.floor(math.log10(axis.first)), math.ceil(math.log10(axis.last)) + 1)
    ticks = [10**power for power in powers if axis.first <= 10**power <= axis.last]
    shared = {"title": {"text": "training step"}, **STILL}
    low, high = math.log10(axis.zero), math.log10(axis.last)
    margin = 0.03 * (high - low)
    log = {
        "type": "log", "tickvals": [axis.zero, *ticks], "ticktext": ["0", *map(tick_text, ticks)],
        "range": [low - margin, high + margin],
    }  # fmt: skip
    linear = {"type": "linear", "tickvals": None, "ticktext": None, "range": [-0.02 * axis.last, 1.02 * axis.last]}
    return {"log": {**shared, **log}, "linear": {**shared, **linear}}


def switch() -> str:
    """Two buttons: steps on a logarithmic or a linear axis, in every chart of the page."""
    buttons = "".join(
        f'<button type="button" data-view="{view}" aria-pressed="{str(view == "log").lower()}">{words}</button>'
        for view, words in (("log", "logarithmic"), ("linear", "linear"))
    )
    return f'<div class="switch" role="group" aria-label="Axis of training steps">Steps: {buttons}</div>'


def steps_block(
    title: str, curves: Sequence[Curve], axis: StepAxis, unit: str, key: str, height: int = LOW
) -> tuple[str, Figure]:  # fmt: skip
    """A chart with its heading and its numbers as a table; and its figure."""
    names = ", ".join(dict.fromkeys(curve.name for curve in curves))
    label = f"{title} over training steps of {names}. {_changes_said(curves)}"
    figure = plot(key, label, height=height)
    return f'<div class="cell">{heading(title)}{figure}{_numbers(title, curves)}</div>', steps_figure(curves, axis, unit)


def _changes_said(curves: Sequence[Curve]) -> str:
    found = [f"{curve.name} at step {whole(change.step)}" for curve in curves for change in curve.changes]
    return f"{count(len(found), CHANGED)}: {', '.join(found)}" if found else "No phase change"


def _numbers(title: str, curves: Sequence[Curve]) -> str:
    rows = [_row(curve) for curve in curves if curve.series.steps]
    columns = ("run", "first", "last", "least", "greatest", "phase changes")
    return fold("The numbers", table(columns, rows, f"{title}, by step", "numbers"))


def _row(curve: Curve) -> tuple[str, ...]:
    points = list(zip(curve.series.steps, curve.series.values, strict=True))
    least, greatest = min(points, key=lambda point: point[1]), max(points, key=lambda point: point[1])
    ends = [f"{whole(step)}: {short(value)}" for step, value in (points[0], points[-1], least, greatest)]
    changes = "; ".join(change_words(change) for change in curve.changes) or "none"
    return (html(curve.name), *ends, html(changes))


def by_name(groups: Sequence[tuple[str, Mapping[str, Series]]]) -> dict[str, list[tuple[str, Series]]]:
    """(run, its measures) pairs turned round: measure -> (run, series) of those that have it, as they come."""
    found: dict[str, list[tuple[str, Series]]] = {}
    for run, measures in groups:
        for name, series in measures.items():
            if series.steps:
                found.setdefault(name, []).append((run, series))
    return found
