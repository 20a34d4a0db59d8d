"""Plotly figures of edges: faithfulness over the share of edges, for one circuit or for many methods, and their overlap."""

import math
from collections.abc import Sequence
from typing import Any, Final

from optrode.circuit.edge.records import EdgeCircuit, EdgeCurve, EdgeProof, MethodRow, MethodTable
from optrode.reports.edges.words import by_cmd
from optrode.reports.figures import LEGEND, Figure, dot, heat, layout_of, level, level_label, text, trace_of
from optrode.reports.words import interval, number, short, whole
from optrode.trial.grid import Axis

TICKS: Final = tuple(step * 10**power for power in range(-5, 3) for step in (1, 2, 5) if step * 10**power <= 100)
SERIES: Final = 8
MOST_WRITTEN: Final = 14
CEILING: Final = 2.0


def percent(share: float) -> str:
    """A share as a percentage of any size: "0.58 %"."""
    return f"{short(100 * share)} %"


def share_curve(proof: EdgeProof, circuit: EdgeCircuit | None) -> Figure:
    """Faithfulness over the share of edges by each selection, the circuit, random circuits, and what is left without it."""
    traces: list[Figure] = []
    for curve in sorted(proof.curves, key=lambda curve: curve.selection):
        traces += _curve_traces(curve)
    share, rest = proof.size / proof.n_all, 1 - proof.size / proof.n_all
    if proof.random:
        words = [f"random circuit of {whole(proof.size)} edges: {number(value)}" for value in proof.random]
        traces.append(
            trace_of([100 * share] * len(words), proof.random, "random", "random circuits of its size", text=words)
        )
    at = f"{whole(proof.size)} edges, {percent(share)}"
    traces.append(dot(100 * share, proof.faithfulness, proof.interval, "chosen", "the circuit", at))
    at = f"{whole(proof.n_all - proof.size)} edges"
    traces.append(dot(100 * rest, proof.without, proof.without_interval, "rest", "all edges but the circuit", at))
    shares = [share, rest, *(point.share for curve in proof.curves for point in curve.points)]
    return {"data": traces, "layout": _share_layout(shares, circuit.target if circuit else 0.0)}


def _curve_traces(curve: EdgeCurve) -> list[Figure]:
    points = [point for point in sorted(curve.points, key=lambda point: point.share) if point.share > 0]
    x, name = [100 * point.share for point in points], f"{curve.selection} selection"
    hover = [
        f"{whole(point.size)} edges, {percent(point.share)}: {number(point.faithfulness)} {interval(point.interval)}"
        for point in points
    ]
    values = [point.faithfulness for point in points]
    if curve.selection != "absolute":
        look = "second" if curve.selection == "signed" else "series-2"
        return [trace_of(x, values, look, name, mode="lines+markers", text=hover)]
    low, high = [point.interval.low for point in points], [point.interval.high for point in points]
    return [
        trace_of(x, low, "edge", mode="lines", showlegend=False, hoverinfo="skip"),
        trace_of(x, high, "band", "95 % interval (absolute)", mode="lines", fill="tonexty", hoverinfo="skip"),
        trace_of(x, values, "line", name, mode="lines+markers", text=hover),
    ]


def method_curves(rows: Sequence[MethodRow], *, is_signed: bool) -> Figure:
    """Every method's faithfulness over the share of edges, in the order and colours of the table."""
    traces, shares, values = [], [1.0], [0.0, 1.0]
    for ix, row in enumerate(rows):
        points = [point for point in (row.points_signed if is_signed else row.points) if point[0] > 0]
        words = [f"<b>{text(row.method)}</b><br>{percent(share)}: {number(value)}" for share, value in points]
        x, y = [100 * share for share, _ in points], [value for _, value in points]
        line = {"line": {"dash": "dash"}} if ix >= SERIES else {}
        traces.append(trace_of(x, y, f"series-{ix % SERIES}", text(row.method), mode="lines+markers", text=words, **line))
        shares += [share for share, _ in points]
        values += [value for value in y if math.isfinite(value)]
    layout = _share_layout(shares, 0.0)
    # A method that overshoots widely would press all others together; its line then leaves the figure, hover tells it.
    low, high = max(min(values), -CEILING / 2), min(max(values), CEILING)
    layout["yaxis"] |= {"range": [low - 0.06, high + 0.06]}
    return {"data": traces, "layout": layout}


def overlap(table: MethodTable) -> Figure:
    """Jaccard index of the circuits of every two methods, in the order of the table."""
    ranked = by_cmd(table)
    at = {row.method: ix for ix, row in enumerate(table.rows)}
    cells = [[table.jaccard[at[one.method]][at[two.method]] for two in ranked] for one in ranked]
    hover = [
        [f"<b>{text(one.method)}</b> and <b>{text(two.method)}</b><br>{number(cells[row][column], 3)}" for column, two in
         enumerate(ranked)]
        for row, one in enumerate(ranked)
    ]  # fmt: skip
    names = Axis("method", tuple(row.method for row in ranked))
    figure = heat(cells, hover, names, names, limit=1.0, scale="sequential")
    full = [text(row.method) for row in ranked]
    figure["layout"]["xaxis"] |= {"ticktext": full}
    figure["layout"]["yaxis"] |= {"ticktext": full, "tickangle": 0, "ticklabelstandoff": 4}
    if len(ranked) <= MOST_WRITTEN:
        figure["data"][0] |= {"text": [[number(value) for value in row] for row in cells], "texttemplate": "%{text}"}
    return figure


def _share_layout(shares: Sequence[float], target: float) -> Figure:
    low = 100 * min((share for share in shares if share > 0), default=1.0)
    ticks = [tick for tick in TICKS if tick >= low * 0.99]
    xaxis: dict[str, Any] = {
        "title": {"text": "share of the edges (%)"}, "type": "log",
        "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks],
        "range": [math.log10(low) - 0.08, 2.08], "automargin": True, "fixedrange": True, "zeroline": False,
    }  # fmt: skip
    yaxis = {"title": {"text": "faithfulness"}, "fixedrange": True, "zeroline": True, "automargin": True}
    shapes = [level(1.0, "solid"), *([level(target, "dash")] if target else [])]
    notes = [level_label(target, f"target {number(target)}")] if target else []
    margin = {"l": 54, "r": 12, "t": 12, "b": 44}
    layout = layout_of(xaxis=xaxis, yaxis=yaxis, margin=margin, shapes=shapes, annotations=notes)
    return layout | {"showlegend": True, "legend": LEGEND}
