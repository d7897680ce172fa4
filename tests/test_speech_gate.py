"""Sounds in which nobody speaks hold no speech; recordings of words do, however quiet.

Run alone: ``python -m pytest tests/test_speech_gate.py``.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bundled import EXAMPLES
from core.audio.decode import load_audio
from core.audio.vad import (
    FRAME,
    NoSpeech,
    SpeechDetector,
    contains_speech,
    speech_seconds,
    why_no_speech,
)

RATE = 16_000
Random = np.random.Generator
Sound = NDArray[np.float64]


def seconds(length_s: float) -> Sound:
    return np.arange(round(length_s * RATE)) / RATE


def sine(t: Sound, *frequencies: float) -> Sound:
    return sum((np.sin(2 * np.pi * f * t) for f in frequencies), 0 * t) / len(frequencies)


def tone(random: Random) -> Sound:
    """A beep, or beeps: those of telephones and machines."""
    t, on_s = seconds(random.uniform(0.3, 8)), random.uniform(0.05, 0.6)
    gate = t % (on_s + random.uniform(0.05, 0.8)) < on_s
    return sine(t, *random.uniform(200, 3_000, random.integers(1, 4))) * gate


def beep_in_silence(random: Random) -> Sound:
    t, at_s = seconds(4), random.uniform(0.2, 2)
    return sine(t, random.uniform(200, 3_000)) * ((t > at_s) & (t < at_s + random.uniform(0.1, 1)))


def chord(random: Random) -> Sound:
    t, root = seconds(random.uniform(1, 8)), random.uniform(80, 500)
    return sine(t, root, root * 1.26, root * 1.498, root * 2) * np.exp(-random.uniform(0, 2) * t)


def keys(random: Random) -> Sound:
    """Keys of a telephone (DTMF)."""
    t = seconds(5)
    sound = 0 * t
    for start_s in np.arange(0.1, 4.5, 0.6):
        pair = random.choice([697, 770, 852, 941]), random.choice([1209, 1336, 1477, 1633])
        sound += sine(t, *pair) * ((t > start_s) & (t < start_s + random.uniform(0.06, 0.4)))
    return sound


def melody(random: Random) -> Sound:
    """Plucked notes with overtones."""
    notes = []
    while sum(map(len, notes)) < 6 * RATE:
        t, pitch = seconds(random.uniform(0.12, 0.6)), 220 * 2 ** (random.integers(0, 24) / 12)
        overtones = [np.sin(2 * np.pi * pitch * k * t) / k**1.5 for k in range(1, 7)]
        notes.append(sum(overtones) * np.exp(-t * random.uniform(1, 8)))
    return np.concatenate(notes)


def noise(random: Random) -> Sound:
    """White to brown, steady or in waves."""
    t = seconds(random.uniform(1, 8))
    spectrum = np.fft.rfft(random.normal(0, 1, len(t)))
    slope = np.maximum(1, np.arange(len(spectrum))) ** random.uniform(0, 1.6)
    waves = 1 + random.integers(0, 2) * np.sin(2 * np.pi * random.uniform(0.5, 6) * t)
    return np.fft.irfft(spectrum / slope, len(t)) * waves


def hum(random: Random) -> Sound:
    """Mains, with overtones and hiss."""
    t, mains = seconds(5), random.choice([50, 60, 100])
    overtones = [random.uniform(0, 1) * sine(t, mains * k) for k in range(1, 8)]
    return sum(overtones) + random.normal(0, 0.02, len(t))


def clicks(random: Random) -> Sound:
    sound = np.zeros(6 * RATE)
    sound[:: random.integers(2_000, 8_000)] = 1
    ring = np.exp(-np.arange(200) / 30) * random.normal(0, 1, 200)
    return np.convolve(sound, ring, "same")


MAKERS = (tone, beep_in_silence, chord, keys, melody, noise, hum, clicks)


def waveform(sound: Sound, peak: float = 0.4) -> torch.Tensor:
    return torch.from_numpy((peak * sound / np.abs(sound).max()).astype(np.float32))


def sounds(maker: Callable[[Random], Sound]) -> Iterator[torch.Tensor]:
    random = np.random.default_rng(MAKERS.index(maker))
    return (waveform(maker(random)) for _ in range(13))


@pytest.mark.parametrize("maker", MAKERS)
def test_of_104_sounds_without_speech_none_is_marked(maker: Callable[[Random], Sound]):
    assert [speech_seconds(sound) for sound in sounds(maker)] == [0.0] * 13


@pytest.mark.parametrize("gain_db", [0, -40, -70])
def test_every_example_is_speech_at_any_gain(gain_db: float):
    for file in sorted(EXAMPLES.glob("*.flac")):
        assert contains_speech(load_audio(file) * 10 ** (gain_db / 20)), file.name


def test_a_constant_offset_hides_no_speech():
    quiet = load_audio(EXAMPLES / "string_six_seven_five_six.flac") * 0.1
    assert speech_seconds(quiet + 0.3) == pytest.approx(speech_seconds(quiet), abs=0.1)


def test_a_word_in_a_long_silence_is_found_and_measured():
    word = load_audio(EXAMPLES / "digit_seven.flac")
    silence = torch.zeros(10 * RATE)
    found = speech_seconds(torch.cat((silence, word, silence)))
    assert 0.1 < found < len(word) / RATE + 0.2


def test_frames_one_by_one_and_all_at_once_are_the_same():
    sound = load_audio(EXAMPLES / "string_three_six.flac")
    frames = sound[: len(sound) // FRAME * FRAME].view(-1, FRAME)
    single, halves = SpeechDetector(), SpeechDetector()
    expected = torch.tensor([single.probability(frame) for frame in frames])
    found = torch.cat([halves.probabilities(part) for part in frames.split(11)])
    assert torch.allclose(found, expected, atol=1e-4)
    assert expected.max() > 0.9


def test_a_last_frame_that_is_short_is_filled_with_silence():
    frame = torch.cat((torch.randn(100), torch.zeros(FRAME - 100)))
    assert SpeechDetector().probability(frame[:100]) == SpeechDetector().probability(frame)


def test_why_there_is_no_speech_is_told():
    hiss = waveform(noise(np.random.default_rng(0)))
    assert why_no_speech(load_audio(EXAMPLES / "digit_oh.flac")) is None
    assert why_no_speech(torch.zeros(RATE)) is NoSpeech.DIGITAL_SILENCE
    assert why_no_speech(torch.zeros(0)) is NoSpeech.DIGITAL_SILENCE
    assert why_no_speech(hiss) is NoSpeech.NO_SPEECH
    assert why_no_speech(hiss * 1e-4) is NoSpeech.VERY_QUIET
    assert why_no_speech(hiss * 1e-4, channels_cancel=True) is NoSpeech.CANCELLING_CHANNELS
    assert len({kind.value for kind in NoSpeech}) == 4
