"""Every control of every tab has a name that a screen reader can say.

The browser's own accessibility tree is asked, Gradio's components included. Run alone:
``python -m pytest -m browser tests/test_browser_names.py``.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from browser_page import IN_A_BROWSER, PATIENT_MS, Visitor

pytestmark = IN_A_BROWSER
TABS = ("Transcribe", "Live", "Compare", "Profile", "Models")
CONTROLS = {
    *("button", "checkbox", "radio", "switch", "textbox", "searchbox", "combobox", "listbox"),
    *("slider", "spinbutton", "tab", "link", "menuitem", "option"),
}


def nameless(page: Page) -> tuple[list[str], int]:
    """The HTML of controls without a name, and how many controls there are."""
    browser = page.context.new_cdp_session(page)
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    there = [n for n in nodes if not n.get("ignored") and n["role"]["value"] in CONTROLS]
    bad = [n for n in there if not str(n.get("name", {}).get("value", "")).strip()]
    shown = [
        browser.send("DOM.getOuterHTML", {"backendNodeId": n["backendDOMNodeId"]})["outerHTML"]
        for n in bad
    ]
    return shown, len(there)


def unfold(page: Page) -> None:
    """Open whatever can be opened, so that what is in it is there."""
    closed = page.locator("button.label-wrap:not(.open)").filter(visible=True)
    while closed.count():
        closed.first.click()
    page.wait_for_timeout(500)


@pytest.mark.parametrize("tab", TABS)
def test_every_control_has_a_name(guest: Visitor, tab: str) -> None:
    page = guest.open()
    page.get_by_role("tab", name=tab, exact=True).click()
    page.wait_for_timeout(1000)
    if tab == "Transcribe":
        page.locator("#examples").get_by_role("button", name="three one eight", exact=True).click()
        expect(page.locator("#words button").first).to_be_visible(timeout=PATIENT_MS)
        page.get_by_role("button", name="More settings").click()
        page.get_by_role("button", name="Make a link").click()
        expect(page.locator("#link textarea")).to_be_visible()
    unfold(page)
    bad, count = nameless(page)
    assert count > len(TABS), "the tree was not read"
    assert bad == []


def test_a_text_box_is_named_by_its_title(guest: Visitor) -> None:
    page = guest.open()
    expect(page.get_by_role("textbox", name="Transcript", exact=True)).to_be_visible()


def test_the_check_finds_a_control_without_a_name(guest: Visitor) -> None:
    page = guest.open()
    page.evaluate("() => document.body.append(document.createElement('button'))")
    assert nameless(page)[0] == ["<button></button>"]
