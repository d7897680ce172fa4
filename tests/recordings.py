"""Recordings made on the spot: one clip in every format, and what the audio tests ask of them.

In: samples. Out: the bytes of a file. Nothing here needs the network or an ffmpeg program.
"""

import io
import wave
from collections.abc import Callable, Sequence
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from core.audio import decode
from core.audio.waveform import AudioError

Floats = NDArray[np.float32]


def clip(rate: int, seconds: float = 1.0) -> Floats:
    """A 440 Hz tone under a chirp from 300 to 2300 Hz."""
    t = np.arange(round(rate * seconds)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 440 * t)
    return (tone + 0.3 * np.sin(2 * np.pi * (300 * t + 1000 / seconds * t * t))).astype(np.float32)


def encode(
    container: str,
    codec: str,
    rate: int,
    samples: Floats,
    layout: str = "mono",
    options: dict[str, str] | None = None,
) -> bytes:
    """Write the same samples into every channel."""
    file = io.BytesIO()
    num_channels = av.AudioLayout(layout).nb_channels
    packed = np.ascontiguousarray(np.repeat(samples, num_channels)[None])
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate = rate
    with av.open(file, "w", format=container, options=options) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = layout
        frame_size = stream.codec_context.frame_size or 1024
        fit = av.AudioResampler(stream.format, layout, rate, frame_size=frame_size)
        for part in [*fit.resample(frame), *fit.resample(None), None]:
            out.mux(stream.encode(part))
    return file.getvalue()


def timed_packets(
    out: av.container.OutputContainer, codec: str, rate: int, pieces: Sequence[tuple[float, Floats]]
) -> list[av.Packet]:
    """Add a mono track to ``out`` and encode ``pieces``, each from its second on."""
    stream = out.add_stream(codec, rate=rate)
    stream.layout = "mono"
    frame_size = stream.codec_context.frame_size or 1024
    packets: list[av.Packet] = []
    for start_s, samples in pieces:
        fit = av.AudioResampler(stream.format, "mono", rate, frame_size=frame_size)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = rate
        stamp = round(start_s * rate)
        for part in fit.resample(frame):
            if part.samples == frame_size:  # a shorter one may only come at the very end
                part.pts, part.time_base = stamp, Fraction(1, rate)
                stamp += part.samples
                packets += stream.encode(part)
    return packets + stream.encode(None)


def picture_packets(out: av.container.OutputContainer, seconds: float) -> list[av.Packet]:
    """Add a black picture of ``seconds`` to ``out``."""
    stream = out.add_stream("mpeg4", rate=10)
    stream.width = stream.height = 64
    packets: list[av.Packet] = []
    for number in range(round(10 * seconds)):
        frame = av.VideoFrame(64, 64, "yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def muxed(out: av.container.OutputContainer, packets: list[av.Packet]) -> None:
    for packet in sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)):
        out.mux(packet)


def timed(
    container: str,
    codec: str,
    pieces: Sequence[tuple[float, Floats]],
    *,
    rate: int = 48_000,
    picture_s: float = 0.0,
) -> bytes:
    """Write pieces of sound, each from its second on, beside a picture if ``picture_s``."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        packets = picture_packets(out, picture_s) if picture_s else []
        muxed(out, packets + timed_packets(out, codec, rate, pieces))
    return file.getvalue()


def written(samples: Floats, rate: int, format: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def pcm_wav(samples: NDArray[np.int16], rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def correlation(found: Floats, expected: Floats, max_lag: int = 960) -> float:
    """Largest normalised correlation over shifts of up to 60 ms."""
    n = min(len(found), len(expected)) - max_lag
    middle = expected[max_lag // 2 : max_lag // 2 + n - max_lag]
    windows = np.lib.stride_tricks.sliding_window_view(found, len(middle))[: 2 * max_lag]
    norms = np.linalg.norm(windows, axis=1) * np.linalg.norm(middle)
    return float((windows @ middle / (norms + 1e-9)).max())


def failure(source: object, **options: float) -> str:
    with pytest.raises(AudioError) as caught:
        decode.load_audio(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    return message


WAV = pcm_wav((clip(16_000) * 32_767).astype(np.int16))

ENCODED: dict[str, Callable[[], bytes]] = {
    "wav": lambda: WAV,
    "wav 24 bit 44.1 kHz": lambda: written(clip(44_100), 44_100, "WAV", "PCM_24"),
    "wav 8 bit 8 kHz": lambda: written(clip(8_000), 8_000, "WAV", "PCM_U8"),
    "wav 32 bit 96 kHz": lambda: written(clip(96_000), 96_000, "WAV", "PCM_32"),
    "wav float 192 kHz": lambda: written(clip(192_000), 192_000, "WAV", "FLOAT"),
    "wav double 22.05 kHz": lambda: written(clip(22_050), 22_050, "WAV", "DOUBLE"),
    "wav mu-law 8 kHz": lambda: written(clip(8_000), 8_000, "WAV", "ULAW"),
    "flac": lambda: written(clip(44_100), 44_100, "FLAC", "PCM_24"),
    "mp3": lambda: encode("mp3", "libmp3lame", 44_100, clip(44_100)),
    "ogg vorbis": lambda: written(clip(44_100), 44_100, "OGG", "VORBIS"),
    "opus": lambda: encode("ogg", "libopus", 48_000, clip(48_000)),
    "m4a": lambda: encode("ipod", "aac", 44_100, clip(44_100)),
    "aac": lambda: encode("adts", "aac", 44_100, clip(44_100)),
    "webm": lambda: encode("webm", "libopus", 48_000, clip(48_000)),
    "mp4": lambda: encode("mp4", "aac", 48_000, clip(48_000), "stereo"),
    "aiff": lambda: written(clip(16_000), 16_000, "AIFF", "PCM_16"),
    "5.1 opus": lambda: encode("webm", "libopus", 48_000, clip(48_000), "5.1"),
    "7.1 m4a": lambda: encode("ipod", "aac", 48_000, clip(48_000), "7.1"),
    "7.1 flac": lambda: encode("flac", "flac", 48_000, clip(48_000), "7.1"),
}


class Unseekable:
    """What a pipe or a network response offers."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read
