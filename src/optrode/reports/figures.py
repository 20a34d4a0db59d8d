"""Plotly figures as plain JSON. Colours are not set here: a trace says in `meta` what it stands for, and the page's
style sheet decides how that looks on screen, in the dark and on paper.
"""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from optrode.circuit.circuit import Circuit, HeadScores, Interval, Proof, Scores, SpotCheck
from optrode.reports.nodes import node_name, token_label
from optrode.reports.words import interval, number, short
from optrode.trial.grid import Axis, Grid

Figure = dict[str, Any]
Cells = Sequence[Sequence[float | None]]
DIGITS: Final = 5
NICE_SIZES: Final = tuple(step * 10**power for power in range(5) for step in (1, 2, 5))
MOST_BARS: Final = 60
LEGEND: Final = {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.2, "yanchor": "top", "traceorder": "normal"}


def text(value: str) -> str:
    """Text for Plotly, which reads a few tags and entities in every label, but not those of quotes."""
    return escape(value, quote=False)


def rounded(value: Any) -> Any:
    """A JSON-ready value with numbers of `DIGITS` significant digits; what is not finite becomes None."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        near = float(f"{value:.{DIGITS}g}")
        return int(near) if near.is_integer() and abs(near) < 1e15 else near
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value]


def limit_of(cells: Cells) -> float:
    """The largest finite absolute value, or 1 when there is none, so that a scale is never empty."""
    found = [abs(value) for row in cells for value in row if value is not None and math.isfinite(value)]
    return max(found, default=0.0) or 1.0


def effect_limit(scores: Scores) -> float:
    """The effect of the strongest colour: one node in a hundred may lie beyond it, or all others would be pale."""
    ranked = sorted((abs(score.effect) for score in scores.nodes if math.isfinite(score.effect)), reverse=True)
    return (ranked[min(len(ranked) // 100, len(ranked) - 1)] if ranked else 0.0) or 1.0


def heat(cells: Cells, hover: Sequence[Sequence[str]], down: Axis, across: Axis, *, limit: float, scale: str) -> Figure:
    """A heat map: rows upwards when they are layers, as the computation runs; None is drawn as a gap.

    Args:
        cells: [row][column] values.
        hover: [row][column] text of the hover box, escaped already.
        down: labels of the rows.
        across: labels of the columns.
        limit: value of the strongest colour.
        scale: "diverging" around zero, or "sequential" from zero.
    """
    trace = {
        "type": "heatmap", "z": rounded(cells), "customdata": hover, "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": True, "showscale": False, "xgap": 1, "ygap": 1, "meta": {"scale": scale},
        "zmin": 0 if scale == "sequential" else -rounded(limit), "zmax": rounded(limit),
    }  # fmt: skip
    up = True if down.name == "layer" else "reversed"
    layout = layout_of(
        xaxis=_ticks(across), yaxis={**_ticks(down), "autorange": up}, margin={"l": 44, "r": 10, "t": 6, "b": 40}
    )  # fmt: skip
    return {"data": [trace], "layout": layout}


def heat_height(down: Axis, across: Axis) -> int:
    """A height at which every row and the labels below can be read."""
    row = 14 if len(down.labels) > 24 else 18 if len(down.labels) > 8 else 26
    return len(down.labels) * row + (100 if is_wordy(across) else 62)


def grid_heat(grid: Grid, limit: float) -> Figure:
    """A sweep's shares, first axis down; cells in which the gate changed nothing are gaps."""
    shares = tuple(None if null else share for share, null in zip(grid.shares(), grid.is_null, strict=True))
    down, across = flat_axes(grid)
    return heat(_rows(shares, down), _rows(_grid_hover(grid), down), down, across, limit=limit, scale="diverging")


def flat_axes(grid: Grid) -> tuple[Axis, Axis]:
    """The axis down, and all others across as one."""
    if len(grid.axes) < 2:
        across = grid.axes[0] if grid.axes else Axis("cell", ("all",))
        return Axis("", ("",)), across
    down, *others = grid.axes
    labels = [""]
    for axis in others:
        labels = [f"{start} {label}".strip() for start in labels for label in axis.labels]
    return down, Axis(" × ".join(axis.name for axis in others), tuple(labels))


