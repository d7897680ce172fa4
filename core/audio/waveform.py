"""Arrays of samples at any rate, type and channel count -> one mono waveform at 16 kHz.

In: numpy arrays or tensors, as a file's decoder or a microphone gives them.
Out: float32 [N] at 16 000 samples a second, full scale +-1.0, and its loudness.
Reading files is :mod:`core.audio.decode`; the same mean of channels and the same resampler serve
both.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.audio.downmix import Block, Samples, downmixed
from core.audio.report import DecodeReport
from core.errors import UserError

SAMPLE_RATE = 16_000
MIN_RATE, MAX_RATE = 4_000, 768_000
MAX_CHANNELS = 64

# A recording whose loudest 30 ms stay below this holds no speech. Measured: a telephone system's
# recorded silence -80 to -79, the quietest of 600 clips of the Free Spoken Digit Dataset -47.
SILENCE_DBFS = -60.0

# Twice FFmpeg's default length: passes 0-7 kHz within 0.002 % and holds aliases from above 8.4 kHz
# 68 dB down, where the default already loses 3 % at 7 kHz.
RESAMPLER_OPTIONS = {"filter_size": "64"}
BLOCK = 65_536  # samples given to the resampler at once


class AudioError(UserError):
    """A recording that cannot be used."""

    def __init__(self, text: str, came: str = "", expected: str = "", advice: str = "") -> None:
        """Say so on one line: ``text``, or as the recording's name with what came and the rest."""
        if came:
            short = text if len(text) <= 80 else f"{text[:60]}...{text[-17:]}"
            text = f"{short}: {came}; expected {expected}; {advice}"
        super().__init__(text)


class RecordingTooLong(AudioError):
    """A recording that lasts longer than was allowed, by its header or by its samples."""


def from_samples(samples: Tensor | NDArray[Any], sample_rate: int) -> Tensor:
    """Make samples in memory, such as a microphone's, what a file would have become.

    Args:
        samples: int16, int32, uint8 (128 is zero) or floating point (full scale +-1.0);
            [N], [N, C] or [C, N], the shorter side being the channels ([N, C] if equal).
        sample_rate: of ``samples``, in Hz.

    Returns:
        [M] float32, mono, 16 kHz.

    Raises:
        AudioError: no samples, NaN or infinite samples, or a shape, type or rate that is no sound.
    """
    name = "samples"
    check_rate(name, sample_rate)
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu()
        # numpy has no bfloat16.
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    if samples.ndim not in (1, 2):
        shape = f"an array of shape {list(samples.shape)}"
        raise AudioError(name, shape, "[N], [N, C] or [C, N]", "give one recording at a time")
    if samples.size == 0:
        raise AudioError(name, "no samples", "at least one", "record something first")
    channels = np.atleast_2d(samples) if samples.ndim == 1 else samples
    if samples.ndim == 2 and samples.shape[0] >= samples.shape[1]:
        channels = samples.T
    if channels.shape[0] > MAX_CHANNELS:
        came = f"an array of shape {list(samples.shape)}"
        raise AudioError(name, came, f"at most {MAX_CHANNELS} channels", "give a waveform [N]")
    scaled = to_full_scale(name, channels)
    check_finite(name, count_not_finite(scaled))
    num_samples = scaled.shape[1]
    blocks = ((scaled[:, i : i + BLOCK], sample_rate) for i in range(0, num_samples, BLOCK))
    # A copy even where nothing changed: the caller's array stays the caller's.
    parts = [block.copy() for block in resampled(downmixed(blocks, DecodeReport()))]
    if not parts:
        came = f"{num_samples} samples at {sample_rate} Hz"
        raise AudioError(name, came, "at least 5 ms", "record for longer")
    return torch.from_numpy(np.concatenate(parts))


