"""Charts of a study as Plotly figures: lines, points and bars, one colour for each name."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from optrode.claims import Chart, Line
from optrode.errors import BadOption
from optrode.reports.blocks import fold, table
from optrode.reports.blocks import text as html
from optrode.reports.figures import LEGEND, Figure, layout_of, level, level_label, rounded, text, trace_of
from optrode.reports.words import short, whole

N_TONES: Final = 8
FEW: Final = 24
HEIGHT: Final = 380
MARGIN: Final = {"l": 58, "r": 14, "t": 12, "b": 46}
STILL: Final = {"fixedrange": True, "automargin": True, "zeroline": False}
HOVER: Final = "<b>%{fullData.name}</b><br>%{x:,.4~g}: %{y:.4~g}<extra></extra>"


def tones(names: Iterable[str]) -> dict[str, int]:
    """Name -> number of its colour, in the order in which names come first."""
    return {name: ix for ix, name in enumerate(dict.fromkeys(names))}


def chart_figure(chart: Chart) -> Figure:
    """A chart; what a logarithmic axis cannot show, 0 and below, is a gap.

    Raises:
        BadOption: a line has not as many x as y, or as many bounds of its band.
    """
    for line in chart.lines:
        _check(chart.title, line)
    tone = tones(line.name for line in chart.lines)
    traces = _bars(chart, tone) if chart.kind == "bars" else _curves(chart, tone)
    xaxis, yaxis = _xaxis(chart), _axis(chart.y, chart.log_y, [y for line in chart.lines for y in line.y])
    shapes = [level(y, "dash") for y in (chart.levels or {}).values()] + [_mark(x) for x in (chart.marks or {}).values()]
    notes = [level_label(_at(y, chart.log_y), text(words)) for words, y in (chart.levels or {}).items()]
    notes += [_mark_label(_at(x, chart.log_x), text(words)) for words, x in (chart.marks or {}).items()]
    layout = layout_of(xaxis=xaxis, yaxis=yaxis, margin=MARGIN, shapes=shapes, annotations=notes)
    return {"data": traces, "layout": layout | {"showlegend": any(tone), "legend": LEGEND, "barmode": "group"}}


def _check(title: str, line: Line) -> None:
    lengths = {len(line.x), len(line.y), *(len(bound) for bound in (line.low, line.high) if bound)}
    if len(lengths) > 1 or bool(line.low) != bool(line.high):
        found = f"line {line.name!r} has {len(line.x)} x, {len(line.y)} y, {len(line.low)} low and {len(line.high)} high"
        raise BadOption(f"chart {title!r}", found, next_step="give as many of each; low and high may both be empty")


def _curves(chart: Chart, tone: Mapping[str, int]) -> list[Figure]:
    floor = min((y for line in chart.lines for y in line.y if y > 0), default=1.0) if chart.log_y else -math.inf
    named: set[str] = set()
    traces: list[Figure] = []
    for line in chart.lines:
        traces += _band(line, tone[line.name], floor, chart.log_x) if line.low else []
        mode = "markers" if chart.kind == "points" else "lines+markers" if len(line.x) <= FEW else "lines"
        is_new = bool(line.name) and line.name not in named
        traces.append(curve_trace(
            _shown(line.x, chart.log_x), _shown(line.y, chart.log_y), line.name, tone[line.name], mode, is_new, line.dashed
        ))  # fmt: skip
        named.add(line.name)
    return traces


def curve_trace(
    x: Sequence[float | int | None], y: Sequence[float | None], name: str, tone: int, mode: str, is_new: bool,
    dashed: bool = False, **more: Any,
) -> Figure:  # fmt: skip
    """One line in the colour of its name; `is_new` puts it in the legend."""
    dash = {"line": {"dash": "dash"}} if dashed else {"line": {"dash": "dot"}} if tone >= N_TONES else {}
    trace: Figure = {
        "type": "scatter", "mode": mode, "x": list(x), "y": list(y), "name": text(name), "legendgroup": text(name),
        "showlegend": is_new, "hovertemplate": HOVER, "meta": {"role": f"series-{tone % N_TONES}"}, **dash, **more,
    }  # fmt: skip
    plain: Figure = rounded(trace)
    return plain


def _band(line: Line, tone: int, floor: float, log_x: bool) -> list[Figure]:
    x = _shown(line.x, log_x)
    more: dict[str, Any] = {"mode": "lines", "showlegend": False, "legendgroup": text(line.name), "hoverinfo": "skip"}
    low = trace_of(x, [max(value, floor) for value in line.low], "edge", **more)  # type: ignore[arg-type]
    high = [max(value, floor) for value in line.high]
    return [low, trace_of(x, high, f"band-{tone % N_TONES}", fill="tonexty", **more)]  # type: ignore[arg-type]


def _bars(chart: Chart, tone: Mapping[str, int]) -> list[Figure]:
    traces: list[Figure] = []
    named: set[str] = set()
    for line in chart.lines:
        words = [text(_label(chart, x)) for x in line.x]
        trace: Figure = {
            "type": "bar", "x": list(line.x), "y": list(line.y), "name": text(line.name), "legendgroup": text(line.name),
            "showlegend": bool(line.name) and line.name not in named, "customdata": words,
            "hovertemplate": "<b>%{customdata}</b><br>%{fullData.name} %{y:.4~g}<extra></extra>",
            "meta": {"role": f"fill-{tone[line.name] % N_TONES}"},
        }  # fmt: skip
        if line.dashed:
            trace["marker"] = {"pattern": {"shape": "/", "fillmode": "overlay"}}
        if line.low:
            above = [high - y for high, y in zip(line.high, line.y, strict=True)]
            below = [y - low for low, y in zip(line.low, line.y, strict=True)]
            arms = {"array": above, "arrayminus": below, "thickness": 1.2, "width": 3}
            trace["error_y"] = {"type": "data", "symmetric": False, **arms}
        traces.append(rounded(trace))
        named.add(line.name)
    return traces


def _label(chart: Chart, x: float) -> str:
    place = int(x)
    return chart.labels[place] if 0 <= place < len(chart.labels) else short(x)


def _xaxis(chart: Chart) -> Figure:
    if chart.kind != "bars":
        return _axis(chart.x, chart.log_x, [x for line in chart.lines for x in line.x])
    n = len(chart.labels)
    ticks = {"tickvals": list(range(n)), "ticktext": [text(label) for label in chart.labels]}
    return {"title": {"text": text(chart.x)}, **ticks, "range": [-0.6, n - 0.4], "showgrid": False, **STILL}


def _axis(title: str, is_log: bool, values: Sequence[float]) -> Figure:
    axis: Figure = {"title": {"text": text(title)}, **STILL}
    return axis | ({"type": "log", **log_ticks(values)} if is_log else {})


def log_ticks(values: Sequence[float]) -> Figure:
    """Ticks of a logarithmic axis in plain numbers: powers of ten, and 2 and 5 times them where there are few."""
    known = [value for value in values if math.isfinite(value) and value > 0]
    if not known:
        return {}
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    steps = (1,) if high - low > 2 else (1, 2, 5)
    every = max(1, (high - low) // 8)
    found = [step * 10.0**power for power in range(low, high + 1, every) for step in steps]
    kept = [tick for tick in found if min(known) / 1.5 <= tick <= max(known) * 1.5]
    return {"tickvals": kept, "ticktext": [tick_text(tick) for tick in kept]}


def tick_text(value: float | int) -> str:
    """A tick's number: 0.01, 1, 20, 1,000, 10⁶."""
    if value >= 1e6 or value < 1e-4:
        power = math.floor(math.log10(value) + 1e-9)
        lead = round(value / 10.0**power)
        return ("" if lead == 1 else f"{lead}×") + f"10<sup>{power}</sup>"
    return whole(int(value)) if value >= 1 else f"{value:g}"


