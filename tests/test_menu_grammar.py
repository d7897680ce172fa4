"""The grammar of voice-menu English: numbers in words, transcripts, vocabulary."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from training.corpus.menu_grammar import KINDS, Line, cardinal, line, ordinal, plain, vocabulary

LINES = [line(random.Random(seed)) for seed in range(4000)]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (1_207, "one thousand two hundred seven"),
        (999_999, "nine hundred ninety nine thousand nine hundred ninety nine"),
        (3_000_000_015, "three billion fifteen"),
    ],
)
def test_numbers_are_said_in_words(number: int, said: str):
    assert cardinal(number) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "first"),
        (12, "twelfth"),
        (20, "twentieth"),
        (23, "twenty third"),
        (38, "thirty eighth"),
        (100, "one hundredth"),
        (14, "fourteenth"),
    ],
)
def test_ordinals_change_the_last_word_only(number: int, said: str):
    assert ordinal(number) == said


@pytest.mark.parametrize("number", [-1, 10**12])
def test_numbers_without_a_name_are_refused(number: int):
    with pytest.raises(ValueError, match=str(number)):
        cardinal(number)


def test_the_vocabulary_has_the_stated_size_and_covers_every_line():
    assert 350 <= len(vocabulary()) <= 500
    missing = {word for one in LINES for word in one.text.split()} - vocabulary()
    assert not missing


def test_every_word_of_the_vocabulary_is_met():
    words = (w for seed in range(20_000) for w in line(random.Random(seed)).text.split())
    counts = Counter(words)
    assert not vocabulary() - counts.keys()
    assert min(counts[word] for word in vocabulary()) >= 5


def test_lines_depend_on_the_seed_alone():
    assert LINES[:50] == [line(random.Random(seed)) for seed in range(50)]
    assert len({one.text for one in LINES}) > 2500


def test_transcripts_hold_lower_case_words_and_single_spaces():
    assert all(one.text == " ".join(one.text.split()) == one.text.lower() for one in LINES)
    assert all(one.text and set(one.text) <= set("abcdefghijklmnopqrstuvwxyz' ") for one in LINES)


def test_letters_are_said_so_that_no_voice_reads_a_word():
    letters = [KINDS["letters"][1](random.Random(seed)) for seed in range(200)]
    assert all(isinstance(one, Line) for one in letters)
    assert {part for one in letters for part in one.said.split(", ")} >= {"ay", "B", "zee"}
    assert plain("three a m, monday") == Line("three ay em, monday", "three a m monday")


def test_a_quarter_of_the_lines_are_single_words():
    share = sum(len(one.text.split()) == 1 for one in LINES) / len(LINES)
    assert 0.2 < share < 0.4


def test_amounts_of_one_are_singular():
    said = {KINDS["money"][1](random.Random(seed)) for seed in range(3000)}
    assert any(one == "one dollar" or one.startswith("one dollar and") for one in said)
    assert not any(one.startswith("one dollars") for one in said)
