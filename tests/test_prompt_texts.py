"""Texts of recorded prompts in words, and which of them training may read."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest

from training.corpus import corpus, domains, prompt_texts, recordings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Press 1 to mute, 22 to #exit*.", "press one to mute twenty two to pound exit star"),
        ("at [@]", "at"),
        ('IAX (note: does not say "2")', "iax"),
        ("A.M.", "a m"),
        ("o'clock", "o'clock"),
        ("[ascending tones]", ""),
    ],
)
def test_texts_are_brought_into_spoken_words(text: str, said: str):
    assert prompt_texts.in_words(text) == said


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    rows = [f"key{number}: Please press {number}." for number in range(40)]
    rows += [
        "beep: [a tone]",
        ";comment: no",
        "",
        "odd: Weasels have eaten it",
        "silence/1: (quiet)",
    ]
    file = tmp_path / "texts.gz"
    file.write_bytes(gzip.compress("\n".join(rows).encode()))
    return file


def test_prompts_without_words_are_left_out(texts: Path):
    found = prompt_texts.read_prompts(texts)
    assert len(found) == 41
    assert found["key12"] == "please press twelve"


def test_training_reads_one_half_of_the_texts_and_known_words_only(texts: Path):
    readable = prompt_texts.readable_texts(texts)
    assert 8 <= len(readable) <= 32
    assert not any("weasels" in text for text in readable)
    kept = {
        text
        for key, text in prompt_texts.read_prompts(texts).items()
        if not prompt_texts.may_be_read(key)
    }
    assert kept - set(readable)


def test_without_the_package_lines_come_from_the_grammar_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert prompt_texts.readable_texts(tmp_path / "none.gz") == []
    monkeypatch.setattr(prompt_texts, "ASTERISK_TEXTS", tmp_path / "none.gz")
    prompt_texts.installed_texts.cache_clear()
    lines = [domains.menu_line(random.Random(seed)) for seed in range(30)]
    prompt_texts.installed_texts.cache_clear()
    assert all(line.text for line in lines)


def test_prompts_are_split_by_what_training_met(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sounds, folder = tmp_path / "sounds", tmp_path / "corpus"
    (sounds / "letters").mkdir(parents=True)
    rows = gzip.decompress(texts.read_bytes()) + b"\nletters/b: b\nmissing: please press one"
    texts.write_bytes(gzip.compress(rows))
    for key in prompt_texts.read_prompts(texts):
        if key != "missing":
            (sounds / f"{key}.g722").touch()
    monkeypatch.setattr(recordings, "_read_g722", lambda path: np.zeros(1600, np.float32))
    assert recordings.make_prompts(folder, sounds, texts) == 42
    clips = corpus.read_manifest(folder, ["prompts_met", "prompts_unmet"])
    readable = set(prompt_texts.readable_texts(texts))
    assert {clip.split for clip in clips} == {"prompts_met", "prompts_unmet"}
    assert all((clip.text in readable) == (clip.split == "prompts_met") for clip in clips)
    (letter,) = corpus.read_manifest(folder, ["prompts_letters"])
    (outside,) = corpus.read_manifest(folder, ["prompts_outside"])
    assert (letter.text, outside.text) == ("b", "weasels have eaten it")
    assert not corpus.read_manifest(folder, corpus.TRAIN_SPLITS)
