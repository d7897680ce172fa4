"""The Evaluate tab in a real Chromium: dropped files, a table that fills, and what is saved.

Run alone: ``python -m pytest -m browser tests/test_browser_evaluate.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser_page import IN_A_BROWSER, PATIENT_MS, SIZES, Visitor
from core.checkpoint.catalog import ASSETS

pytestmark = IN_A_BROWSER


@pytest.mark.parametrize("size", SIZES)
def test_files_are_dropped_the_table_fills_and_its_rows_are_saved(
    guest: Visitor, tmp_path: Path, size: str
) -> None:
    page = guest.open(size)
    page.get_by_role("tab", name="Evaluate", exact=True).click()
    files = []
    for name, text in (("digit_five.flac", "five"), ("digit_nine.flac", "nine")):
        (tmp_path / name).write_bytes((ASSETS / "examples" / name).read_bytes())
        (tmp_path / name).with_suffix(".txt").write_text(text)
        files += [tmp_path / name, (tmp_path / name).with_suffix(".txt")]
    page.locator("#evaluate-files input[type=file]").set_input_files(files)
    expect(page.locator("#evaluate-files")).to_contain_text("digit_nine", timeout=PATIENT_MS)
    page.locator("#evaluate-go").click()
    expect(page.locator("#evaluate-status")).to_contain_text("Done.", timeout=PATIENT_MS)
    rows = page.locator("#evaluate-table tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("2 of 2")
    expect(page.locator("#evaluate-picture .plotly")).to_be_visible(timeout=PATIENT_MS)
    if shots := os.environ.get("SHOTS"):
        page.screenshot(path=f"{shots}/{size}.png", full_page=True)
    width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0
    with page.expect_download(timeout=PATIENT_MS) as download:
        page.locator("#evaluate-jsonl").click()
    assert Path(download.value.path()).read_text().count("\n") == 4
    guest.check()
