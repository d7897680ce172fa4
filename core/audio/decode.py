"""A recording on disk or in memory -> one mono waveform at 16 kHz.

In: a path, bytes, or a binary file object holding wav, flac, mp3, ogg, opus, m4a, aac, webm or mp4
(also aiff, au, caf, w64, amr, and Asterisk's headerless g722 by its suffix).
Out: float32 tensors [N], full scale +-1.0, 16 000 samples a second. A 16 kHz 16-bit file comes back
exactly as ``int16 / 32768``; clipped samples are read as they are.

Decoding is FFmpeg's, through PyAV, with its removal of encoder delay where the file states it.
A second of samples is a second of the file: packets' times decide (:mod:`core.audio.timeline`).
Channels become one by their plain mean (:mod:`core.audio.downmix`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from core.audio.container import AudioContainer, AudioInfo, Source, opened
from core.audio.downmix import Block, Samples, downmixed
from core.audio.report import DecodeReport
from core.audio.timeline import placed_blocks
from core.audio.waveform import (
    SAMPLE_RATE,
    AudioError,
    RecordingTooLong,
    check_finite,
    count_not_finite,
    resampled,
)


def probe(source: Source) -> AudioInfo:
    """Read the header only.

    Args:
        source: path, bytes, or binary file object (read from its start where it can seek).

    Returns:
        Name, length in seconds, sample rate in Hz, channels, codec and container.

    Raises:
        AudioError: for anything that is not a readable recording.
    """
    with opened(source) as recording:
        return recording.info


@dataclass(frozen=True)
class DecodedAudio:
    """A recording's waveform [N], and what is worth knowing of how it was read.

    channels_cancel: little of the sound is left, for the channels are opposite to each other.
    """

    waveform: Tensor
    warnings: tuple[str, ...]
    channels_cancel: bool


def load_audio(source: Source, *, max_seconds: float | None = None) -> Tensor:
    """Decode a whole recording; what :func:`decode_audio` would warn of is logged.

    Args:
        source: path, bytes, or binary file object.
        max_seconds: refuse anything longer, before decoding it where the header gives a length.

    Returns:
        [N] float32, mono, 16 kHz. A damaged or cut-off file gives what decodes, with a warning.

    Raises:
        AudioError: not a readable recording, no samples, NaN or infinite samples, or too long.
    """
    return _decode(source, max_seconds, None)


def decode_audio(source: Source, *, max_seconds: float | None = None) -> DecodedAudio:
    """Decode a whole recording and keep the warnings; arguments and errors as :func:`load_audio`.

    Returns:
        Its waveform, and what is worth knowing of it.
    """
    report = DecodeReport()
    waveform = _decode(source, max_seconds, report)
    return DecodedAudio(waveform, tuple(report.warnings), report.channels_cancel)


def decode_channels(source: Source, *, max_seconds: float | None = None) -> tuple[Tensor, Tensor]:
    """Decode both channels of a stereo recording apart, as for one speaker each.

    Args:
        source: path, bytes, or binary file object that can seek.
        max_seconds: as for :func:`load_audio`.

    Returns:
        Left and right, [N] float32 at 16 kHz each.

    Raises:
        AudioError: as :func:`load_audio`, and for a recording that is not stereo.
    """
    info = probe(source)
    _check_stereo(info.name, info.channels)
    left, right = (_decode(source, max_seconds, DecodeReport(), channel) for channel in (0, 1))
    return left, right


def measure_seconds(source: Source, *, max_seconds: float | None = None) -> float:
    """Measure a recording's length by decoding it, whatever its header says, and keep nothing.

    Args:
        source: path, bytes, or binary file object.
        max_seconds: stop at anything longer.

    Returns:
        Seconds.

    Raises:
        AudioError: as :func:`load_audio`; RecordingTooLong for more than ``max_seconds``.
    """
    with opened(source, DecodeReport()) as recording:
        return sum(block.size for block in _limited(recording, max_seconds)) / SAMPLE_RATE


def _decode(
    source: Source,
    max_seconds: float | None,
    report: DecodeReport | None,
    channel: int | None = None,
) -> Tensor:
    with opened(source, report) as recording:
        # An hour at most on the header's word; beyond that the buffer grows with what is decoded.
        claim = min(recording.info.duration_s or 0.0, max_seconds or 3600.0, 3600.0)
        buffer = np.empty(int((max(0.0, claim) + 1) * SAMPLE_RATE), dtype=np.float32)
        filled = 0
        for block in _limited(recording, max_seconds, channel):
            if filled + block.size > buffer.size:
                # In place, by realloc: a three-hour recording is never held twice.
                buffer.resize(filled + block.size + buffer.size // 2, refcheck=False)
            buffer[filled : filled + block.size] = block
            filled += block.size
    buffer.resize(filled, refcheck=False)
    return torch.from_numpy(buffer)


def stream_audio(
    source: Source,
    *,
    chunk_s: float = 30.0,
    max_seconds: float | None = None,
    report: DecodeReport | None = None,
) -> Iterator[Tensor]:
    """Decode in equal chunks; memory does not grow with the recording's length.

    Args:
        source: path, bytes, or binary file object.
        chunk_s: seconds a chunk, at most 3600.
        max_seconds: refuse anything longer, at the chunk that shows it.
        report: takes the warnings, all of them by the end; they are logged where there is none.

    Yields:
        [n] float32, mono, 16 kHz; n is the same for all but the last, which is shorter.

    Raises:
        AudioError: as :func:`load_audio`, when the chunk that shows it is asked for.
    """
    if not 1 / SAMPLE_RATE <= chunk_s <= 3600:
        raise AudioError("chunk_s", f"{chunk_s}", "up to 3600 seconds", "give a length in between")
    size = round(chunk_s * SAMPLE_RATE)
    with opened(source, report) as recording:
        chunk, filled = np.empty(size, dtype=np.float32), 0
        for block in _limited(recording, max_seconds):
            rest = block
            while rest.size:
                taken = rest[: size - filled]
                chunk[filled : filled + taken.size] = taken
                filled, rest = filled + taken.size, rest[taken.size :]
                if filled == size:
                    yield torch.from_numpy(chunk)
                    chunk, filled = np.empty(size, dtype=np.float32), 0
        if filled:
            yield torch.from_numpy(chunk[:filled].copy())


def _limited(
    recording: AudioContainer, max_seconds: float | None, channel: int | None = None
) -> Iterator[Samples]:
    """Yield the waveform's blocks; refuse as soon as header or samples show it to be too long."""
    if max_seconds is not None and not max_seconds > 0:
        raise AudioError("max_seconds", f"{max_seconds}", "more than 0 seconds", "raise it")
    limit = float("inf") if max_seconds is None else max_seconds
    info = recording.info
    claim = info.duration_s or 0.0
    if (recording.claim_s or 0.0) > limit:
        raise _too_long(info.name, f"{recording.claim_s:.1f} s long", limit)
    num_samples = 0
    for block in _waveform(recording, channel):
        num_samples += block.size
        if num_samples > limit * SAMPLE_RATE:
            guess = f"about {claim:.0f} s" if claim > limit else "unstated"
            raise _too_long(info.name, f"over {limit:g} s long (by its header {guess})", limit)
        yield block


