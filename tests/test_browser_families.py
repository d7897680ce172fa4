"""Every family in a real Chromium: the page shows what the chosen model can do, and it transcribes.

Run alone: ``python -m pytest -m browser tests/test_browser_families.py``.
"""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch
from playwright.sync_api import Page, expect

from browser_page import IN_A_BROWSER, PATIENT_MS, Visitor
from bundled import EXAMPLES
from core.audio.decode import load_audio
from core.audio.waveform import SAMPLE_RATE
from granite_speech_nar import write_nar_folder
from test_granite_speech_plus import write_folder

pytestmark = IN_A_BROWSER
SAID = "three six"


def choose_model(page: Page, name: str) -> None:
    field = page.locator("#model input")
    field.fill(name)
    field.press("Enter")


def transcribe(page: Page) -> None:
    page.locator("#go").click()
    expect(page.locator("#status")).to_contain_text("s of audio in", timeout=3 * PATIENT_MS)


def is_there(page: Page, *names: str, there: bool = True) -> None:
    for name in names:
        expect(page.locator(f"#{name}")).to_be_visible(visible=there)


def open_more(page: Page) -> None:
    page.locator("#more > button").click()
    expect(page.locator("#max-tokens")).to_be_visible()


def test_the_bundled_models_show_what_each_can_do(guest: Visitor) -> None:
    page = guest.open()
    open_more(page)
    is_there(page, "lora", "task", "ask", "quantize", "max-tokens")
    choose_model(page, "tiny-ctc")
    is_there(page, "lora", "task", "quantize", "max-tokens", "prefix-text", there=False)
    page.locator("#examples").get_by_role("button", name=SAID, exact=True).click()
    transcribe(page)
    expect(page.locator("#text textarea")).to_have_value(SAID)
    expect(page.locator("#ask")).to_be_hidden()
    page.locator("#decoding input").click()
    expect(page.get_by_role("option")).to_contain_text(["Greedy", "Beam search"])
    page.get_by_role("option", name="Beam search").click()
    is_there(page, "beams", "keywords")
    choose_model(page, "granite-speech-5.0-470m-turboctc-nc")
    expect(page.locator("#licence")).to_contain_text("does not allow commercial use")


def test_random_models_of_plus_and_nar_show_theirs(guest: Visitor, tmp_path: Path) -> None:
    page = guest.open()
    page.locator("#examples").get_by_role("button", name=SAID, exact=True).click()
    expect(page.locator("#status")).to_contain_text("s of audio in", timeout=3 * PATIENT_MS)
    open_more(page)
    choose_model(page, str(write_folder(tmp_path / "plus")))
    transcribe(page)
    is_there(page, "prefix-text", "keywords", "task", "quantize")
    expect(page.get_by_role("radio", name="who speaks")).to_have_count(1)
    (tmp_path / "nar").mkdir()
    choose_model(page, str(write_nar_folder(tmp_path / "nar")))
    transcribe(page)
    is_there(page, "edit-rounds", "quantize")
    is_there(page, "prefix-text", "keywords", "lora", "max-tokens", there=False)


def test_a_stereo_recording_is_split_into_coloured_speakers(guest: Visitor, tmp_path: Path) -> None:
    five, nine = (load_audio(EXAMPLES / f"digit_{name}.flac") for name in ("five", "nine"))
    silence = torch.zeros(SAMPLE_RATE)
    left = torch.cat([five, silence, torch.zeros_like(nine)])
    right = torch.cat([torch.zeros_like(five), silence, nine])
    file = tmp_path / "call.wav"
    soundfile.write(file, torch.stack([left, right], 1).numpy(), SAMPLE_RATE, "PCM_16")
    page = guest.open(scheme="dark")
    is_there(page, "split", there=False)
    page.locator("#recording input[type=file]").set_input_files(file)
    open_more(page)
    page.locator("#split input").check()
    transcribe(page)
    expect(page.locator(".words .speaker")).to_have_text(["Speaker 1", "Speaker 2"])
    colours = page.locator(".words .speaker").evaluate_all(
        "all => all.map(e => getComputedStyle(e).color)"
    )
    assert len(set(colours)) == 2


def test_two_families_are_compared_in_one_press(guest: Visitor) -> None:
    page = guest.open()
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.locator("#compare-examples").get_by_role("button", name=SAID, exact=True).click()
    expect(page.locator("#compare-recording").get_by_label("Clear")).to_be_visible()
    page.get_by_role("radio", name="The CTC model against the first").check()
    page.locator("#compare-blocks input[type=number]").fill("6")
    page.locator("#compare-go").click()
    answer = page.locator("#compare-answer")
    expect(answer).to_contain_text("Encoder, tiny", timeout=5 * PATIENT_MS)
    expect(answer).to_contain_text("Decoder, tiny-ctc")
    expect(page.locator("#compare-table")).to_contain_text("not in both runs")
