"""What the page's player gets to play, and that the file that was given is the one that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from app.service import seekable_audio
from app.service.limits import Limits
from app.service.seekable_audio import original_path, seekable_copy


def flac(folder: Path, subtype: str = "PCM_16", channels: int = 2) -> tuple[Path, np.ndarray]:
    """A FLAC file of noise, and its samples [n, channels]."""
    samples = np.random.default_rng(0).uniform(-1, 1, (300_000, channels))
    soundfile.write(folder / "Song.FLAC", samples, 44_100, subtype, format="FLAC")
    return folder / "Song.FLAC", soundfile.read(folder / "Song.FLAC", always_2d=True)[0]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_flac_is_played_as_wav_with_the_same_samples(tmp_path: Path, subtype: str) -> None:
    source, samples = flac(tmp_path, subtype)
    played = seekable_copy(str(source))
    assert played == str(tmp_path / "Song.FLAC.wav")
    heard, rate = soundfile.read(played, always_2d=True)
    assert rate == 44_100
    assert np.array_equal(heard, samples)
    assert {file.name for file in tmp_path.iterdir()} == {"Song.FLAC", "Song.FLAC.wav"}


def test_the_file_that_was_given_is_the_one_that_is_transcribed(tmp_path: Path) -> None:
    source, _ = flac(tmp_path)
    played = seekable_copy(str(source))
    assert Limits().check_recording(played) == str(source)
    source.unlink()
    assert original_path(played) == played  # an upload that is really called so


def test_more_than_two_channels_are_mixed_into_one(tmp_path: Path) -> None:
    source, samples = flac(tmp_path, channels=6)
    played, _ = soundfile.read(seekable_copy(str(source)), always_2d=True)
    assert played.shape == (len(samples), 1)
    assert np.allclose(played[:, 0], samples.mean(axis=1), atol=1e-4)


def test_a_copy_of_too_many_bytes_is_never_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seekable_audio, "MOST_BYTES", 300_000 * 2 * 2 - 1)
    source, _ = flac(tmp_path)
    assert seekable_copy(str(source)) == str(source)
    assert [file.name for file in tmp_path.iterdir()] == ["Song.FLAC"]


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.webm", "a"])
def test_what_a_browser_can_seek_in_is_played_as_it_is(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    assert seekable_copy(path) == original_path(path) == path


def test_a_file_that_cannot_be_read_is_left_to_the_request_that_reads_it(tmp_path: Path) -> None:
    letter = tmp_path / "letter.flac"
    letter.write_text("dear sir")
    assert seekable_copy(str(letter)) == str(letter)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.flac"]
    assert seekable_copy(str(tmp_path / "gone.flac")) == str(tmp_path / "gone.flac")