def _shown(values: Sequence[float], is_log: bool) -> list[float | None]:
    return [value if math.isfinite(value) and (value > 0 or not is_log) else None for value in values]


def _at(value: float, is_log: bool) -> float:
    """Where a note stands: on a logarithmic axis Plotly takes the power of ten, unlike for lines."""
    return math.log10(value) if is_log and value > 0 else value


def _mark(x: float) -> Figure:
    return {
        "type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "layer": "below",
        "line": {"width": 1, "dash": "dot"},
    }  # fmt: skip


def _mark_label(x: float, words: str) -> Figure:
    return {
        "x": x, "xanchor": "right", "yref": "paper", "y": 1, "yanchor": "top", "text": words, "textangle": -90,
        "showarrow": False, "font": {"size": 11},
    }  # fmt: skip


def chart_numbers(chart: Chart) -> str:
    """The chart as a table that opens on demand: bars one by one, lines by their ends and extremes."""
    if chart.kind == "bars":
        rows = [_bar_row(chart, line, ix) for line in chart.lines for ix in range(len(line.x))]
        return fold("The numbers", table(("bar", "of", chart.y or "value"), rows, chart.title, "numbers"))
    columns = ("line", "points", "first", "last", "least", "greatest")
    rows = [_line_row(line) for line in chart.lines if line.x]
    return fold("The numbers", table(columns, rows, f"{chart.title} ({chart.x}: {chart.y})", "numbers"))


def _bar_row(chart: Chart, line: Line, ix: int) -> tuple[str, ...]:
    spread = f" [{short(line.low[ix])}, {short(line.high[ix])}]" if line.low else ""
    return (html(_label(chart, line.x[ix])), html(line.name), short(line.y[ix]) + spread)


def _line_row(line: Line) -> tuple[str, ...]:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not points:
        return (html(line.name), "0", *[""] * 4)
    least, greatest = min(points, key=lambda point: point[1]), max(points, key=lambda point: point[1])
    ends = [f"{short(x)}: {short(y)}" for x, y in (points[0], points[-1], least, greatest)]
    return (html(line.name), str(len(points)), *ends)