def _grid_hover(grid: Grid) -> list[str]:
    share_word = "of the distance" if grid.source is not None else "of the metric"
    lines = []
    for site, value, effect, share, null in zip(
        grid.sites, (sum(cell) / len(cell) for cell in grid.values), grid.effects(), grid.shares(), grid.is_null, strict=True
    ):  # fmt: skip
        end = "<br>the gate changed nothing" if null else ""
        head = f"<b>{text(site)}</b><br>value {short(value)} {text(grid.unit)}"
        lines.append(f"{head}<br>effect {short(effect)} {text(grid.unit)}<br>share {short(share)} {share_word}{end}")
    return lines


def head_heat(heads: HeadScores, kind: int, limit: float) -> Figure:
    """Attention scores of one kind, layer by head."""
    values = heads.values[kind]
    hover = [
        [f"<b>head {layer}.{head}</b><br>{text(heads.kinds[kind])} {short(value)}" for head, value in enumerate(row)]
        for layer, row in enumerate(values)
    ]
    down, across = numbered("layer", len(values)), numbered("head", max((len(row) for row in values), default=0))
    return heat(values, hover, down, across, limit=limit, scale="sequential")


def node_heat(scores: Scores) -> Figure:
    """Effects of all nodes: layer by head, with the MLPs in a column of their own."""
    names = [node_name(score.node) for score in scores.nodes]
    n_layers = 1 + max((name.layer for name in names if name.layer is not None), default=0)
    n_heads = 1 + max((name.head for name in names if name.head is not None), default=-1)
    cells: list[list[float | None]] = [[None] * (n_heads + 1) for _ in range(n_layers)]
    hover = [[""] * (n_heads + 1) for _ in range(n_layers)]
    for name, score in zip(names, scores.nodes, strict=True):
        if name.layer is not None and (name.is_mlp or name.head is not None):
            column = n_heads if name.head is None else name.head
            cells[name.layer][column] = score.effect
            effect = f"{short(score.effect)} {interval(score.interval)} {text(scores.unit)}"
            hover[name.layer][column] = f"<b>{text(score.node)}</b><br>effect {effect}"
    across = Axis("head", (*map(str, range(n_heads)), "MLP"))
    return heat(cells, hover, numbered("layer", n_layers), across, limit=effect_limit(scores), scale="diverging")


def curve(proof: Proof, circuit: Circuit | None) -> Figure:
    """Faithfulness over size with its band, the circuit itself, the random circuits, and what is left without it."""
    points = sorted(proof.curve, key=lambda point: point.size)
    sizes = [point.size for point in points]
    line = [point.faithfulness for point in points]
    hover = [f"{point.size} nodes: {number(point.faithfulness)} {interval(point.interval)}" for point in points]
    traces: list[Figure] = [
        trace_of(sizes, [p.interval.low for p in points], "edge", mode="lines", showlegend=False, hoverinfo="skip"),
        trace_of(
            sizes, [p.interval.high for p in points], "band", "95 % interval", mode="lines", fill="tonexty", hoverinfo="skip"
        ),
        trace_of(sizes, line, "line", "strongest nodes", mode="lines+markers", text=hover, hoverinfo="text"),
    ]
    if proof.random:
        words = [f"random circuit: {number(value)}" for value in proof.random]
        traces.append(trace_of([proof.size] * len(words), proof.random, "random", "random circuits of its size", text=words))
    traces.append(dot(float(proof.size), proof.faithfulness, proof.interval, "chosen", "the circuit", f"{proof.size} nodes"))
    if circuit:
        rest, bounds = circuit.n_all - circuit.size, proof.completeness_interval
        traces.append(dot(float(rest), proof.completeness, bounds, "rest", "all nodes but the circuit", f"{rest} nodes"))
    target = circuit.target if circuit else 0.0
    every = [*sizes, proof.size, *([circuit.n_all - circuit.size] if circuit else [])]
    return {"data": traces, "layout": _curve_layout([size for size in every if size > 0], target, 0 in every)}


