"""The reference text on the Transcribe tab: error rates, marked words, texts beside recordings.

Run alone: ``python -m pytest tests/test_app_reference.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import jiwer
import pytest

from app.service.examples import Labelled, with_texts
from app.wording.reference import differences_html, reference_html, together
from core.text.normalizers import NORMALIZERS, normalize
from core.text.word_errors import aligned_words, word_errors

SAID, HEARD = "Three, one eight nine.", "three won eight nine five"


def test_words_are_laid_beside_each_other_as_they_are_counted() -> None:
    runs = aligned_words(SAID, HEARD)
    assert runs == [("three", "three"), ("one", "won"), ("eight nine", "eight nine"), ("", "five")]
    assert aligned_words("", "x y") == [("", "x y")]
    assert aligned_words("x", "") == [("x", "")]
    assert aligned_words("", "") == []


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_marked_words_are_both_texts_and_their_number_is_jiwers(normalizer: str) -> None:
    html = differences_html(SAID, HEARD, normalizer)
    said = re.sub("<ins>.*?</ins>|</?del>", " ", html).split()
    heard = re.sub("<del>.*?</del>|</?ins>", " ", html).split()
    assert said == normalize(SAID, normalizer).split()
    assert heard == normalize(HEARD, normalizer).split()
    runs = aligned_words(SAID, HEARD, normalizer)
    wrong = [(len(a.split()), len(b.split())) for a, b in runs if a != b]
    assert sum(max(pair) for pair in wrong) == word_errors(SAID, HEARD, normalizer)[0]
    wer = jiwer.wer(normalize(SAID, normalizer), normalize(HEARD, normalizer))
    assert f"WER {100 * wer:.1f} %" in reference_html(SAID, HEARD, normalizer)


def test_a_normaliser_is_named_and_decides_what_is_marked() -> None:
    right = reference_html("Three one eight!", "three one eight", "basic")
    assert "Same as the reference, 3 words: WER 0.0 %, CER 0.0 %, normaliser basic." in right
    assert "<del>" not in right
    strict = reference_html("Three one eight!", "three one eight", "none")
    assert "<del>Three</del> <ins>three</ins> one <del>eight!</del> <ins>eight</ins>" in strict
    assert "normaliser none" in strict
    assert "1 word: WER 0.0 %" in reference_html("Three one eight", "318", "english")


def test_nothing_is_said_without_a_reference_or_a_transcript() -> None:
    assert reference_html(" \n", "three", "basic") == ""
    assert reference_html("three", None, "basic") == ""


def test_a_doubtful_reference_is_told() -> None:
    assert "The reference is empty once normalised" in reference_html("...", "three", "basic")
    foreign = reference_html("три один восемь", "three one eight", "english")
    assert "not in Latin letters" in foreign
    assert "No word agrees: is this the text of this recording" in foreign
    assert "No word agrees" not in reference_html("drei", "three", "basic")


def test_what_a_person_gives_is_escaped() -> None:
    for normalizer in NORMALIZERS:
        html = reference_html("<script> a <b>", "<i> a", normalizer)
        assert not re.search("<(script|b|i)>", html)


def test_several_recordings_have_intervals_once_there_are_enough() -> None:
    pairs = [("one two", "one two"), ("one two", "one three")]
    assert together(pairs, "basic").startswith("2 recordings with a text: WER 25.00 %, CER ")
    many = re.search(r"WER 25.00 \(([\d.]+) to ([\d.]+)\) %", together(pairs * 10, "basic"))
    assert many
    assert float(many[1]) < 25 < float(many[2])


def test_recordings_take_the_texts_of_their_name_and_what_has_none_is_told(tmp_path: Path) -> None:
    files = [tmp_path / n for n in ("a.flac", "a.txt", "b.wav", "b.TXT", "c.mp3", "d.txt", "e.wav")]
    for file in files:
        file.write_bytes(b"sound")
    (tmp_path / "a.txt").write_bytes("fünf\n".encode("utf-16"))
    (tmp_path / "b.TXT").write_bytes(b"caf\xe9")
    found, warnings = with_texts([str(file) for file in reversed(files)])
    assert [(Path(one.path).name, one.said) for one in found] == [
        ("e.wav", None),
        ("c.mp3", None),
        ("b.wav", None),
        ("a.flac", "fünf"),
    ]
    assert warnings == [
        "b.TXT is not text in UTF-8; save it again as UTF-8",
        "1 text without a recording, left out: d.txt",
        "3 recordings without a text: e.wav, c.mp3, b.wav",
    ]
    alone = [Labelled(str(files[0]))]
    assert with_texts([str(files[0])]) == (alone, [])
