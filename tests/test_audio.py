"""Recordings in every format become the same waveform; bad ones become one line of advice.

All material is made here. Run alone: ``python -m pytest tests/test_audio.py``.
"""

import io
import logging
import math
import struct
import tracemalloc
import wave
import weakref
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from core import audio
from core.audio import AudioError

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
        audio.load_audio(source, **options)
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


@pytest.mark.parametrize("kind", ENCODED)
def test_every_format_gives_the_same_waveform(kind: str):
    waveform = audio.load_audio(ENCODED[kind]())
    assert waveform.dtype == torch.float32
    assert abs(len(waveform) - 16_000) <= 960
    assert correlation(waveform.numpy(), clip(16_000)) > 0.98


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_keeps_length_and_place(rate: int):
    waveform = audio.load_audio(written(clip(rate), rate, "WAV", "FLOAT")).numpy()
    assert abs(len(waveform) - 16_000) <= 2
    n = min(len(waveform), 16_000) - 200
    assert np.abs(waveform[200:n] - clip(16_000)[200:n]).max() < 2e-3


def test_resampling_lets_no_alias_through():
    t = np.arange(48_000) / 48_000
    tone = np.sin(2 * np.pi * 10_000 * t).astype(np.float32)
    waveform = audio.load_audio(written(tone, 48_000, "WAV", "FLOAT"))
    assert waveform[800:-800].abs().max() < 1e-3


def test_a_16_khz_wav_is_sample_exact():
    samples = np.random.default_rng(0).integers(-32_768, 32_768, 20_000).astype(np.int16)
    waveform = audio.load_audio(pcm_wav(samples))
    assert torch.equal(waveform, torch.from_numpy(samples.astype(np.float32) / 32_768))


