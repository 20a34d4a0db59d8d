"""Edge circuits in a real browser: the slider, clicks, keyboard and panel say what the records say."""

import os
import re
from dataclasses import replace

import edge_samples as edges
import numpy as np
import pytest
import samples
from browsing import until

from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.records import EdgeCircuit, EdgeScores
from optrode.reports import figure_html, report

pytestmark = [
    pytest.mark.page,
    pytest.mark.skipif(os.environ.get("OPTRODE_SKIP_PAGES") == "1", reason="OPTRODE_SKIP_PAGES=1"),
]

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edges")
    return report(samples.task(), edges.circuit(), edges.proof(), edges.method_table()).save(folder / "edges.html")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return report(edges.tiny_circuit()).save(tmp_path_factory.mktemp("tiny") / "tiny.html")


def shown(circuit, ix):
    return circuit.edges[ix].replace("->", "→")


def panel(page):
    return page.locator("#edge-details").inner_text()


def box(page, label):
    return page.locator(f".box:has(text.name:text-is('{label}'))")


def slide(page, n):
    page.locator("#n-edges").evaluate("(one, n) => { one.value = n; one.dispatchEvent(new Event('input')); }", n)


def boxes(page, selector):
    corners = "(one) => { const b = one.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; }"
    return page.eval_on_selector_all(selector, f"all => all.map({corners})")


def are_apart(one, other, slack=0.5):
    beside = one[2] <= other[0] + slack or other[2] <= one[0] + slack
    return beside or one[3] <= other[1] + slack or other[3] <= one[1] + slack


def test_headline_graph_and_figures_are_there(visit, file):
    page = visit(file)
    assert "412 of 70,651 edges keep 0.91 [0.86, 0.95]" in page.locator(".headline").inner_text()
    assert page.locator("[data-edge]").count() == 60
    assert page.locator(".drawn output").inner_text().startswith("60 of 412 edges drawn, with ")
    figures = {"edge-spot", "edge-curve", "edge-minimality", "method-curves", "method-curves-signed", "method-overlap"}
    assert set(page.eval_on_selector_all(".plot", "all => all.map((one) => one.id)")) == figures


def test_slider_draws_the_strongest_edges_and_says_what_it_leaves_out(visit, file):
    page, circuit = visit(file), edges.circuit()
    sizes = np.sort(np.abs(circuit.scores.values[circuit.is_in]))[::-1]
    for n in (300, 1, 25):
        slide(page, n)
        assert page.locator("[data-edge]").count() == n
        share = round(100 * sizes[:n].sum() / sizes.sum())
        said = page.locator(".drawn output").inner_text()
        assert said == f"{n} of 412 edges drawn, with {share} % of the summed size of effects; {412 - n} weaker ones are not"
        chosen = circuit.scores.ranked()[:n]
        touched = set(circuit.graph.nodes_of(np.isin(np.arange(circuit.n_all), chosen))) - {"embed"}
        drawn = page.eval_on_selector_all(".box:not(.end) .name", "all => all.map((one) => one.textContent)")
        assert {re.sub(r"^MLP (\d+)$", r"m\1", re.sub(r"^(\d+)\.(\d+)$", r"a\1.h\2", name)) for name in drawn} == touched


def test_click_on_a_node_tells_its_edges_in_and_out(visit, file):
    page, circuit, proof = visit(file), edges.circuit(), edges.proof()
    assert panel(page).startswith("Strongest edges") and shown(circuit, 0) in panel(page)
    box(page, "21.4").click()
    said = panel(page)
    incoming = [name for name in circuit.edges if re.search(r"-> (a21\.h4\.q|a21\.g1\.[kv])$", name)]
    outgoing = [name for name in circuit.edges if name.startswith("a21.h4 -> ")]
    assert "Head 21.4" in said and "blocks.21.attn.z[head=4]" in said and "which 3 heads share" in said
    assert f"Reads from: {len(incoming)}" in said and f"Is read by: {len(outgoing)}" in said
    assert "a8.h2 → v" in said and f"{proof.minimality[0].lost:.3f}" in said
    on = page.eval_on_selector_all(".link.on", "all => all.map((one) => Number(one.dataset.edge))")
    assert {circuit.edges[ix] for ix in on} == {name for name in (*incoming, *outgoing) if circuit.edges.index(name) < 60}
    assert page.locator("[aria-pressed='true']").count() == 1


