"""The app in a real Chromium with a microphone that plays a recording.

Each test also fails on a page error, a console error, or a request that leaves this machine.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import torch
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from torchaudio.functional import resample

from app_server import EXAMPLES, TINY, running_app

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(
        not (TINY / "config.json").is_file(), reason="assets/tiny is not there: make demo-model"
    ),
]
SAID = "three one eight"
FILE = "string_three_one_eight.flac"
MIC_RATE, LEAD_S = 48_000, 1.0
LONG_MS = 180_000  # compiling on two slow cores
SIZES = {"wide": (1280, 900), "phone": (390, 844)}
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_app("tiny") as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium whose microphone plays FILE once, a second of silence around it."""
    samples, rate = soundfile.read(EXAMPLES / FILE, dtype="float32")
    spoken = resample(torch.from_numpy(samples), rate, MIC_RATE).numpy()
    quiet = np.zeros(int(LEAD_S * MIC_RATE), np.float32)
    wav = tmp_path_factory.mktemp("microphone") / "said.wav"
    soundfile.write(wav, np.concatenate([quiet, spoken, quiet]), MIC_RATE, subtype="PCM_16")
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={wav}%noloop",
    ]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """``visit(size, scheme)`` opens the page; what went wrong on it is checked at the end."""
    wrong: list[str] = []

    def see_request(request: Request) -> None:
        host = urlsplit(request.url).hostname
        if host not in ("127.0.0.1", None) and not request.url.startswith(("data:", "blob:")):
            wrong.append(f"request to {request.url}")

    def see_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(f"console: {message.text}")

    def open_page(size: str = "wide", scheme: str = "light") -> Page:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            permissions=["microphone"],
        )
        page = context.new_page()
        page.on("request", see_request)
        page.on("console", see_console)
        page.on("pageerror", lambda error: wrong.append(f"page: {error}"))
        page.goto(address)
        expect(page.get_by_role("button", name="Transcribe", exact=True)).to_be_visible()
        expect(page.locator("#recording").get_by_label("Record audio")).to_be_visible()
        return page

    yield open_page
    for context in browser.contexts:
        context.close()
    assert wrong == []


def click_example(page: Page, text: str = SAID) -> None:
    page.locator("#examples").get_by_role("button", name=text, exact=True).click()


def upload(page: Page, file: Path) -> None:
    page.locator("#recording input[type=file]").set_input_files(file)
    expect(page.locator("#recording").get_by_label("Clear")).to_be_visible()


def transcribe(page: Page) -> None:
    page.get_by_role("button", name="Transcribe", exact=True).click()


def expect_text(page: Page, text: str | re.Pattern[str], timeout_ms: float = 30_000) -> None:
    expect(page.locator("#text textarea")).to_have_value(text, timeout=timeout_ms)
    expect_finished(page, timeout_ms)


def expect_finished(page: Page, timeout_ms: float = 30_000) -> None:
    expect(page.get_by_role("button", name="Stop", exact=True).last).to_be_disabled(
        timeout=timeout_ms
    )
    expect(page.locator("#chart .js-plotly-plot")).to_be_visible(timeout=timeout_ms)


def heard(page: Page) -> str:
    return page.locator("#text textarea").input_value()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_an_example_is_one_click(visit: Visit, size: str, scheme: str) -> None:
    page = visit(size, scheme)
    click_example(page)
    expect_text(page, SAID)
    expect(page.locator("#notes")).to_contain_text("Exactly what was said")
    expect(page.locator("#status")).to_contain_text("of sound became text")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    width = page.locator("#chart .js-plotly-plot").evaluate("e => e.getBoundingClientRect().width")
    assert 200 < width <= SIZES[size][0]
    names = page.locator("#chart .js-plotly-plot").evaluate("e => Array.from(e._fullData[0].y)")
    assert {"encoder", "prefill", "decode", "other"} <= set(names)
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#models")).to_contain_text("Loaded (cpu")


def test_a_recording_from_the_microphone(visit: Visit) -> None:
    page = visit()
    area = page.locator("#recording")
    area.get_by_label("Record audio").click()
    area.get_by_role("button", name="Record", exact=True).click()
    seconds = soundfile.info(EXAMPLES / FILE).duration + 2 * LEAD_S
    page.wait_for_timeout(1000 * seconds)
    area.get_by_role("button", name="Stop", exact=True).first.click()
    expect(area.get_by_role("button", name="Play", exact=True)).to_be_visible()
    transcribe(page)
    expect_text(page, SAID)