def speech_level_dbfs(waveform: Tensor) -> float:
    """Measure the loudest moment: RMS over 30 ms, stepped by 10 ms.

    Args:
        waveform: [N] float32 at 16 kHz; shorter than 30 ms is measured whole.

    Returns:
        dB relative to full scale (a full-scale sine is -3.01); -inf for zeros or nothing.
    """
    step = SAMPLE_RATE // 100
    whole = waveform.numel() // step * step
    # Norms instead of squares: no second array as long as the recording.
    norms = torch.linalg.vector_norm(waveform[:whole].view(-1, step), dim=1)
    tail = torch.linalg.vector_norm(waveform[whole:]).view(1)
    energies = torch.cat([norms, tail]).double().square()  # [N // step + 1]
    if energies.numel() > 3:
        energies = energies.unfold(0, 3, 1).sum(dim=1)
    else:
        energies = energies.sum().view(1)
    power = energies.max().item() / max(1, min(waveform.numel(), 3 * step))
    return 10 * math.log10(power) if power > 0 else -math.inf


def is_silent(waveform: Tensor) -> bool:
    """Say whether a 16 kHz waveform [N] holds nothing loud enough to be speech."""
    return speech_level_dbfs(waveform) < SILENCE_DBFS


def check_rate(name: str, sample_rate: int) -> None:
    """Refuse sample rates no recorder has: resampling from 4 Hz would multiply memory by 4000."""
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        expected = f"{MIN_RATE} to {MAX_RATE} Hz"
        raise AudioError(name, f"{sample_rate} samples a second", expected, "check its header")


def check_finite(name: str, num_bad: int) -> None:
    """Refuse a recording in which ``num_bad`` samples are NaN or infinite."""
    if num_bad:
        came = f"{num_bad} NaN or infinite sample{'s' if num_bad > 1 else ''}"
        raise AudioError(name, came, "finite samples", "export the recording again")


def count_not_finite(samples: Samples) -> int:
    """Count NaN and infinite samples."""
    return samples.size - int(np.isfinite(samples).sum())


def to_full_scale(name: str, channels: NDArray[Any]) -> Samples:
    """Bring samples [C, N] of any supported type to full scale +-1.0.

    Returns:
        [C, N] float32.

    Raises:
        AudioError: a type that is no sound.
    """
    if channels.dtype == np.uint8:
        return (channels.astype(np.float32) - np.float32(128)) / np.float32(128)
    if channels.dtype in (np.int16, np.int32):
        scale = 2 ** (8 * channels.dtype.itemsize - 1)
        return channels.astype(np.float32) / np.float32(scale)
    if channels.dtype.kind == "f":
        return channels.astype(np.float32, copy=False)
    expected = "int16, int32, uint8 or floating point"
    raise AudioError(name, f"{channels.dtype} samples", expected, "convert them")


class Resampler:
    """Brings consecutive mono blocks to 16 kHz, as if they were one recording."""

    def __init__(self) -> None:
        """Begin with a recording that is at 16 kHz already."""
        self._filter: av.AudioResampler | None = None
        self._rate = SAMPLE_RATE

    def push(self, samples: Samples, rate: int) -> Iterator[Samples]:
        """Take [n] at ``rate`` Hz; yields what is ready. Another rate starts a new filter."""
        if rate != self._rate:
            yield from self.finish()
            new = av.AudioResampler("flt", "mono", SAMPLE_RATE, options=RESAMPLER_OPTIONS)
            self._filter, self._rate = (None if rate == SAMPLE_RATE else new), rate
        if self._filter is None:
            yield samples
        elif samples.size:
            frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
            frame.sample_rate = rate
            for out in self._filter.resample(frame):
                yield out.to_ndarray()[0]

    def finish(self) -> Iterator[Samples]:
        """Yield what the filter still holds."""
        if self._filter is not None:
            for out in self._filter.resample(None):
                yield out.to_ndarray()[0]
        self._filter, self._rate = None, SAMPLE_RATE


def resampled(blocks: Iterable[Block]) -> Iterator[Samples]:
    """Bring consecutive mono blocks to 16 kHz, as if they were one.

    Args:
        blocks: ([n] float32, its rate in Hz); a rate that changes on the way starts a new filter.

    Yields:
        [m] float32 at 16 kHz; blocks that have this rate already pass untouched. The sum of the
        lengths is the input's duration to within a few samples: the filter is flushed at the end.
        Inputs of under 5 ms, shorter than the filter, give nothing where they are resampled.
    """
    resampler = Resampler()
    for samples, rate in blocks:
        yield from resampler.push(samples, rate)
    yield from resampler.finish()
