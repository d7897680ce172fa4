"""Every recording that cannot be used gives one line of advice; damaged ones give what they hold.

Run alone: ``python -m pytest tests/test_bad_audio.py``.
"""

import contextlib
import io
import logging
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from core.audio import decode
from core.audio.waveform import AudioError, from_samples
from recordings import (
    ENCODED,
    WAV,
    Floats,
    Unseekable,
    clip,
    correlation,
    encode,
    failure,
    pcm_wav,
    written,
)


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
    waveform = decode.load_audio(data[: len(data) * 6 // 10])
    assert 1.0 < len(waveform) / 16_000 < 3.2
    assert correlation(waveform.numpy(), clip(16_000, 4.0)[: len(waveform)]) > 0.95


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_a_cut_off_file_is_warned_of(kind: str, caplog: pytest.LogCaptureFixture):
    data = ENCODED[kind]()
    with caplog.at_level(logging.WARNING):
        decode.load_audio(data)
        assert not caplog.records
        decode.load_audio(data[: len(data) // 2])
    assert "cut off?" in caplog.text


def test_an_m4a_without_its_index_is_refused():
    data = ENCODED["m4a"]()
    assert "not a recording" in failure(data[: len(data) // 2])


def test_a_header_that_leads_beyond_any_disk_prints_no_stack(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    file = tmp_path / "a.w64"
    data = written(clip(16_000), 16_000, "W64", "PCM_16")
    for size in (2**62, 2**63 - 100, 2**63, 2**64 - 1):
        file.write_bytes(data[:44] + bytes(12) + size.to_bytes(8, "little") + data[64:])
        with contextlib.suppress(AudioError):
            decode.load_audio(file)
    assert "Traceback" not in capfd.readouterr().err


def test_a_hole_in_a_file_does_not_end_it():
    data = bytearray(encode("adts", "aac", 44_100, clip(44_100, 4.0)))
    middle = len(data) // 2
    data[middle : middle + 2_000] = np.random.default_rng(0).bytes(2_000)
    assert 2.5 < len(decode.load_audio(bytes(data))) / 16_000 < 4.2


def test_nan_and_infinite_samples_are_counted():
    samples = clip(16_000)
    samples[[5, 9_000]] = np.nan
    samples[15_999] = -np.inf
    data = written(samples, 16_000, "WAV", "FLOAT")
    assert "3 NaN or infinite samples" in failure(data)
    with pytest.raises(AudioError, match="3 NaN"):
        from_samples(samples, 16_000)


def test_a_recording_over_the_limit_is_refused_with_both_lengths():
    assert "1.0 s long; expected at most 0.5 s" in failure(WAV, max_seconds=0.5)
    assert "over 0.5 s" in failure(ENCODED["mp3"](), max_seconds=0.5)
    assert len(decode.load_audio(WAV, max_seconds=1.0)) == 16_000


def test_a_recording_without_a_stated_length_is_refused_while_decoding():
    data = encode("webm", "libopus", 48_000, clip(48_000), options={"live": "1"})
    assert decode.probe(Unseekable(data)).duration_s is None
    assert "over 0.3 s long (by its header unstated)" in failure(Unseekable(data), max_seconds=0.3)


def test_a_claim_of_months_is_not_believed(caplog: pytest.LogCaptureFixture):
    data = bytearray(written(clip(16_000), 16_000, "FLAC", "PCM_16"))
    data[21] |= 0x0F  # the header's count of samples: 36 bits
    data[22:26] = b"\xff" * 4
    assert len(decode.load_audio(bytes(data), max_seconds=5.0)) == 16_000
    assert decode.probe(bytes(data)).duration_s is None
    assert "header claims" in caplog.text


def test_the_placeholder_length_of_a_piped_wav_is_no_length():
    data = bytearray(WAV)
    data[4:8] = data[40:44] = b"\xff" * 4
    assert len(decode.load_audio(bytes(data), max_seconds=5.0)) == 16_000


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


def test_lengths_must_be_positive():
    assert "max_seconds" in failure(WAV, max_seconds=0)
    with pytest.raises(AudioError, match="chunk_s"):
        next(decode.stream_audio(WAV, chunk_s=0))