def _curve_layout(sizes: Sequence[int], target: float, has_zero: bool) -> Figure:
    low, high = min(sizes, default=1), max(sizes, default=1)
    xaxis: Figure = {"title": {"text": "nodes in the circuit"}, "automargin": True, "fixedrange": True, "zeroline": False}
    if not has_zero and high >= 20 * low:
        ticks = [size for size in NICE_SIZES if low <= size <= high]
        xaxis |= {"type": "log", "tickvals": ticks, "ticktext": [str(size) for size in ticks]}
        xaxis |= {"range": [math.log10(low) - 0.08, math.log10(high) + 0.08]}
    shapes = [level(1.0, "solid"), *([level(target, "dash")] if target else [])]
    notes = [level_label(target, f"target {number(target)}")] if target else []
    yaxis = {"title": {"text": "faithfulness"}, "fixedrange": True, "zeroline": True, "automargin": True}
    margin = {"l": 54, "r": 12, "t": 12, "b": 44}
    layout = layout_of(xaxis=xaxis, yaxis=yaxis, margin=margin, shapes=shapes, annotations=notes)
    return layout | {"showlegend": True, "legend": LEGEND}


def minimality(proof: Proof) -> tuple[Figure, int]:
    """Faithfulness lost without each node, largest first, and the height that its bars need."""
    return loss_bars([(row.node, node_name(row.node).label, row.lost, row.interval) for row in proof.minimality])


def loss_bars(losses: Sequence[tuple[str, str, float, Interval]]) -> tuple[Figure, int]:
    """Bars of (name, label, lost, interval), largest first, and the height that they need."""
    rows = sorted(losses, key=lambda row: row[2])[-MOST_BARS:]
    errors = {
        "type": "data", "symmetric": False, "array": [bounds.high - lost for *_, lost, bounds in rows],
        "arrayminus": [lost - bounds.low for *_, lost, bounds in rows], "thickness": 1.2, "width": 3,
    }  # fmt: skip
    hover = [f"<b>{text(name)}</b><br>lost {number(lost, 3)} {interval(bounds, 3)}" for name, _, lost, bounds in rows]
    bars = {
        "type": "bar", "orientation": "h", "x": [lost for *_, lost, _ in rows], "y": list(range(len(rows))),
        "error_x": errors, "customdata": hover, "hovertemplate": "%{customdata}<extra></extra>", "meta": {"role": "bars"},
    }  # fmt: skip
    ticks = {"tickvals": list(range(len(rows))), "ticktext": [text(label) for _, label, *_ in rows]}
    still = {"fixedrange": True, "zeroline": False, "showgrid": False, "automargin": True}
    layout = layout_of(
        xaxis={"title": {"text": "faithfulness lost"}, "fixedrange": True, "automargin": True},
        yaxis=ticks | {"range": [-0.7, len(rows) - 0.3], "ticklabelstandoff": 4, **still},
        margin={"l": 60, "r": 12, "t": 6, "b": 44}, bargap=0.35,
    )  # fmt: skip
    return {"data": [rounded(bars)], "layout": layout}, 20 * len(rows) + 70


def spot_check(check: SpotCheck, unit: str) -> Figure:
    """Approximate effects against exact ones; on the diagonal they agree."""
    points = zip(check.nodes, check.is_top, check.approximate, check.exact, strict=True)
    return against(list(points), "nodes", unit)