def test_click_on_an_edge_tells_its_effect(visit, tiny):
    page, circuit = visit(tiny), edges.tiny_circuit()
    page.evaluate("document.querySelector('[data-edge=\"3\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    said = panel(page)
    assert said.startswith(shown(circuit, 3)) and "4 of 7" in said and "−1 [" in said and "not measured" in said
    assert page.locator(".link.on").count() == 1
    page.locator("#edge-details .pick").first.click()
    assert panel(page).startswith("Head 0.0") and page.evaluate("document.activeElement.tagName") == "H3"
    page.keyboard.press("Escape")
    assert panel(page).startswith("Strongest edges") and page.locator(".has-choice").count() == 0


def test_hover_over_an_edge_reads_its_effect(visit, file):
    page, circuit = visit(file), edges.circuit()
    link = page.locator("[data-edge='0']")
    link.scroll_into_view_if_needed()
    where = (
        "(one) => { const path = one.querySelector('.hit'), half = path.getPointAtLength(path.getTotalLength() * 0.5);"
        "const at = half.matrixTransform(path.getScreenCTM()); return [at.x, at.y]; }"
    )
    assert page.locator(".edge-note").is_hidden()
    page.mouse.move(*link.evaluate(where))
    assert shown(circuit, 0) in page.locator(".edge-note").inner_text()
    assert "effect 1.64 [" in page.locator(".edge-note").inner_text() and "logits" in page.locator(".edge-note").inner_text()
    page.mouse.move(2, 2)
    assert page.locator(".edge-note").is_hidden()


def test_an_edge_chosen_in_a_table_is_drawn(visit, file):
    page = visit(file)
    box(page, "21.4").click()
    page.locator(".hidden-edge .pick").first.click()
    rank = int(re.search(r"([\d,]+) of 412", panel(page))[1])
    assert rank > 60 and page.locator("[data-edge]").count() == rank and page.locator(".link.on").count() == 1


def test_keyboard_moves_between_nodes_and_opens_them(visit, tiny):
    page = visit(tiny)
    assert page.locator(".box[tabindex='0']").count() == 1
    page.locator("#n-edges").focus()
    page.keyboard.press("Tab")
    focused = "document.activeElement.querySelector('.name').textContent"
    start = page.evaluate(focused)
    assert start == "0.0"
    for key, expected in (("ArrowDown", "embed"), ("ArrowUp", "0.0"), ("ArrowUp", "MLP 0"), ("ArrowUp", "1.0")):
        page.keyboard.press(key)
        assert page.evaluate(focused) == expected
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert panel(page).startswith("logits") and "a1.h0" in panel(page)


@pytest.mark.parametrize("n", [60, 300])
def test_boxes_never_overlap_and_edges_start_and_end_at_them(visit, file, n):
    page = visit(file)
    slide(page, n)
    frames = boxes(page, ".frame, .bar rect")
    frame = page.locator("svg.edge-circuit").bounding_box()
    for ix, (left, top, right, bottom) in enumerate(frames):
        assert left >= frame["x"] - 0.5 and right <= frame["x"] + frame["width"] + 0.5
        assert all(are_apart((left, top, right, bottom), other) for other in frames[:ix])
    ends = page.evaluate("""() => [...document.querySelectorAll('.seen')].map((path) => {
        const to = path.getScreenCTM(), at = (length) => path.getPointAtLength(length).matrixTransform(to);
        const start = at(0), end = at(path.getTotalLength());
        return [start.x, start.y, end.x, end.y];
    })""")
    assert len(ends) == n
    for x1, y1, x2, y2 in ends:
        assert y2 < y1, "the computation runs upwards"
        assert any(left <= x1 <= right and abs(y1 - top) < 0.6 for left, top, right, _ in frames)
        assert any(left <= x2 <= right and abs(y2 - bottom) < 0.6 for left, _, right, bottom in frames)


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_page_is_wider_than_its_window(visit, file, width):
    page = visit(file, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_a_phone_the_panel_is_in_view_beside_the_graph(visit, file):
    page = visit(file, width=390)
    box(page, "9.0").click()
    until(page, "document.getElementById('edge-details').innerText.startsWith('Head 9.0')")
    frame = page.locator("#edge-details").bounding_box()
    assert frame["y"] >= 0 and frame["y"] + frame["height"] <= 900 and frame["height"] <= 0.37 * 900


def test_a_wide_model_shares_rows_among_the_heads_that_are_drawn(visit, tmp_path):
    graph = Graph(3, 32, 8, is_parallel=True)
    per_prompt = np.random.default_rng(0).standard_normal((4, graph.n_edges))
    scores = EdgeScores("ioi", "logit_gap", "logits", "eap", "zero", graph, per_prompt, samples.provenance())
    circuit = EdgeCircuit("ioi", np.ones(graph.n_edges, dtype=bool), "absolute", 0.0, scores, (), samples.provenance())
    page = visit(report(circuit).save(tmp_path / "wide.html"))
    slide(page, 5)
    frames = boxes(page, ".frame")
    assert all(are_apart(one, other) for ix, one in enumerate(frames) for other in frames[:ix])
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_dark_mode_changes_the_colours_of_the_graph(visit, tiny):
    light, dark = visit(tiny, color_scheme="light"), visit(tiny, color_scheme="dark")
    for what, how in ((".seen", "stroke"), (".frame", "fill"), (".name", "fill")):
        found = f"getComputedStyle(document.querySelector('.edge-circuit {what}')).{how}"
        assert light.evaluate(found) != dark.evaluate(found)


def test_methods_are_a_table_curves_and_an_overlap(visit, file):
    page = visit(file)
    assert page.locator("#methods tbody tr").count() == 8
    assert page.locator("#method-curves .scatterlayer .trace").count() == 8
    assert page.locator("#method-overlap .heatmaplayer image").count() == 1
    assert "0.75 is a circuit that keeps nothing" in page.locator("#methods").inner_text()


def test_hostile_text_stays_text(visit, tmp_path):
    circuit = edges.tiny_circuit()
    circuit = replace(circuit, scores=replace(circuit.scores, unit=HOSTILE, notes=(HOSTILE,)), selection=HOSTILE)
    page = visit(report(circuit, title=HOSTILE).save(tmp_path / "hostile.html"))
    assert HOSTILE in page.locator("#edge-scores .warn").first.inner_text()
    page.evaluate("document.querySelector('[data-edge=\"0\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert HOSTILE in panel(page) and page.locator("main img").count() == 0


def test_a_circuit_alone_shows_in_a_notebook(visit, tmp_path):
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><body>{figure_html(edges.tiny_circuit())}</body>")
    page = visit(notebook)
    frame = page.frames[1]
    frame.wait_for_selector(".box")
    assert frame.locator("[data-edge]").count() == 7
    until(page, "document.querySelector('iframe').clientHeight > 450")
