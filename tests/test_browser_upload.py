"""Files that visitors bring, in a real Chromium: every format, and what is no recording.

Each test also fails on a page error, a console error, or a request that leaves this machine. Run
alone: ``python -m pytest -m browser tests/test_browser_upload.py``.
"""

from __future__ import annotations

import base64
from pathlib import Path

import av
import pytest
from playwright.sync_api import Page, expect

from browser_page import IN_A_BROWSER, PATIENT_MS, Visitor
from bundled import EXAMPLES

pytestmark = IN_A_BROWSER
SAID, FILE = "three one eight", EXAMPLES / "string_three_one_eight.flac"
CODECS = {
    "wav": "pcm_s16le",
    "flac": "flac",
    "mp3": "libmp3lame",
    "ogg": "libopus",
    "opus": "libopus",
    "webm": "libopus",
    "m4a": "aac",
    "mp4": "aac",
}
DROP = """(area, content) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], "said.webm", { type: "video/webm" }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = { dataTransfer: files, bubbles: true, cancelable: true };
    area.dispatchEvent(new DragEvent(kind, event));
  }
}"""


def transcribed(page: Page, said: str = SAID) -> Page:
    """The page with an example transcribed."""
    page.locator("#examples").get_by_role("button", name=said, exact=True).click()
    finished(page)
    return page


def finished(page: Page) -> str:
    """Wait for the end of a transcription; its text."""
    expect(page.locator("#status")).to_contain_text("s of audio in", timeout=PATIENT_MS)
    return page.locator("#text textarea").input_value()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("letter.wav", b"dear sir or madam", "not a recording"),
        ("letter.flac", b"dear sir or madam", "not a recording"),
        ("empty.wav", b"", "0 bytes"),
        ("clip.webm", b"\x1a\x45\xdf\xa3" + bytes(500), "not a recording"),
    ],
)
def test_a_file_that_is_no_recording_gets_a_sentence_and_the_page_goes_on(
    guest: Visitor, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    page = guest.open()
    page.locator("#recording input[type=file]").set_input_files(tmp_path / name)
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Transcribe", exact=True).click()
    expect(page.locator("#status").get_by_role("alert")).to_contain_text(said)
    # Gradio's player logs that it cannot play the file; whatever else went wrong still counts.
    unplayable = ("Waveform load error", "Range Not Satisfiable", "RANGE_NOT_SATISFIABLE")
    guest.wrong[:] = [w for w in guest.wrong if not any(part in w for part in unplayable)]
    page.locator("#recording").get_by_label("Clear").click()
    transcribed(page)


@pytest.mark.parametrize("kind", CODECS)
def test_every_format_can_be_uploaded(guest: Visitor, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"said.{kind}"
    encode(FILE, file, CODECS[kind])
    page = guest.open()
    page.locator("#recording input[type=file]").set_input_files(file)
    expect(page.locator("#recording").get_by_label("Clear")).to_be_visible()
    page.get_by_role("button", name="Transcribe", exact=True).click()
    # A lossy codec may cost the bundled model a digit.
    assert len(set(finished(page).split()) & set(SAID.split())) >= 2


def test_a_video_file_can_be_dropped_on_the_field(guest: Visitor, tmp_path: Path) -> None:
    encode(FILE, tmp_path / "said.webm", CODECS["webm"])
    page = guest.open()
    content = base64.b64encode((tmp_path / "said.webm").read_bytes()).decode()
    page.locator("#recording .upload-container").evaluate(DROP, content)
    expect(page.locator("#recording").get_by_label("Clear")).to_be_visible()
    page.get_by_role("button", name="Transcribe", exact=True).click()
    assert len(set(finished(page).split()) & set(SAID.split())) >= 2


def test_the_systems_file_window_offers_every_format(guest: Visitor) -> None:
    page = guest.open()
    with page.expect_file_chooser() as chooser:
        page.locator("#recording .upload-container").click()
    accept = str(chooser.value.element.get_attribute("accept"))
    assert {f".{kind}" for kind in CODECS} <= set(accept.split(","))


def encode(source: Path, target: Path, codec: str) -> None:
    """Write a recording anew in another format."""
    rate = 48_000 if codec in ("libopus", "libmp3lame") else 16_000
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.codec_context.frame_size)
        for frame in [*given.decode(audio=0), None]:
            for part in resampler.resample(frame):
                made.mux(stream.encode(part))
        made.mux(stream.encode(None))
