"""Recordings of new words: three manifests, and voices of the test that nobody trains on.

Run alone: ``python -m pytest tests/test_finetune_speak.py``. No voice is needed: a stub speaks.
"""

import random
from pathlib import Path

import numpy as np
import pytest

from training.__main__ import main
from training.corpus import speak as speaking
from training.corpus.manifest import read_manifest
from training.corpus.speak import SpeakOptions, compose, speak, voices_here
from training.corpus.synthesis import Speech, Voice


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the stub was asked to say, by voice; it fails on "broken"."""
    found: list[tuple[str, str]] = []

    def stub(voice: Voice, text: str, rng: random.Random) -> Speech:
        found.append((voice.name, text))
        if text == "broken":
            raise RuntimeError("no sound")
        return np.full(800 * len(text), 0.1, np.float32), 8000

    monkeypatch.setattr(speaking.synthesis, "speak", stub)
    monkeypatch.setattr(speaking.synthesis, "available", lambda voice: True)
    return found


def test_three_manifests_are_written_and_the_test_has_voices_of_its_own(
    said: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ["speak", "--words", "apple,broken,tiger", "--known", "one", "--clips", "120"]
    asked += ["--test-clips", "20", "--out", str(tmp_path)]
    assert main(asked) == 0
    rows = {name: read_manifest(tmp_path / f"{name}.jsonl") for name in ("train", "dev", "test")}
    assert f"{tmp_path / 'dev'}.jsonl: {len(rows['dev'])} rows" in capsys.readouterr().out
    speakers = {name: {row.speaker for row in part} for name, part in rows.items()}
    assert speakers["test"]
    assert not speakers["test"] & (speakers["train"] | speakers["dev"])
    assert all(row.audio.is_file() for part in rows.values() for row in part)
    assert not any(row.text == "broken" for part in rows.values() for row in part)
    words = {word for row in rows["train"] for word in row.text.split()}
    assert words == {"apple", "broken", "tiger", "one"}
    assert "one" not in {word for row in rows["test"] for word in row.text.split()}
    calls = len(said)
    assert main(asked) == 0  # goes on: only what failed is tried again
    assert {text for _, text in said[calls:]} == {"broken"}


def test_voices_that_read_one_domain_alone_are_left_out(said: list[tuple[str, str]]):
    train, test = voices_here()
    assert {voice.split for voice in train} == {"train"}
    assert not any("accent" in voice.name for voice in (*train, *test))


def test_one_voice_is_not_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(speaking.synthesis, "available", lambda voice: voice.engine == "espeak")
    with pytest.raises(ValueError, match="1 voices are installed; expected at least two"):
        speak(tmp_path, SpeakOptions(("apple",), (), 10, 5, 0))


def test_texts_are_short_and_half_of_them_single_words():
    rng = random.Random(0)
    texts = [compose(rng, ("a", "b"), ("x",)).split() for _ in range(600)]
    assert {len(text) for text in texts} == {1, 2, 3, 4}
    assert 0.4 < sum(len(text) == 1 for text in texts) / 600 < 0.6
    assert all(text != ["x"] for text in texts)
