"""Tagged text becomes words with times; tags begin again every ten seconds.

Run alone: ``python -m pytest tests/test_word_tags.py``.
"""

import pytest

from core.text.transcript import Word
from core.text.word_tags import read_word_tags, time_words, unwrap


@pytest.mark.parametrize(
    ("tags", "audio_s", "ends"),
    [
        ([45, 82], 2.0, [0.45, 0.82]),
        ([990, 5, 40], 12.0, [9.90, 10.05, 10.40]),
        ([512, 508, 530], 8.0, [5.12, 5.12, 5.30]),
        ([900, 100, 900, 100], 25.0, [9.0, 11.0, 19.0, 21.0]),
        ([995, 5, 998, 20], 12.0, [9.95, 10.05, 10.05, 10.20]),  # it trembles over the end
        ([900, 1100, 1150], 25.0, [9.0, 11.0, 11.5]),  # absolute, as it fits
        ([500, 1600], 8.0, [5.0, 6.0]),  # past the recording: modulo
        ([900, 400], 12.0, [9.0, 9.0]),  # the recording is the bound
    ],
)
def test_ends_are_unwrapped(tags: list[int], audio_s: float, ends: list[float]) -> None:
    text = " ".join(f"w{number} [T:{tag}]" for number, tag in enumerate(tags))
    found = list(read_word_tags(text, audio_s))
    assert [word.end_s for word in found] == pytest.approx(ends)
    assert [word.start_s for word in found] == pytest.approx([0.0, *ends[:-1]])


Timed = list[tuple[str, float, float]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("_[T:30] and [T:57] so [T:95]", [("and", 0.30, 0.57), ("so", 0.57, 0.95)]),
        ("_ [T:30] and", [("and", 0.30, 3.0)]),
        ("if[T:12]you[T:20]", [("if", 0.0, 0.12), ("you", 0.12, 0.20)]),
        ("a [ T : 9 ] b [T:15]", [("a", 0.0, 0.09), ("b", 0.09, 0.15)]),
        ("a b [T:40]", [("a", 0.0, 0.2), ("b", 0.2, 0.4)]),
        ("a [T:40] [T:50] b [T:60]", [("a", 0.0, 0.4), ("b", 0.5, 0.6)]),
        ("a [T:40] b [T:4", [("a", 0.0, 0.4), ("b", 0.4, 3.0)]),
        ("[laughs] [T:40]", [("[laughs]", 0.0, 0.4)]),
        ("_ [T:30]", []),
        ("", []),
    ],
)
def test_words_last_from_the_tag_before_to_their_own(text: str, expected: Timed) -> None:
    found = list(read_word_tags(text, 3.0))
    assert [word.text for word in found] == [text for text, _, _ in expected]
    times = [time for _, start, end in expected for time in (start, end)]
    assert [t for word in found for t in (word.start_s, word.end_s)] == pytest.approx(times)


def test_a_time_never_goes_back_and_never_leaves_the_recording() -> None:
    for last in range(0, 2500, 100):
        for tag in range(0, 3000, 7):
            assert last <= unwrap(tag, last, 2500) <= 2500


def test_words_keep_their_confidence() -> None:
    words = [Word("if[T:12]you[T:20]", None, None, 0.5), Word("can", None, None, 0.25)]
    found = time_words([*words, Word("[T:40]", None, None, 1.0)], 1.0)
    assert [(w.text, w.start, w.end, w.confidence) for w in found] == [
        ("if", 0.0, 0.12, 0.5),
        ("you", 0.12, 0.2, 0.5),
        ("can", 0.2, 0.4, 0.25),
    ]
