"""Sound that is no speech becomes no words, and the transcript says why.

The bundled model, the real detector. Run alone: ``python -m pytest tests/test_no_speech.py``.
"""

import math

import pytest
import torch
from torch import Tensor

import core
from bundled import EXAMPLES
from core.audio.vad import NoSpeech
from core.lab import Lab
from recordings import pcm_wav

pytestmark = pytest.mark.speech_gate
RATE = 16_000


@pytest.fixture(scope="module")
def tiny() -> Lab:
    return core.load("tiny", device="cpu", dtype="float32")


def tone(*frequencies: float, seconds: float = 2.0, level: float = 0.2) -> Tensor:
    at = torch.arange(int(seconds * RATE)) / RATE
    waves = [torch.sin(2 * math.pi * frequency * at) for frequency in frequencies]
    return level * torch.stack(waves).mean(dim=0)


@pytest.mark.parametrize(
    "sound",
    [
        tone(1000),
        tone(440, 554, 659, seconds=5.0),
        tone(697, 1209, seconds=0.5),
        tone(425, seconds=8.0),
        tone(60, 120, 180, seconds=3.0),
    ],
    ids=["beep", "chord", "touch-tone", "dial tone", "hum"],
)
def test_tones_give_no_words_and_the_reason(tiny: Lab, sound: Tensor) -> None:
    found = tiny.transcribe(sound)
    assert (found.text, found.warnings) == ("", (NoSpeech.NO_SPEECH.value,))


def test_silence_quiet_and_cancelling_channels_are_told_apart(tiny: Lab) -> None:
    assert tiny.transcribe(torch.zeros(RATE)).warnings == (NoSpeech.DIGITAL_SILENCE.value,)
    assert tiny.transcribe(1e-4 * tone(300)).warnings == (NoSpeech.VERY_QUIET.value,)
    wave = (20_000 * tone(440, level=1.0)).short().numpy()
    opposite = pcm_wav(torch.stack((torch.tensor(wave), -torch.tensor(wave)), dim=1).numpy())
    assert tiny.transcribe(opposite).text == ""


def test_noise_is_still_transcribed_where_the_caller_asks_for_it(tiny: Lab) -> None:
    found = tiny.transcribe(tone(1000), skip_silence=False)
    assert "prefill" in [phase.name for phase in found.phases]
    assert NoSpeech.NO_SPEECH.value not in found.warnings


def test_speech_is_let_through(tiny: Lab) -> None:
    found = tiny.transcribe(EXAMPLES / "string_three_one_eight.flac")
    assert found.text == "three one eight"
