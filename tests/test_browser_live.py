"""The Live tab in a real Chromium whose microphone plays a minute of digits.

Each test also fails on a page error, a console error, or a request that leaves this machine. How
far the text is behind is printed, not asserted, for it depends on what else the machine does.
Alone, on a machine that does nothing else (the promise there is 2 s):
``python -m pytest -m browser tests/test_browser_live.py -k minute -s``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch
from playwright.sync_api import Page, Route, expect
from torchaudio.functional import resample

from app_server import running_app
from browser_page import IN_A_BROWSER, PATIENT_MS, Visitor, microphone, visitor
from bundled import EXAMPLES, transcripts

pytestmark = IN_A_BROWSER
TRANSCRIPTS = transcripts()
MIC_RATE, PAUSE_S, SPOKEN_S = 48_000, 0.5, 60.0
RIGHT = 0.8  # of the words; the bundled model's card says how many it hears wrong


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A wav of a minute of digit strings with pauses, and the words in it."""
    names = [name for name in TRANSCRIPTS if name.startswith("string")]
    quiet = np.zeros(round(PAUSE_S * MIC_RATE), np.float32)
    parts, words, number = [quiet, quiet], list[str](), 0
    while sum(map(len, parts)) < SPOKEN_S * MIC_RATE:
        name = names[number % len(names)]
        samples, rate = soundfile.read(EXAMPLES / name, dtype="float32")
        parts += [resample(torch.from_numpy(samples), rate, MIC_RATE).numpy(), quiet]
        words += TRANSCRIPTS[name].split()
        number += 1
    wav = tmp_path_factory.mktemp("microphone") / "minute.wav"
    soundfile.write(wav, np.concatenate([*parts, quiet, quiet]), MIC_RATE, subtype="PCM_16")
    return wav, words


@pytest.fixture
def guest(minute: tuple[Path, list[str]]) -> Iterator[Visitor]:
    """A browser of its own: its microphone plays from the start once."""
    with running_app("tiny") as address, visitor(address, microphone(str(minute[0]))) as someone:
        yield someone


def live(page: Page) -> Page:
    page.get_by_role("tab", name="Live", exact=True).click()
    page.locator("#live-panel").get_by_role("button", name="Record", exact=True).click()
    expect(page.locator("[data-live=status]")).to_contain_text("Listening")
    return page


def stop(page: Page) -> str:
    """Stop and wait for the last words; the sentence about how it went."""
    page.locator("#live-panel").get_by_role("button", name="Stop", exact=True).click()
    line = page.locator("[data-live=status]")
    expect(line).to_contain_text("nothing was dropped", timeout=PATIENT_MS)
    return line.inner_text()


def others_s() -> float:
    """Processor time that was not spent on this test, its app and its browser, since the start."""
    whole = psutil.cpu_times()
    ours = psutil.Process()
    family = [ours, *ours.children(recursive=True)]
    own = sum(sum(one.cpu_times()[:2]) for one in family)
    return sum(whole) - whole.idle - getattr(whole, "iowait", 0.0) - own


def words(page: Page) -> list[str]:
    return page.locator("[data-live=text] .committed").inner_text().split()


def test_words_come_while_one_speaks_and_go_to_transcribe(
    guest: Visitor, minute: tuple[Path, list[str]]
) -> None:
    page = live(guest.open("phone", "dark"))
    first = minute[1][0]
    expect(page.locator("[data-live=text]")).to_contain_text(first, timeout=PATIENT_MS)
    expect(page.locator("[data-live=text] .committed")).to_contain_text(first, timeout=PATIENT_MS)
    stop(page)
    expect(page.locator("[data-live=text] .tentative")).to_have_count(0)
    said = words(page)
    page.get_by_role("button", name="Open in Transcribe").click()
    expect(page.locator("#text textarea")).to_have_value(" ".join(said))
    expect(
        page.locator("#recording").get_by_role("button", name="Play", exact=True)
    ).to_be_visible()
    expect(page.locator("#words button:not(.time)")).to_have_count(len(said))
    live(page)  # and it starts again, from nothing
    expect(page.locator("[data-live=text] .live-text")).to_have_class(re.compile("empty"))
    page.locator("#live-panel").get_by_role("button", name="Stop", exact=True).click()
    record = page.locator("#live-panel").get_by_role("button", name="Record", exact=True)
    expect(record).to_be_enabled(timeout=PATIENT_MS)


def test_a_minute_of_speech_is_kept_up_with_and_nothing_is_dropped(
    guest: Visitor, minute: tuple[Path, list[str]]
) -> None:
    wav, spoken = minute
    page = live(guest.open())
    length_s = soundfile.info(wav).duration
    before_s, begun = others_s(), time.monotonic()
    page.wait_for_timeout(1000 * length_s)
    others = (others_s() - before_s) / (time.monotonic() - begun)
    how = stop(page)
    print(how, page.locator("[data-live=numbers]").inner_text().replace("\n", " "))
    print(f"others used {100 * others:.0f} % of a processor")
    heard_minutes, heard_seconds = re.findall(r"(\d+):(\d\d) of audio", how)[0]
    assert 60 * int(heard_minutes) + int(heard_seconds) >= length_s - 1
    right = sum(
        block.size for block in SequenceMatcher(None, spoken, words(page)).get_matching_blocks()
    )
    assert right >= RIGHT * len(spoken), (spoken, words(page))


def test_a_microphone_that_is_refused_gets_a_sentence(guest: Visitor) -> None:
    page = guest.open()
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia ="
        " () => Promise.reject(new DOMException('no', 'NotAllowedError')) }"
    )
    page.get_by_role("tab", name="Live", exact=True).click()
    record = page.locator("#live-panel").get_by_role("button", name="Record", exact=True)
    record.click()
    expect(page.locator("[data-live=status]").get_by_role("alert")).to_contain_text("allow it")
    expect(record).to_be_enabled()
    page.get_by_role("button", name="Open in Transcribe").click()
    expect(page.get_by_text("nothing was said yet")).to_be_visible()


@pytest.mark.parametrize("network", ["fails", "hangs"])
def test_sound_is_kept_while_the_app_does_not_answer(
    guest: Visitor, minute: tuple[Path, list[str]], network: str
) -> None:
    page = live(guest.open())
    begun = time.monotonic()
    sent: list[Route] = []

    def lose(route: Route) -> None:
        sent.append(route)
        if network == "fails":
            route.abort()

    page.wait_for_timeout(2000)
    page.route("**/component_server**", lose)
    expect(page.locator("[data-live=status]")).to_contain_text("kept here", timeout=PATIENT_MS)
    page.wait_for_timeout(10_000)
    page.unroute("**/component_server**")
    expect(page.locator("[data-live=status]")).to_contain_text("Listening", timeout=PATIENT_MS)
    how = stop(page)
    assert sent, "no request was lost"
    heard_minutes, heard_seconds = re.findall(r"(\d+):(\d\d) of audio", how)[0]
    spoken_s = min(time.monotonic() - begun, soundfile.info(minute[0]).duration)
    assert 60 * int(heard_minutes) + int(heard_seconds) >= 13  # what was lost was sent again
    assert 60 * int(heard_minutes) + int(heard_seconds) <= spoken_s + 1  # and taken once
    guest.wrong.clear()  # the browser logs the requests that were made to fail
