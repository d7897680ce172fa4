"""Tokens become words with a confidence; CTC labels become characters.

Run alone: ``python -m pytest tests/test_words.py``.
"""

import random
from math import log

import pytest
import torch

from core.model.ctc import contains_speech, label_character, read_greedily
from core.text.tokenizer import Tokenizer
from core.text.words import confidence, split_words
from tiny_models import END_ID, VOCABULARY


def test_confidence_is_the_geometric_mean():
    assert confidence([log(0.5), log(0.125)]) == pytest.approx(0.25)
    assert confidence([]) is None


def test_words_are_the_texts_words_in_order(tokenizer: Tokenizer):
    text = " four one  five\nnaïve 👍 日本\t"
    ids = tokenizer.encode(text)
    words = split_words(tokenizer, ids, [0.0] * len(ids))
    assert [word.text for word in words] == text.split()
    assert all(word.confidence == 1.0 for word in words)
    assert all(word.start is None and word.end is None for word in words)


def test_a_words_confidence_comes_from_its_own_tokens(tokenizer: Tokenizer):
    ids = tokenizer.encode("xq jk")  # no merges: one token a character, the space its own
    assert len(ids) == 5
    logprobs = [log(p) for p in (0.5, 0.5, 0.9, 0.25, 0.25)]
    first, second = split_words(tokenizer, ids, logprobs)
    assert first.confidence == pytest.approx(0.5)
    assert second.confidence == pytest.approx(0.25)


def test_all_bytes_of_a_character_count(tokenizer: Tokenizer):
    ids = tokenizer.encode("👍")
    (word,) = split_words(tokenizer, ids, [log(p) for p in (1.0, 1.0, 1.0, 0.0625)])
    assert word.text == "👍"
    assert word.confidence == pytest.approx(0.5)


def test_nothing_gives_no_words(tokenizer: Tokenizer):
    assert split_words(tokenizer, [], []) == ()
    assert split_words(tokenizer, [END_ID], [0.0]) == ()
    assert split_words(tokenizer, tokenizer.encode("  "), [0.0] * 2) == ()


def test_any_tokens_give_the_words_of_their_text(tokenizer: Tokenizer):
    chooser = random.Random(5)
    for _ in range(80):
        ids = [chooser.randrange(VOCABULARY) for _ in range(chooser.randint(0, 25))]
        words = split_words(tokenizer, ids, [-1.0] * len(ids))
        assert [word.text for word in words] == tokenizer.decode(ids).split()


def test_labels_are_latin_one_and_then_katakana():
    assert label_character(ord("e")) == "e"
    assert label_character(0xE9) == "é"
    assert label_character(256) == "ァ"
    assert label_character(347) == chr(0x30A1 + 91)


def test_the_greedy_reading_merges_repeats_and_drops_blanks():
    labels = [0, ord("t"), ord("t"), 0, ord("o"), 0, ord("o"), 0, 0]
    logits = torch.nn.functional.one_hot(torch.tensor(labels), 256).float()
    assert read_greedily(logits) == "too"
    assert read_greedily(torch.zeros(0, 256)) == ""


def test_blanks_and_spaces_are_no_speech():
    def heard(*labels: int) -> bool:
        return contains_speech(torch.nn.functional.one_hot(torch.tensor(labels), 256).float())

    assert not heard(0, 0, ord(" "), 0)
    assert heard(0, ord("a"), 0)
