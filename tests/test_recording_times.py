"""Times, tracks, joined files and channels: a second of samples is a second of the file.

Run alone: ``python -m pytest tests/test_recording_times.py``.
"""

import io

import av
import numpy as np
import pytest
import torch

from core.audio import decode
from core.audio.report import DecodeReport
from recordings import (
    ENCODED,
    Floats,
    Unseekable,
    clip,
    encode,
    failure,
    muxed,
    pcm_wav,
    timed,
    timed_packets,
    written,
)


def onset_s(waveform: torch.Tensor, after_s: float = 0.0) -> float:
    """The first second, after ``after_s``, at which anything is heard."""
    loud = torch.nonzero(waveform[round(16_000 * after_s) :].abs() > 0.05)
    return after_s + int(loud[0]) / 16_000


TIMED = [("mp4", "aac"), ("mov", "aac"), ("matroska", "libopus"), ("webm", "libopus")]


@pytest.mark.parametrize(("container", "codec"), TIMED[:3])
def test_sound_that_starts_late_is_placed_late(container: str, codec: str):
    found = decode.decode_audio(timed(container, codec, [(5.0, clip(48_000))], picture_s=8.0))
    assert onset_s(found.waveform) == pytest.approx(5.0, abs=0.05)
    assert len(found.waveform) / 16_000 == pytest.approx(6.0, abs=0.1)
    assert found.warnings == ()


@pytest.mark.parametrize(("container", "codec"), TIMED[2:])
def test_a_gap_between_packets_is_silence(container: str, codec: str):
    data = timed(container, codec, [(0.0, clip(48_000)), (6.0, clip(48_000))])
    found = decode.decode_audio(data)
    assert onset_s(found.waveform, after_s=1.2) == pytest.approx(6.0, abs=0.05)
    assert found.waveform[20_000:95_000].abs().max() == 0
    assert found.warnings == ()
    assert torch.equal(torch.cat(list(decode.stream_audio(data, chunk_s=1.0))), found.waveform)


def test_stamps_that_jitter_close_up_without_silence():
    pieces = [(0.0, clip(48_000)), (1.03, clip(48_000)), (2.0, clip(48_000))]
    found = decode.load_audio(timed("matroska", "libopus", pieces))
    assert len(found) / 16_000 == pytest.approx(3.0, abs=0.1)


def test_a_stream_that_had_run_for_hours_counts_from_its_first_packet():
    found = decode.load_audio(timed("matroska", "libopus", [(7200.0, clip(48_000))]))
    assert len(found) / 16_000 == pytest.approx(1.0, abs=0.1)


def test_a_jump_beyond_what_so_few_bytes_can_hold_is_told_and_not_followed():
    data = timed("matroska", "libopus", [(0.0, clip(48_000)), (80_000.0, clip(48_000))])
    found = decode.decode_audio(data)
    assert len(found.waveform) / 16_000 == pytest.approx(2.0, abs=0.2)
    assert "79999 s in the packets' times was not followed" in " ".join(found.warnings)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "libopus")])
def test_sound_shorter_than_its_picture_is_not_cut_off(container: str, codec: str):
    data = timed(container, codec, [(0.0, clip(48_000))], picture_s=6.0)
    assert decode.decode_audio(data).warnings == ()
    assert decode.probe(data).duration_s == pytest.approx(1.0, abs=0.1)


def two_tracks(container: str, codec: str, first: Floats, second: Floats, default: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        packets = timed_packets(out, codec, 48_000, [(0.0, first)])
        packets += timed_packets(out, codec, 48_000, [(0.0, second)])
        for number, stream in enumerate(out.streams):
            stream.disposition = av.stream.Disposition.default if number == default else 0
        muxed(out, packets)
    return file.getvalue()


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "libopus")])
def test_the_default_track_is_read_and_named(container: str, codec: str, default: int):
    silence, voice = np.zeros(48_000, np.float32), clip(48_000)
    pair = (silence, voice) if default else (voice, silence)
    found = decode.decode_audio(two_tracks(container, codec, *pair, default))
    assert found.waveform.abs().max() > 0.1
    assert found.warnings == (f"of 2 sound tracks number {default + 1} was read",)


