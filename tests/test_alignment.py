"""Word times from the CTC head: hand-made posteriors whose best path is plain to see."""

import pytest
import torch
from torch import Tensor

from core.model.ctc import label_character, label_of, read_greedily
from core.text.alignment import align_words, best_frames, spell
from core.text.transcript import Word

STEP_S = 0.02
LABELS = 128


def word(text: str) -> Word:
    return Word(text=text, start=None, end=None, confidence=0.5)


def spoken(reading: str) -> Tensor:
    """Logits [T, 128] of one frame per character of ``reading``; '_' is blank."""
    logits = torch.zeros(len(reading), LABELS)
    for frame, character in enumerate(reading):
        logits[frame, 0 if character == "_" else ord(character)] = 20.0
    return logits


def test_words_get_the_frames_in_which_their_letters_were_heard() -> None:
    words = align_words([word("one"), word("two")], spoken("__o_ne__ _two__"), STEP_S)
    assert [(w.start, w.end) for w in words] == [
        (pytest.approx(2 * STEP_S), pytest.approx(6 * STEP_S)),
        (pytest.approx(10 * STEP_S), pytest.approx(13 * STEP_S)),
    ]
    assert [w.confidence for w in words] == [0.5, 0.5]


def test_double_letters_need_the_blank_between_them() -> None:
    assert best_frames(spoken("to_o").log_softmax(-1), [ord(c) for c in "too"]) == [
        (0, 1),
        (1, 2),
        (3, 4),
    ]
    assert best_frames(spoken("too").log_softmax(-1), [ord(c) for c in "too"]) is None


def test_case_and_punctuation_do_not_matter() -> None:
    words = align_words([word("One,")], spoken("_one_"), STEP_S)
    assert words[0].text == "One,"
    assert words[0].start == pytest.approx(STEP_S)


def test_words_without_letters_keep_no_time() -> None:
    words = align_words([word("one"), word("?!")], spoken("_one_"), STEP_S)
    assert words[1].start is None


def test_more_letters_than_frames_leave_words_untimed() -> None:
    assert align_words([word("abcdefgh")], spoken("abc"), STEP_S) == [word("abcdefgh")]


def test_no_words_need_no_alignment() -> None:
    assert align_words([], spoken("___"), STEP_S) == []


def test_spelling_names_the_word_of_each_letter() -> None:
    labels, owners = spell([word("a b"), word("c")], LABELS)
    assert "".join(map(chr, labels)) == "ab c"
    assert owners == [0, 0, None, 1]


def test_times_are_in_order_and_inside_the_recording() -> None:
    logits = torch.randn(200, LABELS)
    words = align_words([word(t) for t in "seven oh nine nine two".split()], logits, STEP_S)
    times = [t for w in words for t in (w.start, w.end) if t is not None]
    assert times == sorted(times)
    assert len(times) == 10
    assert times[0] >= 0
    assert times[-1] <= 200 * STEP_S


def test_no_word_ends_after_its_clip() -> None:
    (found,) = align_words([word("one")], spoken("_one"), STEP_S, audio_s=3.5 * STEP_S)
    assert found.end == 3.5 * STEP_S


@pytest.mark.parametrize("character", ["a", "'", "é", "ア", "ン"])
def test_labels_and_characters_are_inverse(character: str) -> None:
    label = label_of(character)
    assert label is not None
    assert label_character(label) == character


def test_characters_beyond_the_heads_have_no_label() -> None:
    assert label_of("€") is None
    assert label_of("中") is None


def test_a_greedy_reading_merges_repeats_and_drops_blanks() -> None:
    assert read_greedily(spoken("__ff_oo_o_r__")) == "foor"
