"""Recordings in every format become the same waveform.

All material is made here. Run alone: ``python -m pytest tests/test_audio.py``.
"""

import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from core.audio import decode
from recordings import ENCODED, WAV, Unseekable, clip, correlation, encode, pcm_wav, written


@pytest.mark.parametrize("kind", ENCODED)
def test_every_format_gives_the_same_waveform(kind: str):
    waveform = decode.load_audio(ENCODED[kind]())
    assert waveform.dtype == torch.float32
    assert abs(len(waveform) - 16_000) <= 960
    assert correlation(waveform.numpy(), clip(16_000)) > 0.98


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_keeps_length_and_place(rate: int):
    waveform = decode.load_audio(written(clip(rate), rate, "WAV", "FLOAT")).numpy()
    assert abs(len(waveform) - 16_000) <= 2
    n = min(len(waveform), 16_000) - 200
    assert np.abs(waveform[200:n] - clip(16_000)[200:n]).max() < 2e-3


def test_resampling_lets_no_alias_through():
    t = np.arange(48_000) / 48_000
    tone = np.sin(2 * np.pi * 10_000 * t).astype(np.float32)
    waveform = decode.load_audio(written(tone, 48_000, "WAV", "FLOAT"))
    assert waveform[800:-800].abs().max() < 1e-3


def test_a_16_khz_wav_is_sample_exact():
    samples = np.random.default_rng(0).integers(-32_768, 32_768, 20_000).astype(np.int16)
    waveform = decode.load_audio(pcm_wav(samples))
    assert torch.equal(waveform, torch.from_numpy(samples.astype(np.float32) / 32_768))


def test_clipped_samples_are_read_as_they_are():
    square = np.where(np.arange(16_000) // 40 % 2, 32_767, -32_768).astype(np.int16)
    waveform = decode.load_audio(pcm_wav(square))
    assert waveform.min() == -1.0
    assert waveform.max() == 32_767 / 32_768


def test_channels_are_averaged_and_one_silent_side_only_halves():
    voice = (clip(16_000) * 32_000).astype(np.int16)
    one_side = decode.load_audio(pcm_wav(np.stack([voice, np.zeros_like(voice)], axis=1)))
    mono = decode.load_audio(pcm_wav(voice))
    assert torch.equal(one_side, mono / 2)


def test_every_channel_of_5_1_counts_alike():
    channels = np.zeros((1600, 6), dtype=np.int16)
    channels[:, 3] = 12_000  # the bass channel, which FFmpeg's own downmix drops
    waveform = decode.load_audio(pcm_wav(channels))
    assert torch.allclose(waveform, torch.tensor(2_000 / 32_768))


def test_paths_bytes_and_open_files_give_the_same(tmp_path: Path):
    path = tmp_path / "clip.wav"
    path.write_bytes(WAV)
    expected = decode.load_audio(WAV)
    assert torch.equal(decode.load_audio(path), expected)
    assert torch.equal(decode.load_audio(str(path)), expected)
    with path.open("rb") as file:
        assert decode.probe(file).name == "clip.wav"
        assert torch.equal(decode.load_audio(file), expected)  # from its start, though read before
        assert not file.closed


@pytest.mark.parametrize("kind", ["wav", "flac", "webm", "m4a"])
def test_a_stream_that_cannot_seek_is_read(kind: str):
    data = ENCODED[kind]()
    assert torch.equal(decode.load_audio(Unseekable(data)), decode.load_audio(data))


def test_content_wins_over_the_extension(tmp_path: Path):
    path = tmp_path / "clip.mp3"
    path.write_bytes(WAV)
    assert decode.probe(path).container == "wav"
    path = tmp_path / "clip.txt"
    path.write_bytes(ENCODED["opus"]())
    assert decode.probe(path).codec == "opus"


def test_headerless_g722_is_known_by_its_suffix(tmp_path: Path):
    path = tmp_path / "digits.g722"
    path.write_bytes(encode("g722", "g722", 16_000, clip(16_000)))
    waveform = decode.load_audio(path)
    assert len(waveform) == 16_000
    assert correlation(waveform.numpy(), clip(16_000)) > 0.98
    path.write_bytes(WAV)
    assert decode.probe(path).container == "wav"


def test_probe_reads_the_header():
    info = decode.probe(encode("webm", "libopus", 48_000, clip(48_000, 2.0), "stereo"))
    assert (info.sample_rate, info.channels, info.codec) == (48_000, 2, "opus")
    assert info.duration_s == pytest.approx(2.0, abs=0.05)


def test_chunks_are_equal_in_length_and_join_to_the_whole():
    data = written(clip(44_100, 7.3), 44_100, "FLAC", "PCM_16")
    chunks = list(decode.stream_audio(data, chunk_s=2.0))
    assert [len(chunk) for chunk in chunks[:-1]] == [32_000] * 3
    assert 0 < len(chunks[-1]) < 32_000
    assert torch.equal(torch.cat(chunks), decode.load_audio(data))


def test_streaming_memory_does_not_grow_with_length():
    data = pcm_wav(np.zeros(5 * 60 * 8_000, dtype=np.int16), 8_000)  # 19 MB when decoded at once
    tracemalloc.start()
    try:
        lengths = {len(chunk) for chunk in decode.stream_audio(data, chunk_s=5.0)}
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lengths == {80_000}
    # One chunk (0.3 MB) being filled, one with the reader, and the copy of the input (5 MB).
    assert peak_bytes - len(data) < 3_000_000


def test_a_chunk_is_freed_once_its_reader_lets_go():
    data = pcm_wav(np.zeros(10 * 16_000, dtype=np.int16))
    chunks = decode.stream_audio(data, chunk_s=1.0)
    first = weakref.ref(next(chunks))
    next(chunks)
    assert first() is None
