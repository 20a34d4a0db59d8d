"""A study's page in a real browser: figures draw, the slider moves, verdicts are readable, also on a phone."""

import os

import pytest
import study_samples as samples
from browsing import until

from optrode.reports import report

pytestmark = [
    pytest.mark.page,
    pytest.mark.skipif(os.environ.get("OPTRODE_SKIP_PAGES") == "1", reason="OPTRODE_SKIP_PAGES=1"),
]
LAST = len(samples.STEPS) - 1


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return report(samples.study_run(), samples.figures()).save(tmp_path_factory.mktemp("page") / "report.html")


def test_every_section_and_figure_is_there(visit, file):
    page = visit(file)
    assert page.eval_on_selector_all("main > section", "all => all.map((one) => one.id)") == [
        "claims", "figures", "notes", "provenance",
    ]  # fmt: skip
    assert page.locator(".plot .main-svg").count() >= 5 and page.locator(".plot .heatmaplayer image").count() == 2
    assert page.locator("#chart-0 .legend .traces").count() == 4, "seeds of a condition appear once"
    assert page.locator("#chart-1 .barlayer .point").count() == 6
    assert page.locator(".verdict").all_inner_texts()[5:] == ["◐ holds in part", "✕ not at this size", "– not measured"]


def cells(page):
    return page.evaluate("document.querySelector('#slides-0').data[0].z")


def test_the_slider_moves_by_keyboard_and_hover_reads_the_new_map(visit, file):
    page = visit(file)
    slider, output = page.locator("#slider-slides-0"), page.locator("#slider-slides-0 + output")
    assert output.inner_text() == str(samples.STEPS[-1]) and cells(page)[4][1] == pytest.approx(1.0, abs=0.01)
    slider.focus()
    page.keyboard.press("Home")
    until(page, "document.querySelector('#slides-0').data[0].z[4][1] < 0.3")
    assert output.inner_text() == "0" and slider.get_attribute("aria-valuetext") == "0"
    page.keyboard.press("ArrowRight")
    assert output.inner_text() == "100" and slider.input_value() == "1"
    page.keyboard.press("End")
    until(page, "document.querySelector('#slides-0').data[0].z[4][1] > 0.9")
    area = page.locator("#slides-0 .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    page.mouse.move(box["x"] + 1.5 * box["width"] / 5, box["y"] + 4.5 * box["height"] / 5)
    page.wait_for_selector("#slides-0 .hoverlayer .hovertext")
    assert "query, label a" in page.locator("#slides-0 .hoverlayer").text_content()


def test_a_slider_keeps_its_step_when_the_colours_change(visit, file):
    page = visit(file, color_scheme="light")
    page.locator("#slider-slides-0").focus()
    page.keyboard.press("Home")
    before = cells(page)
    ink = "getComputedStyle(document.querySelector('#chart-0 .xtick text')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    until(page, f"{ink} !== {light!r}")
    assert cells(page) == before


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_is_wider_than_its_window(visit, file, width):
    page = visit(file, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:
        assert page.evaluate("document.querySelector('.claims').scrollWidth") <= width, "claims stand one under the other"
        row = page.locator(".claims tbody tr").first
        tops = [row.locator(part).bounding_box()["y"] for part in ("th", ".verdict", "td >> nth=0")]
        assert tops == sorted(tops), "the verdict stands under the claim's key"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_verdicts_and_dots_stand_out_from_the_page(visit, file, scheme):
    page = visit(file, color_scheme=scheme)
    look = "all => all.map((one) => { const s = getComputedStyle(one); return [s.color, s.backgroundColor]; })"
    assert all(contrast(*pair) > 4.5 for pair in page.eval_on_selector_all(".verdict", look))
    assert [page.locator(f".strip-plot circle.{kind}").count() for kind in ("value", "control")] == [23, 23]


def contrast(one, other):
    """Ratio of the luminances of two CSS colours, by the definition of WCAG 2."""
    def luminance(words):
        parts = [int(part) / 255 for part in words.removeprefix("rgb(").rstrip(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
