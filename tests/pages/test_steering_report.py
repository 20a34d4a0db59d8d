"""The page of steering in a real browser: drawn, hovered, narrow, dark, and quiet."""

import os

import pytest
import steering_samples as samples

from optrode.reports.page import Page
from optrode.reports.steering import steering_lead, steering_sections, steering_title
from optrode.reports.steering_gates import gate_sections

pytestmark = [
    pytest.mark.page,
    pytest.mark.skipif(os.environ.get("OPTRODE_SKIP_PAGES") == "1", reason="OPTRODE_SKIP_PAGES=1"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    found = samples.evaluation(is_validated=False)
    title = steering_title(found)
    sections = (*steering_sections(found), *gate_sections(samples.gate_quality()))
    return Page(title, steering_lead(found, title), sections).save(tmp_path_factory.mktemp("page") / "report.html")


def test_every_figure_is_drawn_with_its_conditions(visit, file):
    page = visit(file)
    assert page.locator(".plot").count() == 3 and page.locator("#steering-0 .legend .traces").count() == 5
    labels = page.locator("#steering-0 .textpoint").all_text_contents()
    assert "+0.2" in labels and "−0.35" in labels
    colours = page.evaluate("document.querySelector('#steering-0')._fullData.map((one) => one.marker.color)")
    assert len(set(colours)) == 5


def test_hover_names_the_condition(visit, file):
    page = visit(file)
    plot = page.locator("#steering-0")
    plot.scroll_into_view_if_needed()
    box = page.locator("#steering-0 .scatterlayer .trace").nth(3).locator(".points path").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#steering-0 .hoverlayer .hovertext")
    assert "shuffled labels" in page.locator("#steering-0 .hoverlayer").text_content()


def test_tokens_are_shaded_and_readable_in_both_schemes(visit, file):
    read = "(one) => [getComputedStyle(one).backgroundColor, getComputedStyle(one).color]"
    for scheme in ("light", "dark"):
        page = visit(file, color_scheme=scheme)
        closed = page.locator("#traces .strip .tone-z").first.evaluate(read)
        opened = page.locator("#traces .strip .tone-p4").first.evaluate(read)
        assert closed[0] != opened[0] and len({*closed, *opened}) == 4


def test_stamps_and_verdict_are_visible(visit, file):
    page = visit(file)
    assert page.locator("header .badge").inner_text() == "Above its controls"
    assert "unvalidated judge" in page.locator("header .warn").inner_text()


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_is_wider_than_its_window(visit, file, width):
    assert visit(file, width=width).evaluate("document.documentElement.scrollWidth") <= width