def unknown_codec(data: bytes, *numbers: int) -> bytes:
    """The mov with the tracks of these numbers renamed to a codec that nobody decodes."""
    changed, at = bytearray(data), -1
    entries = []
    while (at := data.find(b"stsd", at + 1)) >= 0:
        entries.append(at + 16)
    for number in numbers:
        begin, end = entries[number], data.find(b"stts", entries[number])
        entry = changed[begin:end].replace(b"mp4a", b"apac").replace(b"esds", b"dapa")
        changed[begin:end] = entry
    return bytes(changed)


@pytest.mark.parametrize("unknown", [0, 1])
def test_the_track_that_can_be_decoded_is_read(unknown: int):
    data = two_tracks("mov", "aac", clip(48_000), clip(48_000), 0)
    found = decode.decode_audio(unknown_codec(data, unknown))
    assert found.waveform.abs().max() > 0.1
    assert found.warnings == (f"of 2 sound tracks number {2 - unknown} was read",)


def test_a_file_with_nothing_that_can_be_decoded_names_the_codec():
    data = two_tracks("mov", "aac", clip(48_000), clip(48_000), 0)
    message = failure(unknown_codec(data, 0, 1))
    assert "apac" in message
    assert "NoneType" not in message


def live_webm() -> bytes:
    """A webm as browsers record it: no lengths anywhere."""
    return encode("webm", "libopus", 48_000, clip(48_000), options={"live": "1"})


JOINED = {
    "wav": lambda: (ENCODED["wav"](), pcm_wav((clip(8_000, 2.0) * 32_767).astype(np.int16), 8_000)),
    "wav without a padding byte": lambda: (
        written(clip(8_000)[:-1], 8_000, "WAV", "PCM_U8")[:-1],
        ENCODED["wav"](),
    ),
    "aiff": lambda: (ENCODED["aiff"](), ENCODED["aiff"]()),
    "m4a": lambda: (ENCODED["m4a"](), ENCODED["mp4"]()),
    "opus": lambda: (ENCODED["opus"](), encode("ogg", "libopus", 48_000, clip(48_000, 2.0))),
    "vorbis of two rates": lambda: (
        ENCODED["ogg vorbis"](),
        written(clip(22_050, 2.0), 22_050, "OGG", "VORBIS"),
    ),
    "vorbis and opus": lambda: (ENCODED["ogg vorbis"](), ENCODED["opus"]()),
    "webm": lambda: (ENCODED["webm"](), ENCODED["webm"]() * 2),
    "webm without lengths": lambda: (live_webm(), live_webm() * 2),
    "flac": lambda: (ENCODED["flac"](), ENCODED["flac"]()),
    "mp3": lambda: (ENCODED["mp3"](), ENCODED["mp3"]()),
    "aac": lambda: (ENCODED["aac"](), ENCODED["aac"]()),
}


@pytest.mark.parametrize("kind", JOINED)
def test_recordings_joined_byte_by_byte_are_read_on(kind: str):
    first, second = JOINED[kind]()
    lengths = [len(decode.load_audio(part)) for part in (first, second)]
    found = decode.decode_audio(first + second)
    assert len(found.waveform) == pytest.approx(sum(lengths), abs=1_500)
    assert "cut off" not in " ".join(found.warnings)
    chunks = list(decode.stream_audio(first + second, chunk_s=0.7))
    assert torch.equal(torch.cat(chunks), found.waveform)


def test_many_joined_recordings_are_read_in_order():
    parts = [pcm_wav(np.full(1_600, 1_000 * n, np.int16)) for n in range(20)]
    found = decode.load_audio(b"".join(parts))
    assert found[800::1_600].mul(32_768).round().tolist() == [1_000 * n for n in range(20)]


