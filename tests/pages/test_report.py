"""The page in a real browser, opened from disk: it draws, answers mouse and keyboard, and asks for nothing."""

import os
import re
from dataclasses import replace

import pytest
import samples
from browsing import until

from optrode.reports import figure_html, report

pytestmark = [
    pytest.mark.page,
    pytest.mark.skipif(os.environ.get("OPTRODE_SKIP_PAGES") == "1", reason="OPTRODE_SKIP_PAGES=1"),
]

HOSTILE = "<script>alert(1)</script>"
SECTIONS = {"task", "grids", "heads", "scores", "circuit", "attention", "proof", "provenance"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return report(*samples.everything()).save(tmp_path_factory.mktemp("page") / "report.html")


def point(page, plot, column, row, shape):
    """The middle of one cell of a heat map, rows counted from below."""
    area = page.locator(f"#{plot} .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    return box["x"] + (column + 0.5) * box["width"] / shape[1], box["y"] + box["height"] * (1 - (row + 0.5) / shape[0])


def panel(page):
    return page.locator("#node-details").inner_text()


def test_every_section_and_figure_is_there(visit, file):
    page = visit(file)
    assert set(page.eval_on_selector_all("main > section", "all => all.map((one) => one.id)")) == SECTIONS
    assert page.locator("h1").inner_text() == "Indirect object identification in smollm2"
    assert "keep 0.86 [0.81, 0.90]" in page.locator(".headline").inner_text()
    assert page.locator(".plot .heatmaplayer image").count() == 7
    assert page.locator("[data-node]").count() == 20 and page.locator("canvas").count() == 14
    for link in page.eval_on_selector_all("nav a", "all => all.map((one) => one.hash)"):
        assert page.locator(link).count() == 1


def test_hover_over_a_cell_tells_its_site_and_values(visit, file):
    page = visit(file)
    grid = samples.residual_grid()
    cell = 25 * 14 + 13
    page.mouse.move(*point(page, "grid-0", 13, 25, grid.shape))
    page.wait_for_selector("#grid-0 .hoverlayer .hovertext")
    shown = page.locator("#grid-0 .hoverlayer").text_content()
    assert grid.sites[cell] in shown and f"{grid.shares()[cell]:.3g}" in shown and "changed nothing" not in shown


def test_hover_over_a_null_cell_says_so(visit, file):
    page = visit(file)
    page.mouse.move(*point(page, "grid-0", 2, 10, (30, 14)))
    page.wait_for_selector("#grid-0 .hoverlayer .hovertext")
    shown = page.locator("#grid-0 .hoverlayer").text_content()
    assert "blocks.10.resid_pre[pos=2]" in shown and "the gate changed nothing" in shown


def test_click_on_a_node_fills_the_panel(visit, file):
    page = visit(file)
    assert "blocks.12.attn.z[head=3]" not in panel(page)
    page.locator("[data-node='1']").click()
    shown = panel(page)
    for words in (
        "12.3",
        "blocks.12.attn.z[head=3]",
        "S-inhibition",
        "end → s2",
        "Effect of ablating it",
        "Faithfulness lost",
    ):
        assert words in shown
    assert page.locator("#node-details svg rect").count() == 14 * 14 + 1
    assert page.locator("[data-node='1']").get_attribute("aria-pressed") == "true"
    assert page.locator("[aria-pressed='true']").count() == 1


def test_a_node_that_is_an_mlp_has_no_attention(visit, file):
    page = visit(file)
    page.locator("[data-node='2']").click()
    assert "blocks.0.mlp_out" in panel(page) and page.locator("#node-details svg").count() == 0


def test_keyboard_reaches_and_opens_a_node(visit, file):
    page = visit(file)
    page.locator("[data-node='4']").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.node") == "5"
    page.keyboard.press("Enter")
    assert node_site(5) in panel(page)


def node_site(ix):
    return samples.CIRCUIT[ix]


def test_hover_over_an_attention_map_reads_a_cell(visit, file):
    page = visit(file)
    canvas = page.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 1.5 * box["width"] / 14, box["y"] + 13.5 * box["height"] / 14)
    value = samples.circuit().heads[8].pattern[13][1]
    assert page.locator(".card output").first.inner_text() == f"to (end) → Mary (io): {value:.3f}"


def test_hostile_text_stays_text(visit, tmp_path):
    task, circuit, grid = samples.task(), samples.circuit(), samples.residual_grid()
    pair = replace(task.pairs[0], clean_tokens=(HOSTILE, *task.pairs[0].clean_tokens[1:]))
    task = replace(task, description=f'{HOSTILE}<img src=x onerror="alert(2)">', pairs=(pair, *task.pairs[1:]))
    circuit = replace(circuit, tokens=(HOSTILE, *circuit.tokens[1:]))
    mover = replace(circuit.heads[8], role="<b>mover</b>")
    circuit = replace(circuit, heads=(mover, *circuit.heads[:8], *circuit.heads[9:]))
    grid = replace(grid, sites=(HOSTILE, *grid.sites[1:]), title=HOSTILE)
    page = visit(report(task, circuit, grid, title=HOSTILE).save(tmp_path / "hostile.html"))
    assert page.locator("h1").inner_text() == HOSTILE and page.title() == HOSTILE
    assert HOSTILE in page.locator("#task .lede").inner_text() and page.locator("main img").count() == 0
    assert HOSTILE in page.locator("#task .chip", has_text="script").first.inner_text()
    page.locator("[data-node='0']").click()
    assert "<b>mover</b>" in panel(page)
    page.mouse.move(*point(page, "grid-0", 0, 0, grid.shape))
    page.wait_for_selector("#grid-0 .hoverlayer .hovertext")
    assert HOSTILE in page.locator("#grid-0 .hoverlayer").text_content()


def test_dark_mode_draws_dark(visit, file):
    light, dark = visit(file, color_scheme="light"), visit(file, color_scheme="dark")
    back = "getComputedStyle(document.body).backgroundColor"
    assert light.evaluate(back) == "rgb(255, 255, 255)" and dark.evaluate(back) == "rgb(21, 24, 29)"
    ink = "getComputedStyle(document.querySelector('#curve .xtick text')).fill"
    assert light.evaluate(ink) != dark.evaluate(ink)
    dark.emulate_media(color_scheme="light")
    until(dark, f"{ink} === {light.evaluate(ink)!r}")


def test_paper_is_light_and_figures_fit_it(visit, file):
    page = visit(file, color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(page, "Math.max(...[...document.querySelectorAll('.main-svg')].map((one) => one.clientWidth)) <= 770")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 29)"
    assert page.pdf()[:5] == b"%PDF-"


@pytest.mark.parametrize("width", [360, 420, 768, 1280])
def test_no_page_is_wider_than_its_window(visit, file, width):
    page = visit(file, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_no_label_of_the_graph_is_cut_or_covered(visit, file):
    page = visit(file)
    boxes = page.eval_on_selector_all(
        "svg.circuit .pill, svg.circuit .role",
        "all => all.map((one) => { const b = one.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })",
    )
    frame = page.locator("svg.circuit").bounding_box()
    for ix, (left, top, right, bottom) in enumerate(boxes):
        assert left >= frame["x"] and right <= frame["x"] + frame["width"] + 0.5
        assert all(right <= b[0] or b[2] <= left or bottom <= b[1] or b[3] <= top for b in boxes[:ix])


def test_file_is_small(file):
    assert file.stat().st_size < 8_000_000


def test_a_record_alone_shows_in_a_notebook(visit, tmp_path):
    notebook = tmp_path / "notebook.html"
    shown = figure_html(samples.circuit()) + figure_html(samples.residual_grid())
    notebook.write_text(f"<!doctype html><body>{shown}</body>")
    page = visit_frames(visit, notebook)
    circuit, grid = page.frames[1:]
    assert circuit.locator("[data-node]").count() == 20 and grid.locator(".heatmaplayer image").count() == 1
    heights = page.eval_on_selector_all("iframe", "all => all.map((one) => one.clientHeight)")
    assert all(height > 500 for height in heights)
    assert all(re.match(r"about:srcdoc|file:", frame.url) for frame in page.frames)


def visit_frames(visit, path):
    page = visit(path)
    for frame in page.frames[1:]:
        frame.wait_for_selector("section")
    page.frames[2].wait_for_selector(".heatmaplayer image")
    return page
