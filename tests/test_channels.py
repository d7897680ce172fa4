"""Stereo recordings with a speaker on each channel: decoded apart, transcribed, merged by time.

Run alone: ``python -m pytest tests/test_channels.py``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from torch.nn.functional import pad

import core
from app_stubs import TRANSCRIPT
from core import Lab
from core.audio.decode import decode_channels, load_audio
from core.audio.waveform import SAMPLE_RATE, AudioError
from core.checkpoint.catalog import ASSETS
from core.errors import UserError
from core.text.transcript import Word
from core.transcription.channels import merge_channels
from core.transcription.options import TranscribeOptions

FIVE, NINE = (ASSETS / f"examples/digit_{name}.flac" for name in ("five", "nine"))


@pytest.fixture(scope="module")
def tiny() -> Lab:
    return core.load("tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine on the right, and then five on the left."""
    five, nine = load_audio(FIVE), load_audio(NINE)
    left = pad(five, (nine.shape[0] + SAMPLE_RATE, 0))
    right = pad(nine, (0, left.shape[0] - nine.shape[0]))
    file = tmp_path_factory.mktemp("stereo") / "call.wav"
    soundfile.write(file, torch.stack([left, right], 1).numpy(), SAMPLE_RATE, "PCM_16")
    return file


def test_channels_come_back_apart_and_exact(stereo: Path) -> None:
    left, right = decode_channels(stereo)
    assert torch.equal(left[-load_audio(FIVE).shape[0] :], load_audio(FIVE))
    assert torch.equal(right[: load_audio(NINE).shape[0]], load_audio(NINE))


def test_mono_is_refused_with_what_came() -> None:
    with pytest.raises(AudioError, match="1 channel; expected stereo, a channel for each speaker"):
        decode_channels(FIVE)


def test_each_channel_is_a_speaker_and_turns_are_in_order_of_time(tiny: Lab, stereo: Path) -> None:
    found = tiny.transcribe(stereo, channels="speakers")
    assert [(part.speaker, part.text) for part in found.segments] == [(2, "nine"), (1, "five")]
    assert (found.text, found.file) == ("nine five", str(stereo))
    assert found.new_tokens == len(found.token_ids)
    assert sum(phase.ms for phase in found.phases) <= found.end_to_end_ms
    with pytest.raises(AudioError, match="1 channel"):
        tiny.transcribe(FIVE, channels="speakers")


def test_what_two_say_at_once_stays_readable() -> None:
    one = [
        Word("good", 0.0, 0.4, None),
        Word("morning", 0.5, 0.9, None),
        Word("so", 3.0, 3.2, None),
    ]
    two = [Word("hello", 0.3, 0.7, None), Word("there", None, None, None)]
    done = [replace(TRANSCRIPT, words=tuple(words)) for words in (one, two)]
    merged = merge_channels("call.wav", [done[0], replace(done[1], warnings=("faint",))])
    assert [(part.speaker, part.text) for part in merged.segments] == [
        (1, "good morning"),
        (2, "hello there"),
        (1, "so"),
    ]
    assert merged.warnings == ("channel 2: faint",)
    assert merged.new_tokens == 2 * TRANSCRIPT.new_tokens


def test_a_channel_is_one_speaker_so_marks_of_speakers_are_refused() -> None:
    with pytest.raises(UserError, match="task 'speakers' came with channels 'speakers'"):
        TranscribeOptions(task="speakers", channels="speakers")
    with pytest.raises(UserError, match="channels is 'left'; expected one of mixed, speakers"):
        TranscribeOptions(channels="left")
