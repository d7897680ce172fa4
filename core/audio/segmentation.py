"""Long recordings -> spans of speech; the texts and times of the spans -> those of the recording.

In: a stream of samples, in chunks of any size. Out: spans of at most ``longest_s`` seconds, cut at
pauses, each with its samples and its place in the file. Memory does not grow with the recording:
at most one span and one chunk are held. Silence between spans is dropped, so no model can invent
words in it; :func:`whole_spans` drops nothing, for callers who want every second heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.audio.vad import FRAME, FRAME_S, SPEECH
from core.audio.waveform import SAMPLE_RATE

MARGIN_S = 0.2  # kept before and after speech: quiet consonants, room
PAUSE_S = 0.8  # a pause that always ends a span
SHORT_PAUSE_S = 0.25  # one that ends a span already longer than half of what it may be
SMOOTH = 5  # frames over which a forced cut looks for the least speech


@dataclass(frozen=True)
class SpeechSegment:
    """A stretch of speech: its place in the recording in seconds, and its samples [N]."""

    start_s: float
    end_s: float
    waveform: Tensor


@dataclass
class SpanCutter:
    """Frames with their speech probabilities, one by one -> spans."""

    longest_s: float
    _frames: list[Tensor] = field(default_factory=list)
    _probabilities: list[float] = field(default_factory=list)
    _before: deque[Tensor] = field(default_factory=deque)
    _first: int = 0
    _last_speech: int = 0
    _seen: int = 0

    def push(self, frame: Tensor, probability: float) -> SpeechSegment | None:
        """Take the next frame [512], the last may be shorter; returns a span when one has ended."""
        number, self._seen = self._seen, self._seen + 1
        speech = probability >= SPEECH
        if not self._frames:
            if speech:
                self._open(number)
            else:
                self._remember(frame)
                return None
        self._frames.append(frame)
        self._probabilities.append(probability)
        if speech:
            self._last_speech = number
        if self._is_over(number):
            return self._close(self._last_speech + 1 + _frames_of(MARGIN_S))
        if len(self._frames) * FRAME_S >= self.longest_s:
            return self._close(self._first + self._quietest())
        return None

    def so_far(self) -> SpeechSegment | None:
        """Return the span that is still open, as far as it was heard; None between spans."""
        return self._span(self._frames) if self._frames else None

    def finish(self) -> SpeechSegment | None:
        """Return the span that the recording's end cut short, if there is one."""
        if not self._frames:
            return None
        return self._close(self._last_speech + 1 + _frames_of(MARGIN_S))

    def _open(self, number: int) -> None:
        self._first = number - len(self._before)
        self._frames = list(self._before)
        self._probabilities = [0.0] * len(self._before)
        self._before.clear()
        self._last_speech = number

    def _remember(self, frame: Tensor) -> None:
        self._before.append(frame)
        while len(self._before) > _frames_of(MARGIN_S):
            self._before.popleft()

    def _is_over(self, number: int) -> bool:
        pause = (number - self._last_speech) * FRAME_S
        long_enough = len(self._frames) * FRAME_S > self.longest_s / 2
        return pause >= PAUSE_S or (long_enough and pause >= SHORT_PAUSE_S)

    def _quietest(self) -> int:
        """Find where in the span's second half there is least speech, to cut it there."""
        values = torch.tensor(self._probabilities)
        smooth = values.unfold(0, SMOOTH, 1).mean(dim=1)
        half = len(smooth) // 2
        return half + int(smooth[half:].argmin()) + SMOOTH // 2

    def _close(self, end: int) -> SpeechSegment | None:
        """End the span before frame ``end``; what comes after it begins the next one."""
        keep = min(end - self._first, len(self._frames))
        kept, rest = self._frames[:keep], self._frames[keep:]
        rest_probabilities = self._probabilities[keep:]
        spoken = any(p >= SPEECH for p in self._probabilities[:keep])
        span = self._span(kept) if spoken else None
        begin, self._frames, self._probabilities = self._first + keep, [], []
        if any(p >= SPEECH for p in rest_probabilities):  # a forced cut: speech goes on
            self._first, self._frames, self._probabilities = begin, rest, rest_probabilities
        else:
            for frame in rest:
                self._remember(frame)
        return span

    def _span(self, frames: list[Tensor]) -> SpeechSegment:
        start, waveform = self._first * FRAME, torch.cat(frames)
        end = start + waveform.shape[0]
        return SpeechSegment(start / SAMPLE_RATE, end / SAMPLE_RATE, waveform)


def speech_spans(
    chunks: Iterable[Tensor], probability: Callable[[Tensor], float], *, longest_s: float
) -> Iterator[SpeechSegment]:
    """Cut a recording into spans of speech.

    Args:
        chunks: [n] float32 at 16 kHz, in order, any sizes.
        probability: of speech in one frame [512] (``SpeechDetector.probability``).
        longest_s: no span is longer.

    Yields:
        Spans in order; the last ends where the recording does, or before.
    """
    cutter = SpanCutter(longest_s)
    for frame in whole_frames(chunks):
        span = cutter.push(frame, probability(frame))
        if span is not None:
            yield span
    last = cutter.finish()
    if last is not None:
        yield last


def whole_spans(chunks: Iterable[Tensor], *, longest_s: float) -> Iterator[SpeechSegment]:
    """Cut a recording, at its quietest points, into spans that together are all of it.

    Args:
        chunks: [n] float32 at 16 kHz, in order, any sizes.
        longest_s: no span is longer.

    Yields:
        Spans that follow each other without a gap.
    """
    longest = max(2 * SMOOTH * FRAME, int(longest_s * SAMPLE_RATE))
    held, start = torch.zeros(0), 0
    for chunk in chunks:
        held = torch.cat((held, chunk))
        while held.shape[0] > longest:
            cut = _quietest_sample(held[:longest])
            yield SpeechSegment(start / SAMPLE_RATE, (start + cut) / SAMPLE_RATE, held[:cut])
            held, start = held[cut:], start + cut
    if held.shape[0]:
        yield SpeechSegment(start / SAMPLE_RATE, (start + held.shape[0]) / SAMPLE_RATE, held)


def _quietest_sample(waveform: Tensor) -> int:
    """Find the middle of the quietest 160 ms of the second half of [N]."""
    whole = waveform[: waveform.shape[0] // FRAME * FRAME].view(-1, FRAME)
    energy = whole.square().sum(dim=1).unfold(0, SMOOTH, 1).sum(dim=1)
    half = energy.shape[0] // 2
    return (half + int(energy[half:].argmin()) + SMOOTH // 2) * FRAME


def whole_frames(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield frames [512] from chunks of any size; the last frame is what is left, [1..512]."""
    rest = torch.zeros(0)
    for chunk in chunks:
        samples = torch.cat((rest, chunk))
        whole = samples.shape[0] // FRAME * FRAME
        for start in range(0, whole, FRAME):
            yield samples[start : start + FRAME]
        rest = samples[whole:]
    if rest.shape[0]:
        yield rest


def _frames_of(seconds: float) -> int:
    return round(seconds / FRAME_S)
