"""The emergence page in a real browser: one slider moves every pattern and a line in every chart, one switch every axis."""

import os

import pytest
import training_samples as samples
from browsing import until

from optrode.reports import report

pytestmark = [
    pytest.mark.page,
    pytest.mark.skipif(os.environ.get("OPTRODE_SKIP_PAGES") == "1", reason="OPTRODE_SKIP_PAGES=1"),
]
PIXEL = """(ix) => {
  const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  copy.drawImage(document.querySelectorAll("canvas")[ix], 0, 0);
  return [...copy.getImageData(1, 4, 1, 1).data];
}"""
"""Colour of the cell in the last row and second column of a map, read from a copy."""
NOW = "document.querySelector('#loss-steps').layout.shapes.find((one) => one.name === 'now').x0"
LAYER_1 = 8
"""Place of the first head of layer 1 among the maps."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return report(*samples.everything()).save(tmp_path_factory.mktemp("page") / "report.html")


def test_every_section_and_figure_is_there(visit, file):
    page = visit(file)
    assert page.eval_on_selector_all("main > section", "all => all.map((one) => one.id)") == [
        "runs", "loss", "measures", "growth", "patterns", "provenance",
    ]  # fmt: skip
    assert page.locator(".plot").count() == 6 and page.locator("canvas[data-block]").count() == 32
    assert page.locator("#loss-steps .legend .traces").count() == 3, "two runs and the sign of a phase change"
    colours = page.evaluate("document.querySelector('#loss-steps')._fullData.slice(0, 2).map((one) => one.line.color)")
    lines = page.evaluate("document.querySelector('#loss-steps').layout.shapes.map((one) => one.line.color)")
    assert len(set(colours)) == 2 and set(colours) <= set(lines), "lines have the colour of their run"


def test_the_slider_moves_patterns_and_the_line_in_the_charts(visit, file):
    page = visit(file)
    end = page.evaluate(PIXEL, LAYER_1)
    assert page.locator("[data-forming] + output").inner_text() == "1,000" and page.evaluate(NOW) == 1000
    page.locator("[data-forming]").focus()
    page.keyboard.press("Home")
    assert page.locator("[data-at='0']").inner_text() == "at step 0" and page.evaluate(NOW) == 0.5
    assert page.evaluate(PIXEL, LAYER_1) != end
    for _ in range(samples.KEPT.index(181)):
        page.keyboard.press("ArrowRight")
    assert page.locator("[data-at='1']").inner_text() == "at step 181" and page.evaluate(NOW) == 181
    free, clamped = (page.evaluate(PIXEL, ix) for ix in (LAYER_1, 16 + LAYER_1))
    assert free != clamped and clamped == end, "the clamped run is there, the free one not yet"


def test_hover_reads_the_cell_of_the_chosen_step(visit, file):
    page = visit(file)
    canvas = page.locator("canvas").nth(LAYER_1)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 1.5 * box["width"] / 5, box["y"] + 4.5 * box["height"] / 5)
    output = page.locator(".card output").nth(LAYER_1)
    value = samples.patterns("free", samples.KEPT)[:, 1, 0, 4, 1]
    assert output.inner_text() == f"a → A: {value[-1]:.2f}"
    page.locator("[data-forming]").evaluate("(one) => { one.value = 0; one.dispatchEvent(new Event('input')); }")
    assert output.inner_text() == f"a → A: {value[0]:.2f}"


def test_the_switch_changes_every_axis(visit, file):
    page = visit(file)
    types = "[...document.querySelectorAll('.plot')].map((one) => one._fullLayout.xaxis.type)"
    assert page.evaluate(types) == ["log"] * 6
    first = "document.querySelector('#loss-steps').data[0].x[0]"
    assert page.evaluate(first) == 0.5
    page.locator("[data-view='linear']").first.click()
    until(page, f"{types}.every((one) => one === 'linear')")
    assert page.evaluate(first) == 0 and page.locator("[data-view='linear'][aria-pressed='true']").count() == 3
    page.locator("[data-view='log']").nth(1).click()
    until(page, f"{types}.every((one) => one === 'log')")
    assert page.evaluate(first) == 0.5


def test_dark_mode_draws_patterns_dark(visit, file):
    light, dark = visit(file, color_scheme="light"), visit(file, color_scheme="dark")
    assert sum(light.evaluate(PIXEL, 0)[:3]) > 600 > 300 > sum(dark.evaluate(PIXEL, 0)[:3])
    page_pixel = light.evaluate(PIXEL, 0)
    dark.emulate_media(color_scheme="light")
    until(dark, f"String(({PIXEL})(0)) === {','.join(map(str, page_pixel))!r}")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_is_wider_than_its_window(visit, file, width):
    assert visit(file, width=width).evaluate("document.documentElement.scrollWidth") <= width
