"""The Transcribe tab beyond its first click, in a real Chromium.

Each test also fails on a page error, a console error, or a request that leaves this machine. Run
alone: ``python -m pytest -m browser tests/test_browser_transcribe.py``.
"""

from __future__ import annotations

import json
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import Page, Route, expect

from browser_page import IN_A_BROWSER, PATIENT_MS, SIZES, Visitor
from bundled import EXAMPLES

pytestmark = IN_A_BROWSER
SAID, FILE = "three one eight", EXAMPLES / "string_three_one_eight.flac"
PLAYER = """() => [...document.querySelectorAll("#recording *")]
  .map((part) => part.shadowRoot?.querySelector("audio")).find(Boolean)"""


def transcribed(page: Page, said: str = SAID) -> Page:
    """The page with an example transcribed."""
    page.locator("#examples").get_by_role("button", name=said, exact=True).click()
    finished(page)
    return page


def choose_decoding(page: Page, title: str) -> None:
    page.locator("#decoding input").click()
    page.get_by_role("option", name=title, exact=True).click()


def finished(page: Page) -> str:
    """Wait for the end of a transcription; its text."""
    expect(page.locator("#status")).to_contain_text("s of audio in", timeout=PATIENT_MS)
    return page.locator("#text textarea").input_value()


def test_a_word_that_is_pressed_is_played_and_lit(guest: Visitor) -> None:
    page = transcribed(guest.open())
    word = page.locator("#words button:not(.time)").nth(1)
    expect(word).to_have_text("one")
    word.click()
    start = float(str(word.get_attribute("data-start")))
    expect(page.locator("#words .heard")).not_to_have_count(0)
    assert page.evaluate(f"({PLAYER})().currentTime") >= start - 0.05


def test_the_last_word_of_a_short_flac_can_be_played_again_and_again(guest: Visitor) -> None:
    page = guest.open()
    page.locator("#recording input[type=file]").set_input_files(FILE)
    expect(page.locator("#recording").get_by_label("Clear")).to_be_visible()
    page.get_by_role("button", name="Transcribe", exact=True).click()
    finished(page)
    word = page.locator("#words button:not(.time)").last
    start = float(str(word.get_attribute("data-start")))
    for _ in range(3):
        word.click()
        page.wait_for_function(f"([at]) => ({PLAYER})().currentTime >= at - 0.05", arg=[start])
        assert page.evaluate(f"({PLAYER})().error?.message || null") is None
    with page.expect_download() as caught:  # what was given is what was transcribed
        page.get_by_role("button", name="Save txt").click()
    assert caught.value.suggested_filename == FILE.with_suffix(".txt").name


def test_the_word_being_heard_is_lit(guest: Visitor) -> None:
    page = transcribed(guest.open())
    word = page.locator("#words button:not(.time)").last
    middle = (float(str(word.get_attribute("data-start"))) + 0.01,)
    page.wait_for_function(f"({PLAYER})()?.readyState >= 3")  # moved earlier, it fails to load
    page.evaluate(f"([at]) => {{ const a = ({PLAYER})(); a.pause(); a.currentTime = at; }}", middle)
    expect(word).to_have_class(re.compile("heard"))
    expect(word).to_have_attribute("aria-current", "true")
    expect(page.locator("#words .heard")).to_have_count(1)


def test_arrow_keys_move_among_the_words(guest: Visitor) -> None:
    page = transcribed(guest.open())
    page.locator("#words button:not(.time)").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#words button:not(.time)").nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#words button:not(.time)").last).to_be_focused()
    page.keyboard.press("Home")
    expect(page.locator("#words button:not(.time)").first).to_be_focused()


def test_a_correction_is_in_the_download(guest: Visitor) -> None:
    page = transcribed(guest.open())
    page.locator("#text textarea").fill("three one ate")
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save json").click()
    saved = json.loads(Path(caught.value.path()).read_text())
    assert saved["text"] == "three one ate"
    assert [word["text"] for word in saved["words"]] == ["three", "one", "ate"]
    assert saved["words"][2]["start"] is not None


def test_what_the_encoder_heard_is_drawn(guest: Visitor) -> None:
    page = transcribed(guest.open())
    page.get_by_role("button", name="What the encoder heard").click()
    page.get_by_role("button", name="Draw").click()
    plot = page.locator("#heard-picture .js-plotly-plot")
    expect(plot).to_be_visible()
    assert plot.evaluate("e => e._fullData.map((d) => d.type)") == [
        "heatmap",
        "scatter",
        "scatter",
    ]
    expect(page.locator("#heard-text")).to_contain_text("The encoder alone reads")


def test_several_files_fill_one_table_and_one_archive(guest: Visitor, tmp_path: Path) -> None:
    page = guest.open("phone", "dark")
    (tmp_path / "letter.wav").write_text("dear sir")
    files = [FILE, tmp_path / "letter.wav", EXAMPLES / "digit_five.flac"]
    page.get_by_role("button", name="Several files at once").click()
    page.locator("#batch-files input[type=file]").set_input_files(files)
    expect(page.locator("#batch-files")).to_contain_text("letter")
    page.get_by_role("button", name="Transcribe all").click()
    table = page.locator("#batch-table")
    expect(page.locator("#batch-status")).to_contain_text(
        "3 of 3 files finished", timeout=PATIENT_MS
    )
    expect(table.locator("tbody tr").nth(0)).to_contain_text(SAID)
    expect(table.locator("tbody tr").nth(1)).to_contain_text("not a recording that can be read")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download all").click()
    with zipfile.ZipFile(caught.value.path()) as archive:
        assert len(archive.namelist()) == 10
        assert archive.read("digit_five.txt").decode().strip()


