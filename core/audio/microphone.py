"""Blocks of a microphone -> one stream at 16 kHz, cut at pauses while it grows.

In: blocks of samples at the microphone's rate, in order, of any size. Out: spans of speech that are
over, the span that is still open, and everything heard so far. Nothing is dropped: what belongs to
no span held no speech.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.audio.downmix import Samples, mean_of_channels
from core.audio.segmentation import SpanCutter, SpeechSegment
from core.audio.vad import FRAME, SpeechDetector
from core.audio.waveform import SAMPLE_RATE, Resampler, check_rate, to_full_scale


class Microphone:
    """One recording while it is made."""

    def __init__(
        self, *, longest_s: float, probability: Callable[[Tensor], float] | None = None
    ) -> None:
        """Begin a recording whose spans are at most ``longest_s`` seconds long."""
        self._probability = probability or SpeechDetector().probability
        self._cutter = SpanCutter(longest_s)
        self._resampler = Resampler()
        self._rest = np.zeros(0, np.float32)  # less than a frame
        self._kept: list[NDArray[np.int16]] = []
        self.num_samples = 0  # at 16 kHz

    @property
    def heard_s(self) -> float:
        """Return the seconds taken in so far."""
        return self.num_samples / SAMPLE_RATE

    @property
    def open_span(self) -> SpeechSegment | None:
        """Return the speech that goes on at the moment."""
        return self._cutter.so_far()

    def push(self, samples: NDArray[Any], rate: int) -> list[SpeechSegment]:
        """Take the next block, [n] or [n, channels].

        Returns:
            The spans that ended in it.

        Raises:
            AudioError: a rate or a type of samples that is no sound.
        """
        check_rate("microphone", rate)
        channels = samples[None] if samples.ndim == 1 else samples.T
        mono = mean_of_channels(to_full_scale("microphone", channels))
        return self._cut(self._resampler.push(np.ascontiguousarray(mono), rate))

    def finish(self) -> list[SpeechSegment]:
        """End the recording; returns the spans that ended with it."""
        spans = self._cut(self._resampler.finish())
        if self._rest.size:
            last_frame = torch.from_numpy(self._rest)
            ended = self._cutter.push(last_frame, self._probability(last_frame))
            spans += [] if ended is None else [ended]
        last = self._cutter.finish()
        return spans if last is None else [*spans, last]

    def recording(self) -> NDArray[np.int16]:
        """Return everything heard, [N] at 16 kHz."""
        return np.concatenate(self._kept) if self._kept else np.zeros(0, np.int16)

    def _cut(self, blocks: Iterable[Samples]) -> list[SpeechSegment]:
        samples = np.concatenate((np.zeros(0, np.float32), *blocks))
        if samples.size:
            self.num_samples += samples.size
            self._kept.append((samples.clip(-1, 1) * 32767).astype(np.int16))
        waiting = np.concatenate((self._rest, samples))
        whole = waiting.size // FRAME * FRAME
        self._rest = waiting[whole:]
        frames = torch.from_numpy(waiting[:whole]).split(FRAME)
        ended = [self._cutter.push(f, self._probability(f)) for f in frames if f.shape[0]]
        return [span for span in ended if span is not None]
