"""Decoded frames -> samples in the order and at the place that the file's own times give them.

In: an open recording. Out: blocks of channels [C, n] that follow each other without a gap: where
the packets' times leave one, silence fills it, so that a second of samples is a second of the file.
Sound is never dropped or stretched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np

from core.audio.container import MIN_BYTES_PER_SECOND, AudioContainer
from core.audio.downmix import Block
from core.audio.track import FORMATS
from core.audio.waveform import AudioError, to_full_scale
from core.units import counted

# Only these carry a time for every packet; elsewhere times are counted from the samples.
TIMED = ("mov", "matroska", "ogg")
TOLERANCE_S = 0.1  # stamps are rounded, and clocks of recorders drift
STEP_BACK_S = 0.5  # times that go back by more begin a recording that was joined on
# A file may be cut out of a stream that had run for hours: then time counts from its first packet.
MAX_START_S = 60.0
MAX_GAP_S = 3_600.0  # where the file states no length


@dataclass
class _Clock:
    """The place in the output, and where the file's own clock stands to it. All in seconds."""

    zero_s: float
    longest_s: float
    written_s: float = 0.0
    last_end_s: float | None = None
    skipped_s: float = 0.0

    def gap_before(self, stamp_s: float | None, length_s: float) -> float:
        """Take in a frame; returns the silence that belongs before it."""
        gap_s = 0.0
        if stamp_s is not None:
            at_s = stamp_s - self.zero_s
            if self.last_end_s is not None and stamp_s < self.last_end_s - STEP_BACK_S:
                self.zero_s += at_s - self.written_s
            elif at_s - self.written_s > TOLERANCE_S:
                gap_s = at_s - self.written_s
                if at_s > self.longest_s:
                    self.skipped_s += gap_s
                    self.zero_s, gap_s = self.zero_s + gap_s, 0.0
            self.last_end_s = stamp_s + length_s
        self.written_s += gap_s + length_s
        return gap_s


def placed_blocks(recording: AudioContainer) -> Iterator[Block]:
    """Decode the recording's track, with silence where its packets' times leave a gap.

    Yields:
        Channels [C, n] and their rate.

    Raises:
        AudioError: nothing in it decodes.
    """
    zero_s = _zero(recording)
    clock = _Clock(zero_s, _longest(recording))
    timed = recording.info.container.startswith(TIMED)
    packers: dict[tuple[str, str, int], av.AudioResampler] = {}
    for frame in _frames(recording):
        stamp_s = _stamp(frame) if timed else None
        gap_s = clock.gap_before(stamp_s, frame.samples / frame.sample_rate)
        yield from _silence(gap_s, frame)
        for part in _packed(frame, packers):
            samples = part.to_ndarray()
            if not part.format.is_planar:
                samples = samples.reshape(-1, part.layout.nb_channels).T
            yield to_full_scale(recording.info.name, samples), part.sample_rate
    if clock.skipped_s:
        recording.report.warn(
            f"a jump of {clock.skipped_s:.0f} s in the packets' times was not followed"
        )
    # Encoders round up to whole frames, so a little less than claimed is usual.
    claim_s, seconds = recording.claim_s, clock.written_s
    if claim_s is not None and claim_s > zero_s > 0:
        claim_s -= zero_s
    if claim_s is not None and 0 < seconds < 0.98 * claim_s - 0.2:
        recording.report.warn(f"cut off? {seconds:.1f} s of the {claim_s:.1f} s its header claims")


def _zero(recording: AudioContainer) -> float:
    """Return the time, on the file's clock, at which the output begins."""
    start_s = (recording.container.start_time or 0) / av.time_base
    return start_s if recording.continues or not 0 <= start_s <= MAX_START_S else 0.0


def _stamp(frame: av.AudioFrame) -> float | None:
    """Return a frame's time on the file's clock, in seconds."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base)


def _longest(recording: AudioContainer) -> float:
    """Return where no packet's time is believed any more."""
    size = recording.container.size
    believable_s = size / MIN_BYTES_PER_SECOND if size > 0 else MAX_GAP_S
    return recording.info.duration_s + 1.0 if recording.info.duration_s else believable_s


def _silence(seconds: float, frame: av.AudioFrame) -> Iterator[Block]:
    left, rate = round(seconds * frame.sample_rate), frame.sample_rate
    while left > 0:
        size = min(left, rate)
        yield np.zeros((frame.layout.nb_channels, size), np.float32), rate
        left -= size


def _packed(
    frame: av.AudioFrame, packers: dict[tuple[str, str, int], av.AudioResampler]
) -> list[av.AudioFrame]:
    """Interleave frames of 8 or more planes; let others pass.

    PyAV 18 looks for the end of a frame's planes at a null pointer that is there only up to 7 of
    them; reading an 8-plane frame (7.1 AAC, Opus or Vorbis) ends the process.

    Returns:
        Frames with the same samples.
    """
    if not frame.format.is_planar or frame.layout.nb_channels < 8:
        return [frame]
    key = (frame.format.name, frame.layout.name, frame.sample_rate)
    if key not in packers:
        packers[key] = av.AudioResampler(format=frame.format.packed)
    return packers[key].resample(frame)


def _frames(recording: AudioContainer) -> Iterator[av.AudioFrame]:
    """Decode; damaged packets are left out and reported once, unless nothing else is there."""
    num_frames = num_damaged = 0
    packets = recording.container.demux(recording.stream)
    while True:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet is not None else []
        except av.error.FFmpegError:  # in the demuxer it also ends `packets`
            num_damaged += 1
            continue
        if packet is None:
            break
        num_frames += len(frames)
        yield from frames
    if num_damaged and not num_frames:
        came = f"{num_damaged} damaged packets and nothing that decodes"
        raise AudioError(recording.info.name, came, FORMATS, "get the recording again")
    if num_damaged:
        recording.report.warn(f"{counted(num_damaged, 'damaged packet')} left out")
