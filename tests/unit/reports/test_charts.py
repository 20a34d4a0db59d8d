"""Charts, maps and slides as figures: every number where it belongs, one colour per name, gaps where an axis ends."""

import math

import plotly.graph_objects as go
import pytest
import study_samples as samples

from optrode.claims import Chart, Line, Map, Slides
from optrode.errors import BadOption
from optrode.reports.charts import chart_figure, chart_numbers, log_ticks, tick_text, tones
from optrode.reports.slides import map_block, slides_block

LINES = (
    Line("free", (0.0, 1.0, 10.0), (1.0, 0.5, 0.0)),
    Line("clamped", (1.0, 10.0), (0.9, 0.1), (0.8, 0.0), (1.0, 0.2)),
    Line("free", (0.0, 1.0), (1.1, 0.6)),
)


def chart(**more):
    return Chart("It falls", "step", "loss (nats)", LINES, **more)


def roles(figure):
    return [trace["meta"]["role"] for trace in figure["data"]]


def test_lines_of_one_name_share_a_colour_and_one_entry_of_the_legend():
    figure = chart_figure(chart())
    assert roles(figure) == ["series-0", "edge", "band-1", "series-1", "series-0"]
    assert [trace["showlegend"] for trace in figure["data"]] == [True, False, False, True, False]
    assert tones(["b", "a", "b"]) == {"b": 0, "a": 1}


def test_points_stand_where_they_were_given():
    figure = chart_figure(chart())
    assert figure["data"][0]["x"] == [0, 1, 10] and figure["data"][0]["y"] == [1, 0.5, 0]
    low, high = figure["data"][1:3]
    assert low["y"] == [0.8, 0] and high["y"] == [1, 0.2] and high["fill"] == "tonexty" and "fill" not in low
    assert figure["layout"]["xaxis"]["title"]["text"] == "step"


def test_a_logarithmic_axis_has_gaps_at_zero_and_bands_that_stay_on_it():
    figure = chart_figure(chart(log_x=True, log_y=True))
    assert figure["data"][0]["x"] == [None, 1, 10] and figure["data"][0]["y"] == [1, 0.5, None]
    assert figure["data"][1]["y"] == [0.8, 0.1]
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"


def test_marks_and_levels_stand_at_their_values_on_both_kinds_of_axis():
    more = {"marks": {"now": 10.0}, "levels": {"ln 2": 0.5}}
    for is_log in (False, True):
        layout = chart_figure(chart(log_x=is_log, log_y=is_log, **more))["layout"]
        across, along = layout["shapes"]
        assert across["y0"] == across["y1"] == 0.5 and along["x0"] == along["x1"] == 10
        level, mark = layout["annotations"]
        assert (mark["text"], mark["x"]) == ("now", 1 if is_log else 10)
        assert level["text"] == "ln 2" and level["y"] == pytest.approx(math.log10(0.5) if is_log else 0.5, rel=1e-4)


def test_bars_stand_at_their_labels_with_their_ranges():
    bars = (Line("K = 50", (0.0, 1.0), (2.0, 3.0), (1.5, 2.0), (2.25, 3.5)),)
    figure = chart_figure(Chart("Bars", "", "time", bars, "bars", ("none", "a <b>")))
    (bar,) = figure["data"]
    assert bar["customdata"] == ["none", "a &lt;b&gt;"] and bar["y"] == [2, 3] and bar["meta"]["role"] == "fill-0"
    assert bar["error_y"]["array"] == [0.25, 0.5] and bar["error_y"]["arrayminus"] == [0.5, 1]
    assert figure["layout"]["xaxis"]["ticktext"] == ["none", "a &lt;b&gt;"]


def test_dashes_and_more_names_than_colours():
    lines = tuple(Line(str(ix), (0.0,), (1.0,), dashed=ix == 1) for ix in range(9))
    figure = chart_figure(Chart("Many", "x", "y", lines))
    assert figure["data"][1]["line"] == {"dash": "dash"} and "line" not in figure["data"][7]
    assert figure["data"][8]["meta"]["role"] == "series-0" and figure["data"][8]["line"] == {"dash": "dot"}


