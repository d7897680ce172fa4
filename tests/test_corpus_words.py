"""The parts of a corpus that make rare words, and strings of digits, frequent."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from training.__main__ import main
from training.corpus import corpus, menu_grammar, synthesis, text
from training.corpus.domains import DOMAINS

VOICES = (
    synthesis.Voice("one", "flite", "", "free", 1),
    synthesis.Voice("other", "flite", "", "free", 1, "heldout_voice"),
    synthesis.Voice("third", "pico", "", "free", 1),
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(voice, text) of whatever is spoken, by voices that make a hum."""
    spoken: list[tuple[str, str]] = []

    def hum(voice: synthesis.Voice, text: str, rng: random.Random) -> synthesis.Speech:
        spoken.append((voice.name, text))
        return np.full(1600, 0.1, np.float32), 16_000

    monkeypatch.setattr(synthesis, "VOICES", VOICES)
    monkeypatch.setattr(synthesis, "available", lambda voice: True)
    monkeypatch.setattr(synthesis, "speak", hum)
    monkeypatch.setattr(corpus, "ProcessPoolExecutor", ThreadPoolExecutor)
    return spoken


def test_every_word_is_said_often_enough_to_be_learnt():
    heard: Counter[str] = Counter()
    usual: Counter[str] = Counter()
    for seed in range(6000):
        heard.update(menu_grammar.word_line(random.Random(seed)).text.split())
        usual.update(menu_grammar.line(random.Random(seed)).text.split())
    words = menu_grammar.vocabulary()
    assert set(heard) <= words
    assert min(heard[word] for word in words) >= 15
    assert min(usual[word] for word in words) < 10


def test_all_of_it_is_for_training_and_lies_beside_the_rest(
    tmp_path: Path, said: list[tuple[str, str]]
):
    assert corpus.make_synthetic(tmp_path, 90, 1, "menu") == 90
    assert corpus.make_synthetic(tmp_path, 80, 1, "menu", part="words") == 80
    assert corpus.make_synthetic(tmp_path, 40, 1, "menu", part="digits") == 40
    splits = {name: Counter(c.split for c in clips(tmp_path, name)) for name in corpus.PARTS}
    assert splits["synthetic"] == {"train": 58, "dev": 2, "heldout_voice": 30}
    assert splits["words"] == {"train": 80}
    assert splits["digits"] == {"train": 40}
    assert splits["outside"] == {}
    assert splits["synthetic"].total() == corpus.make_synthetic(tmp_path, 90, 1, "menu")
    files = {clip.audio for name in corpus.PARTS for clip in clips(tmp_path, name)}
    assert len(files) == 210
    assert all((tmp_path / file).is_file() for file in files)


def clips(folder: Path, name: str) -> list[corpus.CorpusClip]:
    every = corpus.read_manifest(folder, ["train", "dev", "heldout_voice"])
    apart = [part for part in ("words", "digits", "outside") if part != name]
    return [
        clip
        for clip in every
        if not any(f"{part}-" in clip.audio for part in apart)
        and (name == "synthetic" or f"{name}-" in clip.audio)
    ]


def test_strings_of_digits_are_read_by_voices_of_other_languages_too(
    tmp_path: Path, said: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
):
    accent = synthesis.Voice("accent", "pico_accent", "de-DE", "free", 1)
    monkeypatch.setattr(synthesis, "VOICES", (*VOICES, accent))
    corpus.make_synthetic(tmp_path, 30, 1, "menu", part="digits")
    assert {voice for voice, _ in said} == {"one", "third", "accent"}
    assert {word for clip in clips(tmp_path, "digits") for word in clip.text.split()} <= {
        *(*text.DIGIT_WORDS, text.OH, *text.REPEATS),
    }
    said.clear()
    corpus.make_synthetic(tmp_path, 30, 1, "menu")
    assert "accent" not in {voice for voice, _ in said}


def test_sentences_of_no_domain_are_for_tests_alone(tmp_path: Path, said: list[tuple[str, str]]):
    corpus.make_synthetic(tmp_path, 40, 1, "menu", part="outside")
    read = corpus.read_manifest(tmp_path, ["outside"])
    assert len(read) == 40 == len(said)
    assert not corpus.read_manifest(tmp_path, ["train", "dev"])
    known = menu_grammar.vocabulary()
    assert all(sum(word not in known for word in clip.text.split()) >= 3 for clip in read)


def test_a_clip_that_is_there_is_not_said_again(tmp_path: Path, said: list[tuple[str, str]]):
    corpus.make_synthetic(tmp_path, 8, 1, "menu", part="words", engines=["pico"])
    assert {voice for voice, _ in said} == {"third"}
    count = len(said)
    corpus.make_synthetic(tmp_path, 8, 1, "menu", part="words", engines=["pico"])
    assert len(said) == count


def test_voices_that_read_later_are_added(tmp_path: Path, said: list[tuple[str, str]]):
    for engine, total in (("pico", 8), ("flite", 16), ("flite", 16)):
        count = corpus.make_synthetic(tmp_path, 8, 1, "menu", part="words", engines=[engine])
        assert count == len(clips(tmp_path, "words")) == total


def test_an_unknown_engine_and_a_domain_without_rare_words_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no voice has the engine siri; expected some of"):
        corpus.make_synthetic(tmp_path, 8, 1, "menu", engines=["siri"])
    with pytest.raises(ValueError, match="'digits' has no rare words to read; one of menu has"):
        corpus.make_synthetic(tmp_path, 8, 1, "digits", part="words")
    assert DOMAINS["digits"].word_line is None


def test_an_unknown_part_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["--corpus", str(tmp_path), "corpus", "--parts", "synthetic,rare"]) == 2
    assert (
        "--parts has rare; expected some of recordings,synthetic,words,digits"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
@pytest.mark.parametrize("factor", [1.0, 1.1234567])
def test_resampling_keeps_the_pitch_to_a_hair_and_lets_nothing_fold_back(
    rate: int, factor: float
) -> None:
    time = np.arange(2 * rate) / rate
    pure = corpus.resample(np.sin(6.283185307 * 1000 * time).astype(np.float32), rate, factor)
    now = np.arange(len(pure)) / corpus.RATE
    wanted = 6.283185307 * 1000 * factor * now
    inside = slice(len(pure) // 4, -len(pure) // 4)
    basis = np.stack([np.sin(wanted), np.cos(wanted)], 1)[inside]
    level, *_ = np.linalg.lstsq(basis, pure[inside], rcond=None)
    assert np.abs(pure[inside] - basis @ level).max() < 1e-4
    assert np.hypot(*level) == pytest.approx(1.0, abs=1e-3)
    if rate * factor > 2 * 8500:
        high = np.sin(6.283185307 * 8500 / factor * time).astype(np.float32)
        assert np.abs(corpus.resample(high, rate, factor)[inside]).max() < 1e-4
