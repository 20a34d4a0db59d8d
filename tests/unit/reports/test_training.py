"""The emergence page: comparable runs in one chart with a colour each, phase changes marked, patterns at checkpoints."""

import json
import re
from base64 import b64decode
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import training_samples as samples

from optrode.reports import report, show
from optrode.reports.folder import read_run, write_run
from optrode.reports.forming import kept_steps
from optrode.store.listing import list_runs
from optrode.train.records import Series


@pytest.fixture(name="page", scope="module")
def _page():
    return report(*samples.everything())


def section(page, key):
    return next(one for one in page.sections if one.key == key)


def series_of(figure):
    return [trace for trace in figure["data"] if trace["meta"]["role"].startswith("series")]


def test_sections_in_reading_order(page):
    keys = ["runs", "loss", "measures", "growth", "patterns", "provenance"]
    assert [one.key for one in page.sections] == keys and page.title == "Training: free against clamped"


def test_runs_are_overlaid_with_one_colour_each(page):
    figures = [figure for one in page.sections for figure in one.figures.values()]
    assert len(figures) == 6
    for figure in figures:
        go.Figure(data=figure["data"], layout=figure["layout"])
        colours = {trace["name"]: trace["meta"]["role"] for trace in series_of(figure)}
        assert colours == {"free": "series-0", "clamped": "series-1"}
        assert figure["layout"]["xaxis"]["range"] == figures[0]["layout"]["xaxis"]["range"]


def test_seeds_of_one_name_share_a_colour_and_are_told_apart_in_the_table():
    page = report(samples.training_run(), samples.training_run(random_seed=1), samples.training_run("clamped"))
    loss = section(page, "loss").figures["loss-steps"]
    assert [trace["meta"]["role"] for trace in series_of(loss)] == ["series-0", "series-0", "series-1"]
    assert [trace["showlegend"] for trace in series_of(loss)] == [True, False, True]
    assert "free, seed 0" in section(page, "runs").body and "free, seed 1" in section(page, "runs").body


def test_phase_changes_are_marked_where_they_are(page):
    loss = section(page, "loss").figures["loss-steps"]
    marks = {trace["meta"]["role"]: trace["x"] for trace in loss["data"] if trace["name"] == "phase change"}
    assert set(marks) == {"change-0", "change-1"}
    assert 400 < marks["change-0"][0] < 560 and 75 < marks["change-1"][0] < 108
    lines = {(shape["name"], shape["x0"]) for shape in loss["layout"]["shapes"]}
    assert lines == {("series-0", marks["change-0"][0]), ("series-1", marks["change-1"][0])}
    for key in ("measures", "growth"):
        for figure in section(page, key).figures.values():
            assert {(shape["name"], shape["x0"]) for shape in figure["layout"]["shapes"]} == lines
    free, clamped = marks["change-0"][0], marks["change-1"][0]
    assert f"The loss changes abruptly at step {free} in free and at step {clamped} in clamped." in page.lead


def test_a_run_without_a_phase_change_is_said_to_have_none():
    flat = replace(samples.training_run(), name="flat", loss=Series(tuple(range(50)), (0.7,) * 50), measures={})
    assert "The loss of flat has no phase change." in report(flat).lead
    assert "; that of flat has no phase change." in report(samples.training_run("clamped"), flat).lead


def test_step_zero_has_a_place_on_both_axes(page):
    figure = section(page, "loss").figures["loss-steps"]
    zero = figure["views"]["zero"]
    assert zero == 0.5 and figure["data"][0]["x"][:3] == [0.5, 1, 2]
    log, linear = figure["views"]["log"], figure["views"]["linear"]
    assert log["tickvals"] == [0.5, 1, 10, 100, 1000] and log["ticktext"] == ["0", "1", "10", "100", "1,000"]
    assert log["range"][0] < np.log10(0.5) and log["range"][1] > 3 and linear["range"] == [-20, 1020]
    assert figure["layout"]["xaxis"]["type"] == "log"


def test_patterns_are_those_of_the_record(page):
    forming = section(page, "patterns").data["forming"]
    assert forming["steps"] == list(samples.KEPT) and len(forming["blocks"]) == 2
    for name, block in zip(("free", "clamped"), forming["blocks"], strict=True):
        cells = np.frombuffer(b64decode(block["cells"]), dtype=np.uint8) / 255
        shape = (len(samples.KEPT), block["layers"], block["heads"], block["n"], block["n"])
        assert shape == (21, 2, 8, 5, 5) and block["tokens"] == list(samples.TOKENS)
        assert np.abs(cells.reshape(shape) - samples.patterns(name, samples.KEPT)).max() <= 0.5 / 255 + 1e-6
    assert section(page, "patterns").body.count("<canvas") == 32


def test_too_many_patterns_are_thinned_and_this_is_told():
    assert kept_steps(5, 10, 1000).tolist() == [0, 1, 2, 3, 4]
    assert kept_steps(101, 10, 110).tolist() == list(range(0, 101, 10))
    assert kept_steps(9, 10, 5).tolist() == [0, 8]
    seen = samples.emergence()
    many = replace(seen.prompts[0], patterns=np.zeros((21, 60, 2, 60, 60), dtype=np.float32), tokens=("a",) * 60)
    body = section(report(replace(seen, layers=tuple(range(60)), prompts=(many,))), "patterns").body
    assert "8 of 21 checkpoints are on this page and the first 48 of 60 layers are drawn" in body


def test_a_run_that_was_looked_at_twice_is_told_apart():
    page = report(samples.emergence(), samples.emergence("free", (samples.GATE,)))
    figure = section(page, "growth").figures["growth-0"]
    assert [trace["name"] for trace in series_of(figure)] == ["free", "free, 1 gate held"]
    assert page.title == "Training: free" and "21 checkpoints of free." in page.lead


def test_measures_of_one_run_only_and_empty_ones():
    run = replace(samples.training_run(), measures={"mine": Series((0, 10), (1.0, 2.0)), "empty": Series((), ())})
    page = report(run, samples.training_run("clamped"))
    titles = re.findall(r"<h3>(.*?)</h3>", section(page, "measures").body)
    assert titles == ["mine", "induction", "accuracy on held-out pairs", "previous token"]


def test_a_run_of_nothing_makes_a_page():
    run = replace(samples.training_run(), loss=Series((), ()), measures={}, checkpoints=(), n_steps=0)
    assert [one.key for one in report(run).sections] == ["runs", "provenance"]


@pytest.mark.parametrize("record", samples.everything()[::2], ids=lambda record: type(record).__name__)
def test_a_record_alone_shows_in_a_notebook(record):
    page = show(record)
    assert page.sections and "provenance" not in [one.key for one in page.sections]


def test_folders_of_training_make_a_page_and_are_listed(tmp_path):
    free, clamped, seen, _ = samples.everything()
    write_run(tmp_path / "free", {"training": free, "emergence": seen})
    write_run(tmp_path / "clamped", {"training": clamped})
    (tmp_path / "free" / "state.json").write_text(json.dumps({"step": 3, "file": "x", "notes": {}}))
    one = read_run(tmp_path / "free")
    assert one["training"] == free and np.array_equal(one["emergence"].prompts[0].patterns, seen.prompts[0].patterns)
    both = read_run(tmp_path)
    assert sorted(both) == ["clamped/training", "free/emergence", "free/training"]
    assert report(*both.values()).title == "Training: clamped against free"
    listed = {run.name: run for run in list_runs(tmp_path)}
    assert listed["free"].holds == ("emergence", "training") and listed["clamped"].model == "attention-only"
