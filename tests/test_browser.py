"""The first things a visitor does, in a real Chromium with a microphone that plays a recording.

Each test also fails on a page error, a console error, or a request that leaves this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from playwright.sync_api import Page, expect
from torchaudio.functional import resample

from app_server import running_app
from browser_page import IN_A_BROWSER, SIZES, Visitor, microphone, visitor
from bundled import EXAMPLES

pytestmark = IN_A_BROWSER
SAID = "three one eight"
FILE = "string_three_one_eight.flac"
MIC_RATE, LEAD_S = 48_000, 3.0  # a slow machine begins to record late
LONG_MS = 600_000  # compiling on two slow cores
LATE_DECODING = """() => {
  const decode = BaseAudioContext.prototype.decodeAudioData;
  BaseAudioContext.prototype.decodeAudioData = async function (...all) {
    await new Promise((done) => setTimeout(done, 2000));
    return decode.apply(this, all);
  };
}"""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """A visitor whose microphone plays FILE once, with silence around it."""
    samples, rate = soundfile.read(EXAMPLES / FILE, dtype="float32")
    spoken = resample(torch.from_numpy(samples), rate, MIC_RATE).numpy()
    quiet = np.zeros(int(LEAD_S * MIC_RATE), np.float32)
    wav = tmp_path_factory.mktemp("microphone") / "said.wav"
    soundfile.write(wav, np.concatenate([quiet, spoken, quiet]), MIC_RATE, subtype="PCM_16")
    with running_app("tiny") as address, visitor(address, microphone(str(wav))) as someone:
        yield someone


def click_example(page: Page, text: str = SAID) -> None:
    page.locator("#examples").get_by_role("button", name=text, exact=True).click()


def upload(page: Page, file: Path) -> None:
    page.locator("#recording input[type=file]").set_input_files(file)
    expect(page.locator("#recording").get_by_label("Clear")).to_be_visible()


def transcribe(page: Page) -> None:
    page.get_by_role("button", name="Transcribe", exact=True).click()


def expect_text(page: Page, text: str | re.Pattern[str], timeout_ms: float | None = None) -> None:
    expect(page.locator("#text textarea")).to_have_value(text, timeout=timeout_ms)
    expect_finished(page, timeout_ms)


def expect_finished(page: Page, timeout_ms: float | None = None) -> None:
    expect(page.locator("#stop")).to_be_disabled(timeout=timeout_ms)
    expect(page.locator("#chart .js-plotly-plot")).to_be_visible(timeout=timeout_ms)


def heard(page: Page) -> str:
    return page.locator("#text textarea").input_value()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_an_example_is_one_click(guest: Visitor, size: str, scheme: str) -> None:
    page = guest.open(size, scheme)
    click_example(page)
    expect_text(page, SAID)
    expect(page.locator("#reference-result")).to_contain_text("Same as the reference")
    expect(page.locator("#status")).to_contain_text("s of audio in")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    width = page.locator("#chart .js-plotly-plot").evaluate("e => e.getBoundingClientRect().width")
    assert 200 < width <= SIZES[size][0]
    names = page.locator("#chart .js-plotly-plot").evaluate("e => Array.from(e._fullData[0].y)")
    assert {"encoder", "prefill", "decode", "other"} <= set(names)
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#models")).to_contain_text("Loaded (cpu")


@pytest.mark.parametrize("press_stop", [True, False])
def test_a_recording_from_the_microphone(guest: Visitor, press_stop: bool) -> None:
    page = guest.open()
    page.evaluate(LATE_DECODING)  # of which the field makes what it sends
    area = page.locator("#recording")
    area.get_by_label("Record audio").click()
    area.get_by_role("button", name="Record", exact=True).click()
    seconds = soundfile.info(EXAMPLES / FILE).duration + 2 * LEAD_S
    page.wait_for_timeout(1000 * seconds)
    if press_stop:
        area.get_by_role("button", name="Stop", exact=True).first.click()
    transcribe(page)  # while the browser still records, or sends
    expect_text(page, SAID)


def test_an_upload(guest: Visitor) -> None:
    page = guest.open()
    upload(page, EXAMPLES / FILE)
    transcribe(page)
    expect_text(page, SAID)
    expect(page.locator("#reference-result")).not_to_contain_text("reference")


def test_without_lora_the_text_differs_and_with_it_again_not(guest: Visitor) -> None:
    page = guest.open()
    click_example(page)
    expect_text(page, SAID)
    page.locator("#lora").get_by_label("LoRA").uncheck()
    transcribe(page)
    expect(page.locator("#reference-result")).to_contain_text("word error")
    expect_finished(page)
    assert heard(page) != SAID
    page.locator("#lora").get_by_label("LoRA").check()
    transcribe(page)
    expect_text(page, SAID)


def test_the_compiled_engine_gives_the_same_text_and_tells_what_it_cost(guest: Visitor) -> None:
    page = guest.open()
    page.locator("#engine").get_by_label("Compiled").check()
    click_example(page)
    expect_text(page, SAID, LONG_MS)
    expect(page.locator("#status")).to_contain_text("compiled its graphs")
    transcribe(page)
    without = re.compile(r"s of audio in (?!.*compiled its graphs)", re.DOTALL)
    expect(page.locator("#status")).to_have_text(without, timeout=LONG_MS)
    expect_text(page, SAID)


def test_stop_keeps_what_came(guest: Visitor, tmp_path: Path) -> None:
    samples, rate = soundfile.read(EXAMPLES / FILE, dtype="float32")
    soundfile.write(tmp_path / "long.wav", np.tile(samples, 60), rate)  # three minutes
    page = guest.open()
    upload(page, tmp_path / "long.wav")
    transcribe(page)
    expect(page.locator("#text textarea")).to_have_value(re.compile("three"))
    page.locator("#stop").click()
    expect_finished(page)
    expect(page.locator("#status")).to_contain_text("Stopped after")
    assert 1 <= heard(page).count("three") < 60
    page.locator("#recording").get_by_label("Clear").click()
    click_example(page)
    expect_text(page, SAID)


def test_a_request_without_a_recording_gets_a_sentence(guest: Visitor) -> None:
    page = guest.open()
    transcribe(page)
    expect(page.locator("#status").get_by_role("alert")).to_contain_text("no recording yet")
    expect(page.locator("#stop")).to_be_disabled()
    click_example(page)
    expect_text(page, SAID)


def test_asking_about_the_text(guest: Visitor) -> None:
    page = guest.open()
    click_example(page)
    expect_text(page, SAID)
    page.get_by_role("button", name="Ask about it").click()
    page.get_by_label("Question").fill("write in digits")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#answer textarea")).to_have_value("318")


def test_the_transcript_can_be_saved(guest: Visitor) -> None:
    page = guest.open()
    click_example(page)
    expect_text(page, SAID)
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save json").click()
    assert caught.value.suggested_filename == FILE.replace(".flac", ".json")
    assert json.loads(Path(caught.value.path()).read_text())["text"] == SAID


def test_models_show_only_what_they_can_do(guest: Visitor) -> None:
    page = guest.open()
    model = page.get_by_label("Model", exact=True)
    model.click()
    page.get_by_role("option", name="Granite Speech 4.1 2B", exact=True).click()
    expect(page.locator("#lora").get_by_label("LoRA")).to_be_hidden()
    page.get_by_text("More settings").click()
    expect(page.locator("#model-summary")).to_contain_text("Apache-2.0")
    expect(page.locator("#lora-note")).to_contain_text("no adapter")
    expect(page.get_by_label("Keywords")).to_be_visible()
    page.locator("#task").get_by_label("Translate").check()
    expect(page.locator("#target")).to_be_visible()


def test_the_keyboard_reaches_everything(guest: Visitor) -> None:
    page = guest.open()
    seen: set[str] = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "() => { const e = document.activeElement.closest('[id]'); return e ? e.id : '' }"
            )
        )
    for needed in ("go", "examples", "model", "engine", "lora", "decoding"):
        found = page.evaluate(
            "([ids, id]) => ids.some(i => i && document.getElementById(i)?.closest('#' + id))",
            [sorted(seen), needed],
        )
        assert found, f"{needed} is not reached; seen {sorted(seen)}"