def test_what_follows_a_wav_and_is_no_recording_is_told():
    wav = ENCODED["wav"]()
    assert decode.decode_audio(wav + b"ID3" + bytes(1_000)).warnings == ()
    found = decode.decode_audio(wav + bytes(100_000))
    assert len(found.waveform) == 16_000
    assert "100000 bytes after the recording's end" in found.warnings[0]


def test_a_length_limit_is_measured_and_not_read():
    """An MP3 whose header counts its first part only, and joined files whose header does so."""
    for first in (ENCODED["mp3"](), ENCODED["opus"](), ENCODED["flac"](), ENCODED["webm"]()):
        data = first * 4
        assert decode.measure_seconds(data) == pytest.approx(4.0, abs=0.2)
        assert "at most 2 s" in failure(data, max_seconds=2.0)
        with pytest.raises(decode.AudioError, match="at most 2 s"):
            decode.measure_seconds(data, max_seconds=2.0)
        with pytest.raises(decode.AudioError, match="at most 2 s"):
            list(decode.stream_audio(data, chunk_s=1.0, max_seconds=2.0))
    live = encode("webm", "libopus", 48_000, clip(48_000, 4.0), options={"live": "1"})
    with pytest.raises(decode.AudioError, match="at most 2 s"):
        decode.measure_seconds(Unseekable(live), max_seconds=2.0)


def test_a_short_recording_in_a_large_header_is_measured_as_what_it_holds():
    data = ENCODED["flac"]()
    report = DecodeReport()
    chunks = list(decode.stream_audio(data[: len(data) // 2], report=report))
    assert decode.measure_seconds(data[: len(data) // 2]) == sum(map(len, chunks)) / 16_000
    assert any("cut off?" in text for text in report.warnings)


@pytest.mark.parametrize("lead_s", [0.0, 30.0])
@pytest.mark.parametrize("noise", [0, 100])
def test_channels_that_cancel_are_read_alone(noise: int, lead_s: float):
    voice = clip(16_000) * 32_000
    rows = np.stack([voice, -voice], axis=1)
    rows += np.random.default_rng(0).normal(0, noise, rows.shape)
    lead = np.zeros((round(16_000 * lead_s), 2))
    found = decode.decode_audio(pcm_wav(np.concatenate([lead, rows]).astype(np.int16)))
    louder = int((rows.astype(np.int16).astype(float) ** 2).sum(axis=0).argmax())
    expected = torch.from_numpy(rows[:, louder].astype(np.int16) / np.float32(32_768))
    assert torch.equal(found.waveform[len(lead) :], expected)
    assert found.warnings == (
        f"the channels cancel each other; number {louder + 1} was read alone",
    )
    assert not found.channels_cancel


def test_channels_that_cancel_are_resampled_like_any():
    voice = (clip(44_100) * 32_000).astype(np.int16)
    opposite = decode.load_audio(pcm_wav(np.stack([voice, -voice], axis=1), 44_100))
    assert torch.equal(opposite, decode.load_audio(pcm_wav(voice, 44_100)))


def test_channels_that_come_to_cancel_are_told():
    voice = (clip(16_000, 90.0) * 16_000).astype(np.int16)
    rows = np.stack([voice, -voice], axis=1)
    rows[: 16_000 * 70] = 30  # loud enough to decide by, and the same in both
    found = decode.decode_audio(pcm_wav(rows))
    assert found.channels_cancel
    assert "most of the sound is lost" in found.warnings[0]


def test_independent_channels_do_not_cancel():
    rows = np.random.default_rng(0).normal(0, 3_000, (16_000, 8)).astype(np.int16)
    found = decode.decode_audio(pcm_wav(rows))
    assert found.warnings == ()
    expected = torch.from_numpy(rows.astype(np.float32)).div(32_768).mean(dim=1)
    assert torch.allclose(found.waveform, expected, atol=1e-6)
