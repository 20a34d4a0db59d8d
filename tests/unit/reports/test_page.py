"""The page as text: complete, escaped, the same whatever the order of its parts."""

import html
import json
import random
import re
from dataclasses import replace

import plotly.graph_objects as go
import pytest
import samples

from optrode.errors import BadOption
from optrode.reports import Page, figure_html, load_ipython_extension, report, show
from optrode.reports.figures import curve, grid_heat, head_heat, minimality, node_heat, rounded, spot_check
from optrode.reports.graph import PILL, TALL, place
from optrode.reports.nodes import node_name, token_label
from optrode.reports.parts import KINDS
from optrode.trial.grid import Axis

HOSTILE = "<script>alert(1)</script>"
SECTIONS = ["task", "grids", "heads", "scores", "circuit", "attention", "proof", "provenance"]


def data_of(page: Page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html(), re.S)

    def refuse(word):
        raise AssertionError(f"{word} in the page's JSON")

    return json.loads(found[1], parse_constant=refuse)


def keys(page: Page):
    return [section.key for section in page.sections]


def test_every_section_of_a_whole_investigation():
    assert keys(report(*samples.everything())) == SECTIONS


def test_parts_in_any_order_give_the_same_page():
    parts = list(samples.everything())
    grids = [part for part in parts if type(part).__name__ == "Grid"]
    others = [part for part in parts if type(part).__name__ != "Grid"]
    expected = report(*parts).html()
    random.Random(0).shuffle(others)
    assert report(*others, *grids).html() == expected


@pytest.mark.parametrize("part", samples.everything(), ids=lambda part: type(part).__name__)
def test_any_record_alone_makes_a_page(part):
    page = report(part)
    assert page.sections and data_of(page) is not None
    assert f"<title>{html.escape(page.title)}</title>" in page.html()


def test_title_is_the_callers_when_given():
    page = report(samples.task(), title="Names & <names>")
    assert page.title == "Names & <names>" and "<h1>Names &amp; &lt;names&gt;</h1>" in page.html()


def test_numbers_that_are_not_finite_become_null():
    grid = samples.residual_grid()
    values = ((float("nan"),) * len(grid.base), (float("inf"),) * len(grid.base), *grid.values[2:])
    page = report(replace(grid, values=values, is_null=(False,) * len(values)))
    assert data_of(page)["figures"]["grid-0"]["data"][0]["z"][0][:2] == [None, None]


def test_text_of_records_never_becomes_markup():
    task = samples.task()
    pair = task.pairs[0]
    hostile = replace(pair, clean_tokens=(HOSTILE, *pair.clean_tokens[1:]), marks={HOSTILE: 2}, right_tokens=(HOSTILE,))
    task = replace(task, description=HOSTILE, pairs=(hostile, *task.pairs[1:]), dropped=(samples.Dropped(HOSTILE, 1),))
    circuit = samples.circuit()
    views = (replace(circuit.heads[0], role=HOSTILE, route=HOSTILE), *circuit.heads[1:])
    circuit = replace(circuit, tokens=(HOSTILE, *circuit.tokens[1:]), heads=views)
    grid = samples.residual_grid()
    grid = replace(grid, title=HOSTILE, unit=HOSTILE, axes=(grid.axes[0], Axis("pos", (HOSTILE, *grid.axes[1].labels[1:]))))
    heads = replace(samples.head_scores(), kinds=(HOSTILE, "b", "c"))
    text = report(task, circuit, grid, heads, title=HOSTILE).html()
    assert HOSTILE not in text and "alert(1)</" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 8


def test_nothing_is_loaded_and_only_own_scripts_run():
    text = report(*samples.everything()).html()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert re.search(r"script-src ('sha256-[\w+/=]+' ?)+;", policy)
    without_scripts = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", without_scripts)


def test_size():
    assert len(report(*samples.everything()).html().encode()) < 8_000_000
    assert len(report(samples.task()).html()) < 200_000, "a page without Plotly figures carries no Plotly"


def test_notebook_shows_the_same_page():
    page = report(*samples.everything())
    frame = page._repr_html_()
    assert frame.startswith("<iframe ") and html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == page.html()


@pytest.mark.parametrize("part", samples.everything(), ids=lambda part: type(part).__name__)
def test_a_record_alone_shows_the_figures_that_the_page_shows(part):
    shown = {key: figure for section in show(part).sections for key, figure in section.figures.items()}
    full = {key: figure for section in report(part).sections for key, figure in section.figures.items()}
    assert shown.items() <= full.items()
    assert figure_html(part) == show(part)._repr_html_()


