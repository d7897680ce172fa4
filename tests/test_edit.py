"""A corrected text keeps the times of what stayed."""

from dataclasses import replace

from core.text.edit import BY_HAND, apply_edit
from core.text.export import to_srt
from core.text.transcript import Segment, Word
from test_export import EMPTY

HEARD = replace(
    EMPTY,
    text="three won ate five",
    words=(
        Word("three", 0.0, 0.4, 0.9),
        Word("won", 0.5, 0.9, 0.4),
        Word("ate", 1.0, 1.4, 0.3),
        Word("five", 3.0, 3.4, 0.9),
    ),
    segments=(Segment(0.0, 1.5, "three won ate", 0.5), Segment(3.0, 3.5, "five", 0.9)),
    audio_s=4.0,
)


def test_words_that_stay_keep_time_and_confidence_and_new_ones_take_the_place_of_the_old():
    fixed = apply_edit(HEARD, "three one eight five")
    assert fixed.text == "three one eight five"
    assert fixed.words[0] == HEARD.words[0]
    assert fixed.words[3] == HEARD.words[3]
    assert (fixed.words[1].start, fixed.words[2].end) == (0.5, 1.4)
    assert fixed.words[1].confidence is None


def test_segments_keep_their_times_and_get_the_new_words():
    fixed = apply_edit(HEARD, "three one eight five")
    assert [s.text for s in fixed.segments] == ["three one eight", "five"]
    assert fixed.segments[1] == HEARD.segments[1]
    assert "00:00:00,000 --> 00:00:01,500\nthree one eight" in to_srt(fixed)


def test_a_segment_whose_words_are_all_taken_out_is_gone():
    fixed = apply_edit(HEARD, "five")
    assert fixed.segments == (HEARD.segments[1],)


def test_words_put_in_stand_between_their_neighbours():
    fixed = apply_edit(HEARD, "three won ate twenty five")
    twenty = fixed.words[3]
    assert (twenty.text, twenty.start, twenty.end) == ("twenty", 1.4, 3.0)
    assert apply_edit(HEARD, "oh three won ate five").words[0].end == 0.0


def test_a_corrected_word_keeps_its_speaker():
    first, *rest = HEARD.segments
    words = [replace(w, speaker=1 + (w.text == "five")) for w in HEARD.words]
    spoken = replace(
        HEARD,
        words=tuple(words),
        segments=(replace(first, speaker=1), *(replace(s, speaker=2) for s in rest)),
    )
    fixed = apply_edit(spoken, "three one twenty five")
    assert [word.speaker for word in fixed.words] == [1, 1, 1, 2]
    assert [segment.speaker for segment in fixed.segments] == [1, 2]


def test_white_space_is_no_edit_and_an_edit_is_told():
    assert apply_edit(HEARD, " three won\nate five ") is HEARD
    assert apply_edit(HEARD, "three").warnings == (BY_HAND,)


def test_a_text_without_words_or_segments_can_be_edited():
    bare = replace(EMPTY, text="bonjour")
    assert apply_edit(bare, "bonsoir").segments == (Segment(0.0, 2.0, "bonsoir", None),)
    assert apply_edit(EMPTY, "typed by hand").words[2].text == "hand"
    assert apply_edit(HEARD, "").segments == ()
