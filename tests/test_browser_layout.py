"""What is in sight, what is one press away, and what has an address, in a real Chromium.

Each test also fails on a page error, a console error, or a request that leaves this machine. Run
alone: ``python -m pytest -m browser tests/test_browser_layout.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from browser_page import IN_A_BROWSER, PATIENT_MS, Visitor
from bundled import EXAMPLES

pytestmark = IN_A_BROWSER
SAID, FILE = "three six", EXAMPLES / "string_three_six.flac"
LONG_MS = 900_000  # compiling and measuring on two slow cores
SMALLEST = """() => [...document.querySelectorAll("body *")].filter((e) => e.offsetParent &&
  [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) &&
  parseFloat(getComputedStyle(e).fontSize) < 12).map((e) => e.outerHTML.slice(0, 200))"""


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def expect_in_sight(part: Locator) -> None:
    expect(part).to_be_in_viewport(ratio=0.99)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_switches_button_and_text_are_in_sight_at_once(guest: Visitor, scheme: str) -> None:
    page = guest.open("wide", scheme)
    page.set_viewport_size({"width": 1280, "height": 800})
    for name in ("recording", "model", "engine", "lora", "decoding", "go", "text"):
        expect_in_sight(page.locator(f"#{name}"))
    tops = [page.locator(f"#{n}").bounding_box() for n in ("model", "engine", "lora", "decoding")]
    assert len({box and round(box["y"]) for box in tops}) == 1
    chips = page.locator("#examples .gallery > button").filter(visible=True)
    expect(chips).to_have_count(6)
    page.locator("#more-examples").click()
    assert chips.count() == len(list(EXAMPLES.glob("*.flac")))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_button_and_text_are_in_sight_together(guest: Visitor, scheme: str) -> None:
    page = guest.open("phone", scheme)
    page.locator("#examples").get_by_role("button", name=SAID, exact=True).click()
    expect(page.locator("#text textarea")).to_have_value(SAID)
    expect_in_sight(page.locator("#go"))
    expect_in_sight(page.locator("#text textarea"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_three_presses_lead_from_a_fresh_page_to_both_engines_of_ones_own_clip(
    guest: Visitor,
) -> None:
    page = guest.open()
    page.locator("#recording input[type=file]").set_input_files(FILE)  # the first
    expect(page.locator("#recording").get_by_label("Clear")).to_be_visible()
    page.locator("#go").click()  # the second
    expect(page.locator("#status")).to_contain_text("s of audio in", timeout=PATIENT_MS)
    page.locator("#clip-compare").click()  # the third
    expect(page.locator("#compare-status progress")).to_be_visible()
    expect(page.locator("#compare-status")).to_contain_text("Done.", timeout=LONG_MS)
    for phase in ("encoder", "decode"):
        row = page.locator("#compare-table tr", has_text=phase).first
        expect(row).to_contain_text(re.compile(r"\d+\.\d\d\s+\d+\.\d\d"))
    tiles = page.locator("#compare-answer .tiles")
    for part in ("Encoder", "Decoder"):
        for name in ("eager", "compiled"):
            expect(tiles).to_contain_text(
                re.compile(rf"{part}, {name}\s*[\d.,]+\sms,\s[\d.]+\s[kM]B")
            )
    for arm, name in (("a", "eager"), ("b", "compiled")):
        expect(page.locator(f"#compare-texts .arm-{arm}")).to_contain_text(name)
        expect(page.locator(f"#compare-texts .arm-{arm}")).to_contain_text(SAID)


def test_a_clip_is_profiled_in_one_press_then_renamed_filtered_linked_to_and_deleted(
    guest: Visitor,
) -> None:
    page = guest.open()
    page.locator("#examples").get_by_role("button", name=SAID, exact=True).click()
    expect(page.locator("#status")).to_contain_text("s of audio in", timeout=PATIENT_MS)
    page.locator("#clip-profile").click()
    expect(page.locator("#record-status")).to_contain_text("Recorded", timeout=LONG_MS)
    expect(page.locator("#profile-head")).to_contain_text(FILE.name, timeout=PATIENT_MS)
    mine = page.locator("#profile-runs tr[aria-current]")
    expect(mine).to_contain_text("eager")
    page.once("dialog", lambda dialog: dialog.accept("the quick one"))
    mine.get_by_role("button", name="Rename").click()
    expect(mine).to_contain_text("the quick one")
    page.locator("#profile-runs input").fill("example")
    expect(mine).to_be_hidden()
    page.locator("#profile-runs input").fill("quick")
    expect(page.locator("#profile-runs tbody tr").filter(visible=True)).to_have_count(1)
    expect(page).to_have_url(re.compile("tab=profile.*run=kept"))
    other = guest.open()
    guest.go(other, page.url)
    expect(other.locator("#profile-head")).to_contain_text(FILE.name, timeout=PATIENT_MS)
    expect(other.get_by_role("tab", name="Profile")).to_have_attribute("aria-selected", "true")
    page.once("dialog", lambda dialog: dialog.accept())
    mine.get_by_role("button", name="Delete").click()
    expect(page.locator("#profile-runs")).not_to_contain_text("the quick one")


def test_back_and_forward_move_among_the_tabs(guest: Visitor) -> None:
    page = guest.open()
    for name in ("Profile", "Models"):
        tab(page, name)
        expect(page).to_have_url(re.compile(f"tab={name.lower()}"))
    page.go_back()
    expect(page.get_by_role("tab", name="Profile")).to_have_attribute("aria-selected", "true")
    page.go_forward()
    expect(page.get_by_role("tab", name="Models")).to_have_attribute("aria-selected", "true")


@pytest.mark.parametrize(("view", "said"), [("api", "/transcribe"), ("settings", "Display Theme")])
def test_gradios_own_pages_have_an_address(guest: Visitor, view: str, said: str) -> None:
    page = guest.open()
    guest.go(page, f"{page.url}?view={view}")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(said)
    expect(page).to_have_url(re.compile(f"view={view}"))
    page.wait_for_timeout(1000)  # what it asks for and is refused stands in the console by then


def test_a_table_stands_beside_its_figure_and_can_be_saved(guest: Visitor) -> None:
    page = guest.open()
    tab(page, "Profile")
    figure = page.locator("#profile-phases-0")
    expect(figure.locator(".js-plotly-plot")).to_be_visible(timeout=PATIENT_MS)
    table = page.locator(".exhibit", has=figure).locator("table")
    left, right = figure.bounding_box(), table.bounding_box()
    assert left
    assert right
    assert right["x"] >= left["x"] + left["width"]
    with page.expect_download() as caught:
        page.locator(".exhibit", has=figure).get_by_text("Save csv").click()
    lines = Path(caught.value.path()).read_text().splitlines()
    assert lines[0].startswith("phase,n,median ms")
    assert any(line.startswith("encoder,") for line in lines)


def test_nothing_is_smaller_than_12_pixels(guest: Visitor) -> None:
    page = guest.open()
    page.locator("#examples").get_by_role("button", name=SAID, exact=True).click()
    expect(page.locator("#words .time").first).to_have_text("0:00", timeout=PATIENT_MS)
    for name in ("Transcribe", "Live", "Compare", "Profile", "Models"):
        tab(page, name)
        page.wait_for_timeout(2000)
        assert page.evaluate(SMALLEST) == [], name


def test_speech_outside_the_menus_offers_models_that_know_it(guest: Visitor) -> None:
    page = guest.open()
    weasels = "weasels have eaten our phone system"
    page.locator("#examples").get_by_role("button", name=weasels, exact=True).click()
    offer = page.locator("#other-models").get_by_role("button", name=re.compile("4.0 1B.*4.63 GB"))
    expect(offer).to_be_visible(timeout=PATIENT_MS)
    offer.click()
    expect(page.locator("#model input")).to_have_value(re.compile("4.0 1B"))