def test_an_upload(visit: Visit) -> None:
    page = visit()
    upload(page, EXAMPLES / FILE)
    transcribe(page)
    expect_text(page, SAID)
    expect(page.locator("#notes")).not_to_contain_text("said")


def test_without_lora_the_text_differs_and_with_it_again_not(visit: Visit) -> None:
    page = visit()
    click_example(page)
    expect_text(page, SAID)
    page.get_by_label("LoRA adapter").uncheck()
    transcribe(page)
    expect(page.locator("#notes")).to_contain_text("What was really said")
    expect_finished(page)
    assert heard(page) != SAID
    page.get_by_label("LoRA adapter").check()
    transcribe(page)
    expect_text(page, SAID)


def test_the_compiled_engine_gives_the_same_text_and_tells_what_it_cost(visit: Visit) -> None:
    page = visit()
    page.get_by_label("Compiled").check()
    click_example(page)
    expect_text(page, SAID, LONG_MS)
    expect(page.locator("#status")).to_contain_text("built compiled graphs")
    transcribe(page)
    expect_text(page, SAID, LONG_MS)
    expect(page.locator("#status")).not_to_contain_text("built compiled graphs")


def test_stop_keeps_what_came(visit: Visit, tmp_path: Path) -> None:
    samples, rate = soundfile.read(EXAMPLES / FILE, dtype="float32")
    soundfile.write(tmp_path / "long.wav", np.tile(samples, 60), rate)  # three minutes
    page = visit()
    upload(page, tmp_path / "long.wav")
    transcribe(page)
    expect(page.locator("#text textarea")).to_have_value(re.compile("three"), timeout=30_000)
    page.get_by_role("button", name="Stop", exact=True).last.click()
    expect_finished(page)
    expect(page.locator("#status")).to_contain_text("Stopped after")
    assert 1 <= heard(page).count("three") < 60
    page.locator("#recording").get_by_label("Clear").click()
    click_example(page)
    expect_text(page, SAID)


def test_a_request_without_a_recording_gets_a_sentence(visit: Visit) -> None:
    page = visit()
    transcribe(page)
    expect(page.locator("#status").get_by_role("alert")).to_contain_text("no recording came")
    expect(page.get_by_role("button", name="Stop", exact=True).last).to_be_disabled()
    click_example(page)
    expect_text(page, SAID)


def test_asking_about_the_text(visit: Visit) -> None:
    page = visit()
    click_example(page)
    expect_text(page, SAID)
    page.get_by_role("button", name="Ask about it").click()
    page.get_by_label("Question").fill("write in digits")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#answer textarea")).to_have_value("318", timeout=30_000)


def test_the_transcript_can_be_saved(visit: Visit) -> None:
    page = visit()
    click_example(page)
    expect_text(page, SAID)
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save json").click()
    assert caught.value.suggested_filename == FILE.replace(".flac", ".json")
    assert json.loads(Path(caught.value.path()).read_text())["text"] == SAID


def test_models_show_only_what_they_can_do(visit: Visit) -> None:
    page = visit()
    model = page.get_by_label("Model", exact=True)
    model.click()
    page.get_by_role("option", name="Granite Speech 4.1 2B").click()
    expect(page.get_by_label("LoRA adapter")).to_be_hidden()
    expect(page.locator("#lora-note")).to_contain_text("no adapter")
    expect(page.locator("#model-card")).to_contain_text("Apache-2.0")
    page.get_by_text("More settings").click()
    expect(page.get_by_label("Keywords")).to_be_visible()
    page.locator("#task").get_by_label("Translate").check()
    expect(page.locator("#target")).to_be_visible()


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    page = visit()
    seen: set[str] = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "() => { const e = document.activeElement.closest('[id]'); return e ? e.id : '' }"
            )
        )
    for needed in ("go", "examples", "model", "engine", "lora"):
        found = page.evaluate(
            "([ids, id]) => ids.some(i => i && document.getElementById(i)?.closest('#' + id))",
            [sorted(seen), needed],
        )
        assert found, f"{needed} is not reached; seen {sorted(seen)}"
