"""Marked text becomes turns, words with speakers, segments.

Run alone: ``python -m pytest tests/test_speaker_turns.py``.
"""

import pytest

from core.text.speaker_turns import assign_speakers, split_turns, turn_segments
from core.text.transcript import Segment, Word

Turns = list[tuple[int | None, str]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[Speaker 1]: Hello [Speaker 2]: fine [Speaker 1]: good",
            [(1, "Hello"), (2, "fine"), (1, "good")],
        ),
        ("uh huh [Speaker 1]: right", [(None, "uh huh"), (1, "right")]),
        ("[Speaker 1] hello [Speaker 2]hi", [(1, "hello"), (2, "hi")]),
        ("[Speaker 1]: a [Speaker 0]: b", [(1, "a [Speaker 0]: b")]),
        ("[Speaker 12]: many", [(12, "many")]),
        ("[Speaker 1]: a [Speaker x] b [Speaker] c", [(1, "a [Speaker x] b [Speaker] c")]),
        ("nobody is named", [(1, "nobody is named")]),
        ("[Speaker 1]:  [Speaker 2]: b", [(2, "b")]),
        ("", []),
    ],
)
def test_markers_divide_a_text(text: str, expected: Turns) -> None:
    found = split_turns(text)
    assert [(turn.speaker, turn.text) for turn in found] == expected
    assert all(text[turn.start :].startswith(turn.text) for turn in found)


def test_words_lose_their_markers_and_keep_what_is_known_of_them() -> None:
    texts = ["well[Speaker", "1]:", "good", "day", "[Speaker", "2]hi"]
    words = [Word(text, None, None, number / 10) for number, text in enumerate(texts)]
    assert assign_speakers(words) == [
        Word("well", None, None, 0.0, None),
        Word("good", None, None, 0.2, 1),
        Word("day", None, None, 0.3, 1),
        Word("hi", None, None, 0.5, 2),
    ]
    assert assign_speakers([]) == []


def test_a_turn_lasts_from_its_first_known_time_to_its_last() -> None:
    words = [
        Word("a", 0.5, 0.7, 0.25, 1),
        Word("b", None, None, 1.0, 1),
        Word("c", None, None, None, 2),
    ]
    assert list(turn_segments(words, 3.0)) == [
        Segment(0.5, 0.7, "a b", 0.5, 1),
        Segment(0.7, 3.0, "c", None, 2),
    ]