def against(points: Sequence[tuple[str, bool, float, float]], noun: str, unit: str) -> Figure:
    """Points of (name, is strongest, approximate effect, exact effect), and the line on which both are equal."""
    traces = []
    for is_top, role, name in ((True, "chosen", f"strongest {noun}"), (False, "random", f"random {noun}")):
        picked = [point for point in points if point[1] is is_top]
        words = [
            f"<b>{text(node)}</b><br>approximate {short(approximate)}<br>exact {short(exact)}"
            for node, _, approximate, exact in picked
        ]
        traces.append(trace_of([point[2] for point in picked], [point[3] for point in picked], role, name, text=words))
    values = [value for point in points for value in point[2:] if math.isfinite(value)]
    ends = [min(values, default=0.0), max(values, default=1.0)]
    diagonal = trace_of(ends, ends, "guide", "equal", mode="lines", hoverinfo="skip")
    layout = layout_of(
        xaxis={"title": {"text": f"approximate effect{_in(unit)}"}, "fixedrange": True, "automargin": True},
        yaxis={"title": {"text": f"exact effect{_in(unit)}"}, "fixedrange": True, "automargin": True},
        margin={"l": 54, "r": 12, "t": 12, "b": 44}, showlegend=True, legend=LEGEND,
    )  # fmt: skip
    return {"data": [diagonal, *traces], "layout": layout}


def _in(unit: str) -> str:
    return f" ({text(unit)})" if unit else ""


def numbered(name: str, n: int) -> Axis:
    """An axis whose labels are its indices."""
    return Axis(name, tuple(map(str, range(n))))


def trace_of(x: Sequence[float | int], y: Sequence[float], role: str, name: str = "", **more: Any) -> Figure:
    """One scatter trace; its `role` says how the page's script paints it."""
    base = {"type": "scatter", "mode": "markers", "x": list(x), "y": list(y), "name": name, "meta": {"role": role}}
    base |= {} if "hoverinfo" in more else {"hoverinfo": "text"}
    plain: Figure = rounded(base | more)
    return plain


def dot(x: float, y: float, bounds: Interval, role: str, name: str, at: str) -> Figure:
    """One point with its interval; `at` says where it stands, in words."""
    arms = {"array": [bounds.high - y], "arrayminus": [y - bounds.low], "thickness": 1.6, "width": 5}
    errors = {"type": "data", "symmetric": False, **arms}
    return trace_of([x], [y], role, name, error_y=errors, text=[f"{name}, {at}: {number(y)} {interval(bounds)}"])


def layout_of(**parts: Any) -> Figure:
    """A layout that neither pans nor zooms."""
    plain: Figure = rounded({"dragmode": False, "hovermode": "closest", "showlegend": False, **parts})
    return plain


def _ticks(axis: Axis) -> Figure:
    """Tick labels by index, since tokens repeat; wordy ones stand at an angle, and a long axis skips some."""
    n = len(axis.labels)
    step = 1 if n <= 60 else -(-n // 60)
    kept = list(range(0, n, step)) if axis.name else []
    words = [text(token_label(re.sub(" {2,}", " ", axis.labels[ix]))) for ix in kept]
    title = {"title": {"text": text(axis.name), "standoff": 8}} if axis.name and not is_wordy(axis) else {}
    angle = {"tickangle": -45} if is_wordy(axis) else {"tickangle": 0}
    shape = {"fixedrange": True, "showgrid": False, "zeroline": False, "ticks": "", "automargin": True}
    return {"tickvals": kept, "ticktext": words, "range": [-0.5, n - 0.5], **shape, **title, **angle}


def is_wordy(axis: Axis) -> bool:
    """Whether an axis has words as labels, rather than numbers."""
    return any(len(label) > 3 for label in axis.labels)


def _rows(cells: Sequence[Any], down: Axis) -> list[list[Any]]:
    width = len(cells) // max(len(down.labels), 1)
    return [list(cells[start : start + width]) for start in range(0, len(cells), width or 1)]


def level(y: float, dash: str) -> Figure:
    """A line across at one height."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": y,
        "y1": y,
        "layer": "below",
        "line": {"width": 1, "dash": dash},
    }


def level_label(y: float, words: str) -> Figure:
    """Words at the left end of such a line."""
    return {
        "xref": "paper", "x": 0, "xanchor": "left", "y": y, "yanchor": "bottom", "text": words, "showarrow": False,
        "font": {"size": 11},
    }  # fmt: skip