def _waveform(recording: AudioContainer, channel: int | None) -> Iterator[Samples]:
    """Yield one channel or the mean of all in 16 kHz blocks of whatever size the decoder gives."""
    name, num_samples = recording.info.name, 0
    blocks = chain.from_iterable(placed_blocks(part) for part in recording.parts())
    finite = _finite(name, blocks)
    mono = (
        downmixed(finite, recording.report)
        if channel is None
        else _one_channel(name, finite, channel)
    )
    for block in resampled(mono):
        num_samples += block.size
        yield block
    if num_samples == 0:
        came = "a header without samples, or with under 5 ms"
        raise AudioError(name, came, "sound", "record or export it again")


def _one_channel(name: str, blocks: Iterator[Block], channel: int) -> Iterator[Block]:
    for channels, rate in blocks:
        _check_stereo(name, len(channels))  # it may change on the way
        yield np.ascontiguousarray(channels[channel]), rate


def _finite(name: str, blocks: Iterator[Block]) -> Iterator[Block]:
    """Pass blocks on until one is not finite; then count to the end, and refuse."""
    num_bad = 0
    for channels, rate in blocks:
        num_bad += count_not_finite(channels)
        if num_bad == 0 and channels.size:
            yield channels, rate
    check_finite(name, num_bad)


def _check_stereo(name: str, num_channels: int) -> None:
    """See that there are two channels.

    Raises:
        AudioError: there are fewer or more.
    """
    if num_channels == 2:
        return
    came = "1 channel" if num_channels == 1 else f"{num_channels} channels"
    advice = "transcribe it with its channels mixed"
    raise AudioError(name, came, "stereo, a channel for each speaker", advice)


def _too_long(name: str, length: str, limit: float) -> RecordingTooLong:
    advice = "cut it into parts or raise the limit"
    return RecordingTooLong(name, length, f"at most {limit:g} s", advice)