def test_a_reload_finds_the_text_and_the_settings_again(guest: Visitor) -> None:
    page = guest.open()
    choose_decoding(page, "Exact drafts")
    transcribed(page)
    guest.go(page)
    assert finished(page) == SAID
    expect(
        page.locator("#recording").get_by_role("button", name="Play", exact=True)
    ).to_be_visible()
    expect(page.locator("#decoding input")).to_have_value("Exact drafts")


def test_a_long_recording_survives_a_reload_and_shows_how_far_it_is(
    guest: Visitor, tmp_path: Path
) -> None:
    samples, rate = soundfile.read(FILE, dtype="float32")
    soundfile.write(tmp_path / "long.wav", np.tile(samples, 60), rate)  # three minutes
    page = guest.open()
    page.locator("#recording input[type=file]").set_input_files(tmp_path / "long.wav")
    expect(page.locator("#recording").get_by_label("Clear")).to_be_visible()
    page.get_by_role("button", name="Transcribe", exact=True).click()
    expect(page.locator("#status progress")).to_be_visible(timeout=PATIENT_MS)
    expect(page.locator("#status")).to_contain_text("left")
    guest.go(page)
    expect(page.locator("#text textarea")).to_have_value(re.compile("three"), timeout=PATIENT_MS)
    # Gradio logs the requests that a reload ends; whatever else went wrong still counts.
    ended = ("signal is aborted", "Connection errored out")
    guest.wrong[:] = [line for line in guest.wrong if not any(part in line for part in ended)]
    page.locator("#stop").click()
    expect(page.locator("#status")).to_contain_text("Stopped after", timeout=PATIENT_MS)


def test_stop_says_how_it_ended_even_where_its_own_answer_comes_later(
    guest: Visitor, tmp_path: Path
) -> None:
    def held_back(route: Route) -> None:
        answer = route.fetch()
        time.sleep(3)  # the page goes on, and hears of the end meanwhile
        route.fulfill(response=answer)

    samples, rate = soundfile.read(FILE, dtype="float32")
    soundfile.write(tmp_path / "long.wav", np.tile(samples, 60), rate)
    page = guest.open()
    page.locator("#recording input[type=file]").set_input_files(tmp_path / "long.wav")
    expect(page.locator("#recording").get_by_label("Clear")).to_be_visible()
    page.get_by_role("button", name="Transcribe", exact=True).click()
    expect(page.locator("#text textarea")).to_have_value(re.compile("three"), timeout=PATIENT_MS)
    page.route("**/run/predict*", held_back)
    page.locator("#stop").click()
    expect(page.locator("#stop")).to_be_disabled(timeout=PATIENT_MS)
    page.wait_for_timeout(500)  # every answer is there by now; the page has shown them
    expect(page.locator("#status")).to_contain_text("Stopped after")


def test_a_link_brings_the_settings(guest: Visitor) -> None:
    page = guest.open()
    choose_decoding(page, "Beam search")
    page.get_by_role("button", name="More settings").click()
    page.get_by_role("button", name="Make a link").click()
    box = page.locator("#link textarea, #link input")
    expect(box).to_have_value(re.compile("decoding=beam"))
    other = guest.open()
    guest.go(other, re.sub(r"beams=\d", "beams=3", box.input_value()))
    other.get_by_role("button", name="More settings").click()
    expect(other.locator("#decoding input")).to_have_value("Beam search")
    expect(other.locator("#beams input[type=number]")).to_have_value("3")


def test_the_model_can_be_loaded_in_another_way_for_one_request(guest: Visitor) -> None:
    page = guest.open()
    page.get_by_role("button", name="More settings").click()
    page.get_by_label("Smaller weights").click()
    page.get_by_role("option", name="int8 weights only").click()
    transcribed(page)
    expect(page.locator("#status")).to_contain_text("s of audio in")


def test_a_reference_text_gives_error_rates_and_marks_what_differs(guest: Visitor) -> None:
    page = transcribed(guest.open())
    result = page.locator("#reference-result")
    expect(result).to_contain_text("Same as the reference")  # an example's is known
    page.get_by_role("button", name="What was really said").click()
    said = page.locator("#reference-text textarea")
    expect(said).to_have_value(re.compile("three one eight"))
    said.fill("Three won eight five.")
    expect(result).to_contain_text("2 word errors in 4 words: WER 50.0 %")
    expect(result.locator("del").first).to_have_text("won")
    expect(result.locator("ins")).to_have_text("one")
    page.locator("#reference-normalizer").get_by_label("none").check()
    expect(result).to_contain_text("normaliser none")
    said.fill("")
    expect(result).to_have_text("")


def test_several_files_with_texts_get_an_error_rate_each(guest: Visitor, tmp_path: Path) -> None:
    files = []
    for name, text in (("digit_five", "five"), ("digit_nine", "five"), ("digit_oh", "")):
        files.append(tmp_path / f"{name}.flac")
        files[-1].write_bytes((EXAMPLES / f"{name}.flac").read_bytes())
        if text:
            files.append(tmp_path / f"{name}.txt")
            files[-1].write_text(text)
    page = guest.open()
    page.get_by_role("button", name="Several files at once").click()
    page.locator("#batch-files input[type=file]").set_input_files(files)
    page.locator("#batch-go").click()
    expect(page.locator("#batch-status")).to_contain_text("3 of 3", timeout=PATIENT_MS)
    expect(page.locator("#batch-status")).to_contain_text(
        "1 recording without a text: digit_oh.flac"
    )
    rows = page.locator("#batch-table tbody tr")
    expect(rows.nth(0)).to_contain_text("0.0 %")
    expect(rows.nth(1)).to_contain_text("100.0 %")
    expect(page.locator("#batch-table")).to_contain_text("2 recordings with a text: WER 50.00 %")
