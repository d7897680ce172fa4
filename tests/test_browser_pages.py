"""Report pages in a real Chromium: of many runs, and of one whose trace has 200,000 events.

How long they take to draw is measured by ``python -m benchmarks pages``. Run alone:
``python -m pytest -m browser tests/test_browser_pages.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from benchmarks.studies.pages import BAR_BYTES, SCROLL, draw, write_pages
from browser_page import CHROMIUM, PATIENT_MS

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
DRAWN = """() => [...document.querySelectorAll(".figure")].map(
  (one) => Boolean(one.querySelector(".main-svg")))"""


def test_pages_of_fifty_runs_and_of_200000_events_are_small_and_draw_as_they_are_scrolled_to(
    tmp_path: Path,
) -> None:
    files = write_pages(tmp_path, 50, 200_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for file in files:
            assert file.stat().st_size <= BAR_BYTES, file.name
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            wrong: list[str] = []
            page.on("console", lambda said, wrong=wrong: wrong.append(said.text))
            page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            page.goto(file.as_uri())
            page.wait_for_function(f"() => ({DRAWN})()[0]", timeout=PATIENT_MS)
            page.wait_for_function(SCROLL, timeout=PATIENT_MS)
            assert all(page.evaluate(DRAWN))
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280
            with page.expect_download() as caught:
                page.get_by_role("button", name="Save csv of this table").first.click()
            assert len(Path(caught.value.path()).read_text().splitlines()) > 5
            assert not wrong
            page.reload()
            page.evaluate("dispatchEvent(new Event('beforeprint'))")
            assert all(page.evaluate(DRAWN)), "what is printed is drawn first"
            page.close()
        assert draw(browser, files[0]).all_busy_s > 0
        browser.close()
