"""Samples in memory become the waveform a file would; loudness and silence.

Run alone: ``python -m pytest tests/test_samples.py``.
"""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.audio import decode
from core.audio.waveform import AudioError, from_samples, is_silent, speech_level_dbfs
from recordings import clip, pcm_wav


def test_microphone_arrays_become_what_a_file_becomes():
    samples = (clip(48_000) * 32_000).astype(np.int16)
    stereo = np.stack([samples, samples // 2], axis=1)
    expected = decode.load_audio(pcm_wav(stereo, 48_000))
    for array in (stereo, stereo.T, torch.from_numpy(stereo)):
        found = from_samples(array, 48_000)
        assert len(found) == len(expected)
        assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.float32, np.float64])
def test_every_sample_type_has_the_same_full_scale(dtype: type):
    scale, zero = {"u": (128, 128), "i": (2 ** (8 * np.dtype(dtype).itemsize - 1), 0)}.get(
        np.dtype(dtype).kind, (1, 0)
    )
    samples = (np.array([-1.0, -0.5, 0.0, 0.5] * 100) * scale + zero).astype(dtype)
    assert from_samples(samples, 16_000)[:4].tolist() == [-1.0, -0.5, 0.0, 0.5]


def test_samples_stay_the_callers():
    samples = clip(16_000)
    from_samples(samples, 16_000)[:] = 0
    assert np.array_equal(samples, clip(16_000))


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (np.zeros(0, dtype=np.float32), 16_000),
        (np.zeros((0, 2), dtype=np.float32), 16_000),
        (np.zeros((2, 3, 4), dtype=np.float32), 16_000),
        (np.zeros((500, 500), dtype=np.float32), 16_000),
        (np.arange(100), 16_000),
        (np.ones(100, dtype=np.complex64), 16_000),
        (np.ones(3, dtype=np.float32), 48_000),
        (np.ones(100, dtype=np.float32), 0),
    ],
)
def test_arrays_that_are_no_sound_are_refused(samples: NDArray[np.generic], rate: int):
    with pytest.raises(AudioError, match="expected"):
        from_samples(samples, rate)


def test_level_is_that_of_the_loudest_moment():
    waveform = torch.zeros(160_000)
    assert speech_level_dbfs(waveform) == -math.inf
    waveform[80_000:80_800] = 0.1
    assert speech_level_dbfs(waveform) == pytest.approx(-20.0, abs=0.01)
    sine = torch.sin(torch.arange(16_000) * 2 * math.pi / 40)
    assert speech_level_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert speech_level_dbfs(torch.full((5,), 0.1)) == pytest.approx(-20.0, abs=0.01)


def test_silence_is_told_from_quiet_speech():
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    assert is_silent(torch.zeros(0))
    assert is_silent(noise * 2e-4)
    assert not is_silent(noise * 5e-3)