def test_clipped_samples_are_read_as_they_are():
    square = np.where(np.arange(16_000) // 40 % 2, 32_767, -32_768).astype(np.int16)
    waveform = audio.load_audio(pcm_wav(square))
    assert waveform.min() == -1.0
    assert waveform.max() == 32_767 / 32_768


def test_channels_are_averaged_and_one_silent_side_only_halves():
    voice = (clip(16_000) * 32_000).astype(np.int16)
    one_side = audio.load_audio(pcm_wav(np.stack([voice, np.zeros_like(voice)], axis=1)))
    mono = audio.load_audio(pcm_wav(voice))
    assert torch.equal(one_side, mono / 2)


def test_opposite_channels_cancel_and_are_told_as_silence():
    voice = (clip(16_000) * 32_000).astype(np.int16)
    waveform = audio.load_audio(pcm_wav(np.stack([voice, -voice], axis=1)))
    assert audio.is_silent(waveform)


def test_every_channel_of_5_1_counts_alike():
    channels = np.zeros((1600, 6), dtype=np.int16)
    channels[:, 3] = 12_000  # the bass channel, which FFmpeg's own downmix drops
    waveform = audio.load_audio(pcm_wav(channels))
    assert torch.allclose(waveform, torch.tensor(2_000 / 32_768))


def test_paths_bytes_and_open_files_give_the_same(tmp_path: Path):
    path = tmp_path / "clip.wav"
    path.write_bytes(WAV)
    expected = audio.load_audio(WAV)
    assert torch.equal(audio.load_audio(path), expected)
    assert torch.equal(audio.load_audio(str(path)), expected)
    with path.open("rb") as file:
        assert audio.probe(file).name == "clip.wav"
        assert torch.equal(audio.load_audio(file), expected)  # from its start, though read before
        assert not file.closed


class Unseekable:
    """What a pipe or a network response offers."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


@pytest.mark.parametrize("kind", ["wav", "flac", "webm", "m4a"])
def test_a_stream_that_cannot_seek_is_read(kind: str):
    data = ENCODED[kind]()
    assert torch.equal(audio.load_audio(Unseekable(data)), audio.load_audio(data))


def test_content_wins_over_the_extension(tmp_path: Path):
    path = tmp_path / "clip.mp3"
    path.write_bytes(WAV)
    assert audio.probe(path).container == "wav"
    path = tmp_path / "clip.txt"
    path.write_bytes(ENCODED["opus"]())
    assert audio.probe(path).codec == "opus"


def test_headerless_g722_is_known_by_its_suffix(tmp_path: Path):
    path = tmp_path / "digits.g722"
    path.write_bytes(encode("g722", "g722", 16_000, clip(16_000)))
    waveform = audio.load_audio(path)
    assert len(waveform) == 16_000
    assert correlation(waveform.numpy(), clip(16_000)) > 0.98
    path.write_bytes(WAV)
    assert audio.probe(path).container == "wav"


def test_probe_reads_the_header():
    info = audio.probe(encode("webm", "libopus", 48_000, clip(48_000, 2.0), "stereo"))
    assert (info.sample_rate, info.channels, info.codec) == (48_000, 2, "opus")
    assert info.duration_s == pytest.approx(2.0, abs=0.05)


def test_chunks_are_equal_in_length_and_join_to_the_whole():
    data = written(clip(44_100, 7.3), 44_100, "FLAC", "PCM_16")
    chunks = list(audio.stream_audio(data, chunk_s=2.0))
    assert [len(chunk) for chunk in chunks[:-1]] == [32_000] * 3
    assert 0 < len(chunks[-1]) < 32_000
    assert torch.equal(torch.cat(chunks), audio.load_audio(data))


def test_streaming_memory_does_not_grow_with_length():
    data = pcm_wav(np.zeros(5 * 60 * 8_000, dtype=np.int16), 8_000)  # 19 MB when decoded at once
    tracemalloc.start()
    try:
        lengths = {len(chunk) for chunk in audio.stream_audio(data, chunk_s=5.0)}
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lengths == {80_000}
    # One chunk (0.3 MB) being filled, one with the reader, and the copy of the input (5 MB).
    assert peak_bytes - len(data) < 3_000_000


def test_a_chunk_is_freed_once_its_reader_lets_go():
    data = pcm_wav(np.zeros(10 * 16_000, dtype=np.int16))
    chunks = audio.stream_audio(data, chunk_s=1.0)
    first = weakref.ref(next(chunks))
    next(chunks)
    assert first() is None


def test_a_missing_file_a_folder_and_an_address_are_refused(tmp_path: Path):
    assert "no such file" in failure(tmp_path / "absent.wav")
    assert "a folder" in failure(tmp_path)
    assert "an address" in failure("https://example.org/clip.wav")
    assert "a device" in failure("/dev/zero")
    assert "NoneType" in failure(None)
    failure("a\0b")
    failure("x" * 5000)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "clip.wav"
    path.write_bytes(WAV)

    def refuse(self: Path, mode: str) -> io.BytesIO:  # an administrator may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "may not be read" in failure(path)


def test_an_object_that_fails_while_it_is_read_is_told():
    class Failing:
        def read(self, size: int = -1) -> bytes:
            raise OSError("the disk is gone")

    assert "the disk is gone" in failure(Failing())
    assert "opened as text" in failure(io.StringIO("words"))


PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + bytes(300)


@pytest.mark.parametrize(
    "data",
    [b"words and words\n" * 200, PNG, np.random.default_rng(1).bytes(60_000)],
    ids=["text", "picture", "noise"],
)
def test_what_is_not_audio_is_refused(data: bytes):
    assert "not a recording" in failure(data)


def test_an_empty_file_and_a_header_without_samples_are_refused(tmp_path: Path):
    path = tmp_path / "empty.wav"
    path.touch()
    assert "0 bytes" in failure(path)
    assert "0 bytes" in failure(b"")
    assert "without samples" in failure(pcm_wav(np.zeros(0, dtype=np.int16)))


def test_a_video_without_sound_is_refused():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        frames = [av.VideoFrame(64, 64, "yuv420p") for _ in range(5)]
        for frame in [*frames, None]:
            out.mux(stream.encode(frame))
    assert "without sound" in failure(file.getvalue())


# Four seconds: Ogg writes pages of one second, and the cut falls inside one.
CUT: dict[str, Callable[[Floats], bytes]] = {
    "wav": lambda samples: written(samples, 44_100, "WAV", "PCM_16"),
    "flac": lambda samples: written(samples, 44_100, "FLAC", "PCM_16"),
    "mp3": lambda samples: encode("mp3", "libmp3lame", 44_100, samples),
    "opus": lambda samples: encode("ogg", "libopus", 48_000, samples),
    "aac": lambda samples: encode("adts", "aac", 44_100, samples),
    "webm": lambda samples: encode("webm", "libopus", 48_000, samples),
}


@pytest.mark.parametrize("kind", CUT)
def test_a_cut_off_file_gives_its_beginning(kind: str):
    rate = 48_000 if kind in ("opus", "webm") else 44_100
    data = CUT[kind](clip(rate, 4.0))
    waveform = audio.load_audio(data[: len(data) * 6 // 10])
    assert 1.0 < len(waveform) / 16_000 < 3.2
    assert correlation(waveform.numpy(), clip(16_000, 4.0)[: len(waveform)]) > 0.95


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_a_cut_off_file_is_warned_of(kind: str, caplog: pytest.LogCaptureFixture):
    data = ENCODED[kind]()
    with caplog.at_level(logging.WARNING):
        audio.load_audio(data)
        assert not caplog.records
        audio.load_audio(data[: len(data) // 2])
    assert "cut off?" in caplog.text


def test_an_m4a_without_its_index_is_refused():
    data = ENCODED["m4a"]()
    assert "not a recording" in failure(data[: len(data) // 2])


def test_a_hole_in_a_file_does_not_end_it():
    data = bytearray(encode("adts", "aac", 44_100, clip(44_100, 4.0)))
    middle = len(data) // 2
    data[middle : middle + 2_000] = np.random.default_rng(0).bytes(2_000)
    assert 2.5 < len(audio.load_audio(bytes(data))) / 16_000 < 4.2


def test_nan_and_infinite_samples_are_counted():
    samples = clip(16_000)
    samples[[5, 9_000]] = np.nan
    samples[15_999] = -np.inf
    data = written(samples, 16_000, "WAV", "FLOAT")
    assert "3 NaN or infinite samples" in failure(data)
    with pytest.raises(AudioError, match="3 NaN"):
        audio.from_samples(samples, 16_000)


def test_a_recording_over_the_limit_is_refused_with_both_lengths():
    assert "1.0 s long; expected at most 0.5 s" in failure(WAV, max_seconds=0.5)
    assert "over 0.5 s" in failure(ENCODED["mp3"](), max_seconds=0.5)
    assert len(audio.load_audio(WAV, max_seconds=1.0)) == 16_000


def test_a_recording_without_a_stated_length_is_refused_while_decoding():
    data = encode("webm", "libopus", 48_000, clip(48_000), options={"live": "1"})
    assert audio.probe(Unseekable(data)).duration_s is None
    assert "over 0.3 s long (by its header unstated)" in failure(Unseekable(data), max_seconds=0.3)


def test_a_claim_of_months_is_not_believed(caplog: pytest.LogCaptureFixture):
    data = bytearray(written(clip(16_000), 16_000, "FLAC", "PCM_16"))
    data[21] |= 0x0F  # the header's count of samples: 36 bits
    data[22:26] = b"\xff" * 4
    assert len(audio.load_audio(bytes(data), max_seconds=5.0)) == 16_000
    assert audio.probe(bytes(data)).duration_s is None
    assert "header claims" in caplog.text


def test_the_placeholder_length_of_a_piped_wav_is_no_length():
    data = bytearray(WAV)
    data[4:8] = data[40:44] = b"\xff" * 4
    assert len(audio.load_audio(bytes(data), max_seconds=5.0)) == 16_000


def test_a_sample_rate_no_recorder_has_is_refused():
    data = WAV[:24] + struct.pack("<I", 4) + WAV[28:]
    assert "4 samples a second" in failure(data)


SCRIPTS = {
    "clip.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "clip.ffconcat": "ffconcat version 1.0\nfile {target}\n",
    "clip.sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 5004 RTP/AVP 0\r\n",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_play_lists_and_scripts_open_nothing(name: str, tmp_path: Path):
    target = tmp_path / "secret.wav"
    target.write_bytes(WAV)
    script = tmp_path / name
    script.write_text(SCRIPTS[name].format(target=target))
    assert "not a recording" in failure(script)
    assert "not a recording" in failure(script.read_bytes())
    disguised = tmp_path / "clip.wav"
    disguised.write_bytes(script.read_bytes())
    assert "not a recording" in failure(disguised)


@pytest.mark.parametrize("prefix", ["file:", "concat:", "subfile,,start,0,end,9999,,:", "http://"])
def test_ffmpeg_protocols_are_only_odd_file_names(prefix: str, tmp_path: Path):
    path = tmp_path / "clip.wav"
    path.write_bytes(WAV)
    failure(f"{prefix}{path}")


def test_microphone_arrays_become_what_a_file_becomes():
    samples = (clip(48_000) * 32_000).astype(np.int16)
    stereo = np.stack([samples, samples // 2], axis=1)
    expected = audio.load_audio(pcm_wav(stereo, 48_000))
    for array in (stereo, stereo.T, torch.from_numpy(stereo)):
        found = audio.from_samples(array, 48_000)
        assert len(found) == len(expected)
        assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.float32, np.float64])
def test_every_sample_type_has_the_same_full_scale(dtype: type):
    scale, zero = {"u": (128, 128), "i": (2 ** (8 * np.dtype(dtype).itemsize - 1), 0)}.get(
        np.dtype(dtype).kind, (1, 0)
    )
    samples = (np.array([-1.0, -0.5, 0.0, 0.5] * 100) * scale + zero).astype(dtype)
    assert audio.from_samples(samples, 16_000)[:4].tolist() == [-1.0, -0.5, 0.0, 0.5]


def test_samples_stay_the_callers():
    samples = clip(16_000)
    audio.from_samples(samples, 16_000)[:] = 0
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
        audio.from_samples(samples, rate)


def test_level_is_that_of_the_loudest_moment():
    waveform = torch.zeros(160_000)
    assert audio.speech_level_dbfs(waveform) == -math.inf
    waveform[80_000:80_800] = 0.1
    assert audio.speech_level_dbfs(waveform) == pytest.approx(-20.0, abs=0.01)
    sine = torch.sin(torch.arange(16_000) * 2 * math.pi / 40)
    assert audio.speech_level_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert audio.speech_level_dbfs(torch.full((5,), 0.1)) == pytest.approx(-20.0, abs=0.01)


def test_silence_is_told_from_quiet_speech():
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    assert audio.is_silent(torch.zeros(0))
    assert audio.is_silent(noise * 2e-4)
    assert not audio.is_silent(noise * 5e-3)


def test_lengths_must_be_positive():
    assert "max_seconds" in failure(WAV, max_seconds=0)
    with pytest.raises(AudioError, match="chunk_s"):
        next(audio.stream_audio(WAV, chunk_s=0))