def test_ticks_are_plain_numbers():
    assert log_ticks([1.0, 30000.0])["ticktext"] == ["1", "10", "100", "1,000", "10,000"]
    assert log_ticks([0.2, 1.0])["ticktext"] == ["0.2", "0.5", "1"]
    assert [tick_text(value) for value in (1e-5, 0.001, 20.0, 1e6, 2e6)] == [
        "10<sup>-5</sup>", "0.001", "20", "10<sup>6</sup>", "2×10<sup>6</sup>",
    ]  # fmt: skip
    assert log_ticks([0.0, -1.0, math.nan]) == {}


def test_the_numbers_are_also_a_table():
    words = chart_numbers(chart())
    assert "<td>0: 1</td><td>10: 0</td><td>10: 0</td><td>0: 1</td>" in words
    bars = chart_numbers(Chart("Bars", "", "time", (Line("K", (0.0,), (2.0,), (1.5,), (2.5,)),), "bars", ("none",)))
    assert '<th scope="row">none</th><td>K</td><td>2 [1.5, 2.5]</td>' in bars


def test_figures_are_what_plotly_takes():
    found = samples.figures()
    figures = [chart_figure(one) for one in found.charts]
    for block in (map_block(found.maps[0], "m"), slides_block(found.slides[0], "s")):
        figures += block[1].values()
    for figure in figures:
        go.Figure(data=figure["data"], layout=figure["layout"])


def test_a_line_whose_numbers_do_not_fit_is_refused():
    for line in (Line("a", (1.0, 2.0), (1.0,)), Line("a", (1.0,), (1.0,), (0.5,))):
        with pytest.raises(BadOption, match=r"chart 'It falls': line 'a' has . x, 1 y, .* low.*as many of each"):
            chart_figure(Chart("It falls", "x", "y", (line,)))


def cells(*rows, **more):
    names = tuple(str(ix) for ix in range(len(rows)))
    columns = tuple(str(ix) for ix in range(len(rows[0])))
    return Map("Cells", "down", "across", names, columns, tuple(rows), **more)


def test_a_map_has_its_cells_gaps_and_scale():
    body, figures, _ = map_block(cells((0.5, None), (0.25, 1.0), unit="nats"), "m")
    (trace,) = figures["m"]["data"]
    assert trace["z"] == [[0.5, None], [0.25, 1]] and (trace["zmin"], trace["zmax"]) == (0, 1)
    assert trace["customdata"][0] == ["<b>0, 0</b><br>0.5 nats", "<b>0, 1</b><br>none nats"]
    assert "Greatest: 1 at 1, 1" in body
    for more, least in (({"is_signed": True}, 0.5), ({}, -0.5)):
        (trace,) = map_block(cells((0.25, least), **more), "m")[1]["m"]["data"]
        assert (trace["zmin"], trace["zmax"]) == (-0.5, 0.5), "zero is the middle where values have both signs"


def test_slides_share_one_scale_and_start_at_the_last_step():
    shown = Slides("Slides", "step", ("0", "10"), (cells((0.0, 4.0)), cells((1.0, 2.0))))
    body, figures, data = slides_block(shown, "s")
    (trace,) = figures["s"]["data"]
    assert trace["z"] == [[1, 2]] and trace["zmax"] == 4
    assert data["s"]["cells"] == [[[0, 4]], [[1, 2]]] and data["s"]["steps"] == ("0", "10")
    assert 'min="0" max="1" step="1" value="1"' in body


def test_maps_and_slides_that_do_not_fit_are_refused():
    with pytest.raises(BadOption, match="map 'Cells': 1 and 2 labels, and 1 rows of .1. cells"):
        map_block(Map("Cells", "a", "b", ("0",), ("0", "1"), ((1.0,),)), "m")
    with pytest.raises(BadOption, match="2 steps and 1 map"):
        slides_block(Slides("Slides", "step", ("0", "10"), (cells((0.0,)),)), "s")
    with pytest.raises(BadOption, match="different labels"):
        slides_block(Slides("Slides", "step", ("0", "10"), (cells((0.0,)), cells((0.0, 1.0)))), "s")
