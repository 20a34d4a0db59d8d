"""Maps of cells, and maps at several steps with a slider between them."""

from typing import Any, Final

from optrode.claims import Map, Slides
from optrode.errors import BadOption
from optrode.reports.blocks import heading, legend, plot, text
from optrode.reports.figures import Figure, heat, heat_height, is_wordy, limit_of, rounded
from optrode.reports.figures import text as label
from optrode.reports.words import MINUS, count, short
from optrode.trial.grid import Axis

CELL_PX: Final = 30
WORDY_CELL_PX: Final = 52
Drawn = tuple[str, dict[str, Figure], dict[str, Any]]
"""HTML, Plotly figures by id, and what the script of slides reads."""


def map_block(shown: Map, key: str) -> Drawn:
    """One map.

    Raises:
        BadOption: its cells are not as many as its labels.
    """
    figure, above, height = _figure(shown, (shown,))
    body = plot(key, _about(shown), caption=shown.caption, height=height, least_width=_least_width(shown), above=above)
    return _cell(shown, heading(shown.title) + body), {key: figure}, {}


def slides_block(shown: Slides, key: str) -> Drawn:
    """Maps with a slider, which starts at the last step.

    Raises:
        BadOption: not one map per step, or maps of different cells.
    """
    _check(shown)
    last = shown.maps[-1]
    figure, above, height = _figure(last, shown.maps)
    name = f"slider-{key}"
    slider = slider_html(name, shown.slider, shown.steps, f'data-slides="{text(key)}"')
    words = f"{_about(last)}. {shown.slider}: {shown.steps[-1]}"
    body = plot(key, words, caption=shown.caption, height=height, least_width=_least_width(last), above=slider + above)
    data = {
        "steps": shown.steps, "cells": rounded([one.cells for one in shown.maps]), "unit": label(last.unit),
        "rows": [label(row) for row in last.rows], "columns": [label(column) for column in last.columns],
    }  # fmt: skip
    return _cell(last, heading(shown.title) + body), {key: figure}, {key: data}


def slider_html(name: str, title: str, steps: tuple[str, ...], what: str) -> str:
    """A slider over steps, which arrow keys move too; `what` is the attribute that the script knows it by."""
    end = len(steps) - 1
    control = f'<input type="range" id="{text(name)}" min="0" max="{end}" step="1" value="{end}" {what}>'
    shown = f'<output for="{text(name)}">{text(steps[-1])}</output>'
    return f'<div class="drawn"><label for="{text(name)}">{text(title)}</label>{control}{shown}</div>'


def _figure(shown: Map, every: tuple[Map, ...]) -> tuple[Figure, str, int]:
    """The Plotly figure, its legend, and its height; colours are the same for every map."""
    for one in every:
        _check_cells(one)
    cells = [row for one in every for row in one.cells]
    limit = limit_of(cells)
    is_signed = shown.is_signed or any(value is not None and value < 0 for row in cells for value in row)
    down, across = Axis(shown.down, shown.rows), Axis(shown.across, shown.columns)
    hover = [
        [_hover(row, column, value, shown.unit) for column, value in zip(shown.columns, values, strict=True)]
        for row, values in zip(shown.rows, shown.cells, strict=True)
    ]
    figure = heat(shown.cells, hover, down, across, limit=limit, scale="diverging" if is_signed else "sequential")
    figure["layout"]["yaxis"]["tickangle"] = 0
    words = f"{shown.unit or 'value'}; {shown.down} down, {shown.across} across"
    return figure, legend(words, limit, is_sequential=not is_signed), heat_height(down, across)


def _hover(row: str, column: str, value: float | None, unit: str) -> str:
    number = "none" if value is None else f"{value:.3g}".replace("-", MINUS)
    return f"<b>{label(row)}, {label(column)}</b><br>{number} {label(unit)}".rstrip()


def _about(shown: Map) -> str:
    size = f"{count(len(shown.rows), 'row')} ({shown.down}) by {count(len(shown.columns), 'column')} ({shown.across})"
    known = [
        (value, row, column)
        for row, values in zip(shown.rows, shown.cells, strict=True)
        for column, value in zip(shown.columns, values, strict=True)
        if value is not None
    ]
    if not known:
        return f"Map of {size}"
    value, row, column = max(known)
    return f"Map of {size}. Greatest: {short(value)} at {row}, {column}"


def _cell(shown: Map, body: str) -> str:
    width = _least_width(shown)
    return f'<div style="flex:1 1 {width}px;max-width:{max(width * 3 // 2, 300)}px">{body}</div>'


def _least_width(shown: Map) -> int:
    across = Axis(shown.across, shown.columns)
    return (WORDY_CELL_PX if is_wordy(across) else CELL_PX) * len(shown.columns) + 90


def _check_cells(shown: Map) -> None:
    widths = {len(row) for row in shown.cells}
    if len(shown.cells) != len(shown.rows) or widths - {len(shown.columns)}:
        found = f"{len(shown.rows)} and {len(shown.columns)} labels, and {len(shown.cells)} rows of {sorted(widths)} cells"
        raise BadOption(f"map {shown.title!r}", found, next_step="give one label per row and column")


def _check(shown: Slides) -> None:
    asked = f"slides {shown.title!r}"
    if not shown.maps or len(shown.maps) != len(shown.steps):
        found = f"{count(len(shown.steps), 'step')} and {count(len(shown.maps), 'map')}"
        raise BadOption(asked, found, next_step="give one map per step, and at least one")
    if len({(one.rows, one.columns) for one in shown.maps}) > 1:
        raise BadOption(asked, "its maps have different labels", next_step="give maps of the same rows and columns")
