"""Live sessions without a browser: order, stopping, errors, and who may see what."""

from __future__ import annotations

import time
from base64 import b64encode
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.service.live_sessions import LiveSessions, live_settings
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.tabs.live_tab import answer
from app.wording.live import status, text_html
from app_stubs import TRANSCRIPT, StubLab
from core.errors import UserError
from core.text.transcript import Word
from core.transcription.streaming import LiveState

RATE = 16_000
SETTINGS = Settings(model="tiny", engine="compile", decoding="beam")
PIECE = {"rate": RATE, "sound": "", "token": "nobody's", "place": 0, "last": False}


class Ears(StubLab):
    """Stands in for a model: one word a pass."""

    def __init__(self) -> None:
        super().__init__("tiny")
        self.asked: list[dict[str, Any]] = []

    def transcribe(self, waveform: Any, **options: Any) -> Any:
        self.asked.append(options)
        return replace(TRANSCRIPT, text="word", words=(Word("word", 0.1, 0.4, 0.9),))


def room_of(ears: Ears) -> LiveSessions:
    return LiveSessions(TranscriptionService(loader=lambda name, **_: ears))


def speech(seconds: float) -> np.ndarray:
    """Something the speech detector takes for speech: an example, as often as needed."""
    soundfile = pytest.importorskip("soundfile")
    samples, rate = soundfile.read("assets/examples/digit_five.flac", dtype="int16")
    assert rate == RATE
    return np.resize(samples, round(seconds * RATE))


def until_over(room: LiveSessions, token: str) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        moment = room.speak(token, np.zeros(0, np.int16), RATE, last=True)
        if moment.over:
            return moment
        time.sleep(0.02)
    raise AssertionError("live text did not end")


def test_what_is_said_before_the_model_is_there_is_kept_and_everything_ends():
    ears = Ears()
    room = room_of(ears)
    token = room.start("page", SETTINGS)
    for block in np.array_split(speech(2.0), 20):
        room.speak(token, block, RATE, last=False)
    moment = until_over(room, token)
    assert moment.state is not None
    assert moment.state.heard_s == pytest.approx(2.0)
    assert moment.state.tentative == ()
    made = room.result(token)
    assert made is not None
    outcome, samples = made
    assert outcome.transcript.text.startswith("word")
    assert len(samples) == 2 * RATE
    assert {options["engine"] for options in ears.asked} == {"eager"}


def test_live_text_is_greedy_whatever_was_chosen():
    assert live_settings(SETTINGS).decoding == "greedy"
    assert live_settings(replace(SETTINGS, decoding="speculative")).decoding == "speculative"
    assert live_settings(replace(SETTINGS, task="instruct")).task == "transcribe"


def test_an_error_is_told_to_the_page_that_speaks():
    def load(name: str, **_: Any) -> Ears:
        raise UserError("no such model")

    room = LiveSessions(TranscriptionService(loader=load))
    token = room.start("page", SETTINGS)
    moment = until_over(room, token)
    assert status(moment) == "No such model."


def test_a_page_that_starts_again_or_leaves_is_forgotten():
    room = room_of(Ears())
    first = room.start("page", SETTINGS)
    second = room.start("page", SETTINGS)
    assert first != second
    with pytest.raises(ValueError, match="record again"):
        room.result(first)
    room.leave("page")
    with pytest.raises(ValueError, match="record again"):
        room.result(second)


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        ({}, "load the page again"),
        ({**PIECE, "sound": "§"}, "load the page again"),
        (PIECE, "record again"),
        ({**PIECE, "rate": -1}, "samples a second"),
        ({**PIECE, "sound": "AA=="}, "load the page again"),
        ({**PIECE, "place": None}, "load the page again"),
    ],
)
def test_a_piece_that_is_none_gets_a_sentence(piece: dict[str, Any], said: str):
    reply = answer(room_of(Ears()), piece)
    assert said in reply["status"]
    assert reply["over"]


def test_pieces_of_any_size_are_taken():
    room = room_of(Ears())
    token = room.start("page", SETTINGS)
    sound = b64encode(speech(3.0).astype("<i2").tobytes()).decode()
    piece = {"rate": RATE, "sound": sound, "token": token, "place": 0, "last": False}
    reply = answer(room, piece)
    assert not reply["over"]
    assert until_over(room, token).state.heard_s == pytest.approx(3.0)


def test_sound_that_is_sent_again_is_taken_once():
    room = room_of(Ears())
    token = room.start("page", SETTINGS)
    sound = speech(3.0)
    room.speak(token, sound[:RATE], RATE, last=False, place=0)
    room.speak(token, sound[: 2 * RATE], RATE, last=False, place=0)  # its answer was lost
    room.speak(token, sound[:RATE], RATE, last=False, place=0)  # late on its way
    room.speak(token, sound[2 * RATE :], RATE, last=False, place=2 * RATE)
    until_over(room, token)
    made = room.result(token)
    assert made is not None
    assert len(made[1]) == len(sound)
    assert np.abs(made[1].astype(int) - sound).max() <= 1  # rounded once on its way


def test_a_hole_in_the_sound_is_told():
    room = room_of(Ears())
    token = room.start("page", SETTINGS)
    with pytest.raises(ValueError, match="lost on its way; record again"):
        room.speak(token, speech(1.0), RATE, last=False, place=1)


def test_certain_and_tentative_words_are_told_apart_and_escaped():
    state = LiveState((Word("<a>", 0, 1, 1),), (Word("b", 1, 2, 1),), 2.0, 2.0, 0.1, 0.1, 1, False)
    html = text_html(state)
    assert "<span class='committed'>&lt;a&gt;</span> <i class='tentative'>b</i>" in html


def test_falling_behind_is_said():
    moment = SimpleNamespace(
        error=None,
        over=False,
        full=False,
        stopping=False,
        state=LiveState((), (), 9.0, 3.0, 6.0, 9.0, 3, False),
    )
    assert "6 s behind" in status(moment)
    assert "Nothing is lost" in status(moment)
