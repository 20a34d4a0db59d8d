"""How the page tests wait."""

import time


def until(page, words):
    """Wait until an expression is true. Playwright's own way needs `eval`, which the page's policy forbids."""
    deadline = time.monotonic() + 20
    while not page.evaluate(words):
        assert time.monotonic() < deadline, words
        page.wait_for_timeout(50)
