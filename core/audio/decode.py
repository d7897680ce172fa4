"""A recording on disk or in memory -> one mono waveform at 16 kHz.

In: a path, bytes, or a binary file object holding wav, flac, mp3, ogg, opus, m4a, aac, webm or mp4
(also aiff, au, caf, w64, amr, and Asterisk's headerless g722 by its suffix).
Out: float32 tensors [N], full scale +-1.0, 16 000 samples a second. A 16 kHz 16-bit file comes back
exactly as ``int16 / 32768``; clipped samples are read as they are.

Decoding is FFmpeg's, through PyAV, with its removal of encoder delay where the file states it.
Channels become one by their plain mean, 5.1 included: FFmpeg's own downmix drops the bass channel
and weights the others. So a voice in one of two channels is halved, not lost; a signal that is
exactly opposite in both channels cancels, and :func:`core.audio.waveform.is_silent` says so.
"""

import logging
from collections.abc import Iterator

import av
import numpy as np
import torch
from torch import Tensor

from core.audio.container import FORMATS, GUESSED_LENGTH, AudioContainer, AudioInfo, Source, opened
from core.audio.waveform import (
    SAMPLE_RATE,
    AudioError,
    Samples,
    check_finite,
    count_not_finite,
    mean_of_channels,
    refusal,
    resampled,
)

logger = logging.getLogger(__name__)


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


def load_audio(source: Source, *, max_seconds: float | None = None) -> Tensor:
    """Decode a whole recording.

    Args:
        source: path, bytes, or binary file object.
        max_seconds: refuse anything longer, before decoding it where the header gives a length.

    Returns:
        [N] float32, mono, 16 kHz. A damaged or cut-off file gives what decodes, with a warning.

    Raises:
        AudioError: not a readable recording, no samples, NaN or infinite samples, or too long.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise refusal("max_seconds", f"{max_seconds}", "more than 0 seconds", "raise it")
    limit = float("inf") if max_seconds is None else max_seconds
    with opened(source) as recording:
        info = recording.info
        claim = info.duration_s or 0.0
        if claim > limit and info.container not in GUESSED_LENGTH:
            raise _too_long(info.name, f"{claim:.1f} s long", limit)
        # An hour at most on the header's word; beyond that the buffer grows with what is decoded.
        buffer = np.empty(int((min(claim, limit, 3600.0) + 1) * SAMPLE_RATE), dtype=np.float32)
        filled = 0
        for block in _waveform(recording):
            if filled + block.size > limit * SAMPLE_RATE:
                guess = f"about {claim:.0f} s" if claim > limit else "unstated"
                raise _too_long(info.name, f"over {limit:g} s long (by its header {guess})", limit)
            if filled + block.size > buffer.size:
                # In place, by realloc: a three-hour recording is never held twice.
                buffer.resize(filled + block.size + buffer.size // 2, refcheck=False)
            buffer[filled : filled + block.size] = block
            filled += block.size
    buffer.resize(filled, refcheck=False)
    return torch.from_numpy(buffer)


def stream_audio(source: Source, *, chunk_s: float = 30.0) -> Iterator[Tensor]:
    """Decode in equal chunks; memory does not grow with the recording's length.

    Args:
        source: path, bytes, or binary file object.
        chunk_s: seconds a chunk, at most 3600.

    Yields:
        [n] float32, mono, 16 kHz; n is the same for all but the last, which is shorter.

    Raises:
        AudioError: as :func:`load_audio`, when the chunk that shows it is asked for.
    """
    if not 1 / SAMPLE_RATE <= chunk_s <= 3600:
        raise refusal("chunk_s", f"{chunk_s}", "up to 3600 seconds", "give a length in between")
    size = round(chunk_s * SAMPLE_RATE)
    with opened(source) as recording:
        chunk, filled = np.empty(size, dtype=np.float32), 0
        for block in _waveform(recording):
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


def _waveform(recording: AudioContainer) -> Iterator[Samples]:
    """Yield the recording in mono 16 kHz blocks of whatever size the decoder gives."""
    info = recording.info
    num_samples = 0
    for block in resampled(_mono_blocks(recording)):
        num_samples += block.size
        yield block
    if num_samples == 0:
        came = "a header without samples, or with under 5 ms"
        raise refusal(info.name, came, "sound", "record or export it again")
    seconds = num_samples / SAMPLE_RATE
    claim = info.duration_s if info.container not in GUESSED_LENGTH else None
    # Encoders round up to whole frames, so a little less than claimed is usual.
    if claim is not None and seconds < 0.98 * claim - 0.2:
        text = "%s: cut off? %.1f s of the %.1f s its header claims could be decoded"
        logger.warning(text, info.name, seconds, claim)


def _mono_blocks(recording: AudioContainer) -> Iterator[tuple[Samples, int]]:
    """Yield each decoded frame as ([n] float32, rate in Hz); count NaN over all before refusing."""
    name = recording.info.name
    num_bad = 0
    packers: dict[tuple[str, str, int], av.AudioResampler] = {}
    for frame in _frames(recording):
        for part in _packed(frame, packers):
            samples = part.to_ndarray()
            if not part.format.is_planar:
                samples = samples.reshape(-1, part.layout.nb_channels).T
            mono = mean_of_channels(name, samples)
            num_bad += count_not_finite(mono)
            if num_bad == 0 and mono.size:
                yield mono, part.sample_rate
    check_finite(name, num_bad)


def _packed(
    frame: av.AudioFrame, packers: dict[tuple[str, str, int], av.AudioResampler]
) -> list[av.AudioFrame]:
    """Interleave frames of 8 or more planes; let others pass.

    PyAV 18 looks for the end of a frame's planes at a null pointer that is there only up to 7 of
    them; reading an 8-plane frame (7.1 AAC, Opus or Vorbis) ends the process.
    """
    if not frame.format.is_planar or frame.layout.nb_channels < 8:
        return [frame]
    key = (frame.format.name, frame.layout.name, frame.sample_rate)
    if key not in packers:
        packers[key] = av.AudioResampler(format=frame.format.packed)
    return packers[key].resample(frame)


def _frames(recording: AudioContainer) -> Iterator[av.AudioFrame]:
    """Decode; damaged packets are left out and reported once, unless nothing else is there."""
    container, name = recording.container, recording.info.name
    num_frames = num_damaged = 0
    packets = container.demux(container.streams.audio[0])
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
        raise refusal(name, came, FORMATS, "get the recording again")
    if num_damaged:
        logger.warning("%s: %d damaged packets left out", name, num_damaged)


def _too_long(name: str, length: str, limit: float) -> AudioError:
    advice = "cut it into parts or raise the limit"
    return refusal(name, length, f"at most {limit:g} s", advice)
