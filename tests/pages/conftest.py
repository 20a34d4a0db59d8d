"""One browser for all page tests, and a way to open a page that fails the test when the page does anything unasked."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from browsing import until
from playwright.sync_api import sync_playwright

ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser():
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("no Chromium: `apt-get install chromium`, or set OPTRODE_SKIP_PAGES=1 to leave these tests out")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open a file; when the test ends, nothing may have been logged, raised, asked for or popped up."""
    found, pages = [], []

    def go(path, width=1280, **how):
        page = browser.new_page(viewport={"width": width, "height": 900}, **how)
        page.on("console", lambda message: found.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: found.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (found.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: request.url == path.as_uri() or found.append(f"request: {request.url[:200]}"))
        # A policy violation is reported as an event even where it writes no console line.
        report_violation = "(event) => console.error(event.violatedDirective + event.blockedURI)"
        page.add_init_script(f"addEventListener('securitypolicyviolation', {report_violation})")
        page.goto(path.as_uri())
        until(page, "[...document.querySelectorAll('.plot')].every((one) => one.querySelector('.main-svg'))")
        pages.append(page)
        return page

    yield go
    for page in pages:
        page.wait_for_timeout(100)
        page.close()
    assert found == []
