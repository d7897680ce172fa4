"""axe-core on every tab, in both schemes: no serious finding in our own markup.

axe-core is not part of the repository: ``npm install --no-save axe-core`` in its root, or
GSL_AXE=path of axe.min.js. Gradio's own components have findings that are not ours to mend; they
are told by the classes its compiler gives every element. Run alone:
``python -m pytest -m browser tests/test_browser_axe.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app_server import ROOT, TINY
from browser_page import CHROMIUM, PATIENT_MS, Visitor

AXE = Path(os.environ.get("GSL_AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
TABS = ("Transcribe", "Live", "Compare", "Evaluate", "Profile", "Models")
RUN = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .filter((found) => ["serious", "critical"].includes(found.impact))
  .flatMap((found) => found.nodes.map((node) => ({rule: found.id, html: node.html})))"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm install --no-save axe-core"),
    pytest.mark.skipif(
        not (TINY / "config.json").is_file(), reason="assets/tiny is not there: make demo-model"
    ),
]


def findings(page: Page) -> list[dict[str, Any]]:
    """Serious findings outside Gradio's own elements."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    return [found for found in page.evaluate(RUN) if "svelte-" not in found["html"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", TABS)
def test_a_tab_has_no_serious_finding(guest: Visitor, tab: str, scheme: str) -> None:
    page = guest.open("wide", scheme)
    page.get_by_role("tab", name=tab, exact=True).click()
    if tab == "Transcribe":
        page.locator("#examples").get_by_role("button", name="three one eight", exact=True).click()
        expect(page.locator("#words button").first).to_be_visible(timeout=PATIENT_MS)
        page.get_by_role("button", name="What was really said").click()
        page.locator("#reference-text textarea").fill("three two eight")
        expect(page.locator("#reference-result del")).to_have_text("two")
    if tab == "Compare":
        page.get_by_role("button", name="Sweep: every combination").click()
    if tab == "Models":
        page.get_by_role("button", name="Adapters of this model").click()
    page.wait_for_timeout(1500)  # colours fade in
    assert findings(page) == []


def test_the_check_finds_what_is_wrong(guest: Visitor) -> None:
    page = guest.open()
    page.evaluate("() => document.body.append(document.createElement('button'))")
    assert [found["rule"] for found in findings(page)] == ["button-name"]