def test_notebook_learns_every_kind_of_record():
    class Formatter(dict):
        def for_type(self, kind, function):
            self[kind.__name__] = function

    class Shell:
        class display_formatter:
            formatters = {"text/html": Formatter()}

    load_ipython_extension(Shell)
    known = Shell.display_formatter.formatters["text/html"]
    assert set(known) == {kind.__name__ for kind in KINDS} and len(known) == 16
    assert known["Task"](samples.task()).startswith("<iframe ")


def test_save_writes_the_page(tmp_path):
    page = report(samples.task())
    target = page.save(tmp_path / "new" / "ioi.html")
    assert target.read_text(encoding="utf-8") == page.html()
    assert [path.name for path in target.parent.iterdir()] == ["ioi.html"]
    with pytest.raises(BadOption, match="folder"):
        page.save(tmp_path)


def test_figures_are_valid_plotly():
    circuit, proof, grid = samples.circuit(), samples.proof(), samples.residual_grid()
    figures = [grid_heat(grid, 1.0), head_heat(samples.head_scores(), 0, 1.0), node_heat(circuit.scores)]
    figures += [
        curve(proof, circuit),
        curve(proof, None),
        minimality(proof)[0],
        spot_check(circuit.scores.spot_check, "logits"),
    ]
    for figure in figures:
        go.Figure(json.loads(json.dumps(figure, allow_nan=False)))


def test_curve_holds_its_controls():
    proof = samples.proof()
    traces = {trace["name"]: trace for trace in curve(proof, samples.circuit())["data"]}
    assert traces["random circuits of its size"]["x"] == [20] * 20
    assert traces["all nodes but the circuit"]["x"] == [280] and traces["all nodes but the circuit"]["y"] == [0.12]
    assert traces["the circuit"]["y"] == [0.86]


def test_null_cells_are_gaps():
    grid = samples.residual_grid()
    z = grid_heat(grid, 1.0)["data"][0]["z"]
    assert z[3][0] is None and z[3][9] is not None


@pytest.mark.parametrize("n_axes", [0, 1, 3])
def test_grids_of_any_number_of_axes(n_axes):
    grid = samples.head_grid()
    axes = (Axis("layer", ("0", "1")), Axis("pos", ("a", "b", "c")), Axis("head", ("0", "1")))[:n_axes]
    n = 1
    for axis in axes:
        n *= len(axis.labels)
    grid = replace(grid, axes=axes, sites=grid.sites[:n], values=grid.values[:n], is_null=grid.is_null[:n])
    z = data_of(report(grid))["figures"]["grid-0"]["data"][0]["z"]
    assert sum(len(row) for row in z) == n


def test_pairs_without_text_show_ids():
    task = samples.task()
    pairs = tuple(replace(pair, clean_tokens=(), corrupt_tokens=()) for pair in task.pairs)
    text = report(replace(task, pairs=pairs)).html()
    assert f"id {pairs[0].right[0]}" in text


def test_answers_are_read_off_the_prompts_when_the_record_has_ids_only():
    assert 'Right <span class="chip right"' in report(samples.task()).html()
    assert '<i aria-hidden="true">·</i>Mary</span>' in report(samples.task()).html()


def test_no_two_nodes_of_the_graph_overlap():
    circuit = samples.circuit()
    crowd = tuple(replace(view, reads=12, writes=13) for view in circuit.heads)
    for heads in (circuit.heads, crowd, ()):
        nodes = place(replace(circuit, heads=heads), {}).nodes
        assert len(nodes) == circuit.size
        for ix, one in enumerate(nodes):
            assert all(abs(one.x - other.x) >= PILL or abs(one.y - other.y) >= TALL for other in nodes[:ix])


def test_different_weights_never_stand_together_unnoticed():
    proof = samples.proof()
    other = replace(proof, provenance=replace(proof.provenance, weights_hash="0" * 64))
    assert "2 different sets of weights" in report(samples.circuit(), other).html()
    assert "different sets of weights" not in report(samples.circuit(), proof).html()


def test_names_of_nodes_and_tokens():
    sites = ("blocks.18.attn.z[head=6]", "blocks.4.mlp_out", "embed")
    assert [node_name(site).label for site in sites] == ["18.6", "MLP 4", "embed"]
    assert [token_label(token) for token in (" Mary", "\n", " ", "", "a" * 20)] == ["Mary", "⏎", "␣", "∅", "a" * 13 + "…"]


def test_rounding_keeps_five_digits():
    assert rounded({"a": (1.23456789, 2.0, float("nan"), True, "x", None)}) == {"a": [1.2346, 2, None, True, "x", None]}


def test_no_id_is_given_twice():
    ids = re.findall(r' id="([^"]+)"', report(*samples.everything())._body())
    assert len(ids) == len(set(ids))
