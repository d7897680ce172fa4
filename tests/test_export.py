"""What the exporters write, read back with each format's own rules.

Run alone: ``python -m pytest tests/test_export.py``.
"""

import html
import json
import re
from dataclasses import FrozenInstanceError, replace

import pytest

from core.text.export import EXPORTERS, to_json, to_srt, to_tsv, to_txt, to_vtt
from core.text.transcript import DraftReport, PhaseTime, Segment, Transcript, Word

Cue = tuple[int, int, str]

EMPTY = Transcript(
    file="clip.wav",
    text="",
    segments=(),
    words=(),
    language="en",
    model="tiny",
    engine="eager",
    lora=True,
    decoding="greedy",
    token_ids=(),
    audio_s=2.0,
    phases=(),
    end_to_end_ms=100.0,
    rtf=0.05,
    time_to_first_token_ms=None,
    new_tokens=0,
    new_tokens_per_s=None,
    peak_memory_bytes=0,
    draft=None,
    warnings=(),
)


def transcript(*segments: tuple[float, float, str]) -> Transcript:
    made = tuple(Segment(start, end, text, 0.9) for start, end, text in segments)
    return replace(EMPTY, segments=made, text=" ".join(segment.text for segment in made))


def milliseconds(clock: str) -> int:
    hours, minutes, seconds, thousandths = map(int, re.split("[:,.]", clock))
    assert minutes < 60
    assert seconds < 60
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + thousandths


def read_srt(text: str) -> list[Cue]:
    cues = []
    for number, block in enumerate(filter(None, text.split("\n\n")), start=1):
        head, times, line = block.strip("\n").split("\n")
        assert int(head) == number
        start, end = re.fullmatch(
            r"(\d\d+:\d\d:\d\d,\d{3}) --> (\d\d+:\d\d:\d\d,\d{3})", times
        ).groups()
        cues.append((milliseconds(start), milliseconds(end), line))
    return cues


def read_vtt(text: str) -> list[Cue]:
    head, *blocks = text.rstrip("\n").split("\n\n")
    assert head == "WEBVTT"
    cues = []
    for block in blocks:
        times, line = block.split("\n")
        start, end = re.fullmatch(
            r"(\d\d+:\d\d:\d\d\.\d{3}) --> (\d\d+:\d\d:\d\d\.\d{3})", times
        ).groups()
        assert "-->" not in line
        assert "<" not in line
        cues.append((milliseconds(start), milliseconds(end), html.unescape(line)))
    return cues


def read_tsv(text: str) -> list[Cue]:
    head, *rows = text.rstrip("\n").split("\n")
    assert head == "start\tend\ttext"
    return [(int(start), int(end), line) for start, end, line in (row.split("\t") for row in rows)]


READERS = {"srt": (to_srt, read_srt), "vtt": (to_vtt, read_vtt), "tsv": (to_tsv, read_tsv)}

timed = pytest.mark.parametrize("format", READERS)


def round_trip(format: str, given: Transcript) -> list[Cue]:
    write, read = READERS[format]
    return read(write(given))


@timed
def test_what_is_written_reads_back(format: str):
    given = transcript((0.0, 1.5, "four one five"), (1.5, 2.25, "double seven"))
    assert round_trip(format, given) == [
        (0, 1500, "four one five"),
        (1500, 2250, "double seven"),
    ]


@timed
def test_hours_and_rounding_up_to_the_next_unit(format: str):
    given = transcript((3599.9996, 3661.0004, "a"), (360_000.0, 360_001.0, "a hundred hours"))
    assert round_trip(format, given) == [
        (3_600_000, 3_661_000, "a"),
        (360_000_000, 360_001_000, "a hundred hours"),
    ]


def test_the_clock_carries():
    assert "00:01:00,000 --> 01:00:00,000" in to_srt(transcript((59.9995, 3599.9999, "x")))
    assert "00:00:00.999 --> 00:00:01.000" in to_vtt(transcript((0.9994, 0.9995, "x")))


@timed
def test_times_are_never_negative_never_empty_and_in_order(format: str):
    given = transcript((2.0, 2.0, "third"), (-0.5, 0.1, "first"), (1.0, 0.5, "second"))
    cues = round_trip(format, given)
    assert cues == [(0, 100, "first"), (1000, 1001, "second"), (2000, 2001, "third")]


@timed
@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("one\ntwo\r\n\r\nthree", "one two three"),
        ("a\ttab", "a tab"),
        ("Tom & Jerry <b>bold</b>", "Tom & Jerry <b>bold</b>"),
        ("äöü 日本語 🎧", "äöü 日本語 🎧"),
        ("a\u2028b\x85c", "a b c"),
    ],
)
def test_odd_text_stays_in_its_cue(format: str, text: str, safe: str):
    assert round_trip(format, transcript((0.0, 1.0, text), (1.0, 2.0, "next"))) == [
        (0, 1000, safe),
        (1000, 2000, "next"),
    ]


def test_an_arrow_in_the_text_starts_no_cue():
    given = transcript((0.0, 1.0, "go --> there"))
    assert read_srt(to_srt(given)) == [(0, 1000, "go -> there")]
    assert read_vtt(to_vtt(given)) == [(0, 1000, "go --> there")]


@timed
def test_segments_without_words_are_left_out(format: str):
    given = transcript((0.0, 1.0, " \n"), (1.0, 2.0, "two"))
    assert round_trip(format, given) == [(1000, 2000, "two")]


@timed
def test_text_without_segments_is_one_cue(format: str):
    assert round_trip(format, replace(EMPTY, text="four")) == [(0, 2000, "four")]


@timed
def test_silence_is_a_valid_file_without_cues(format: str):
    assert round_trip(format, EMPTY) == []


@timed
def test_a_time_that_is_no_number_is_refused(format: str):
    with pytest.raises(ValueError, match="segment time nan; expected finite seconds"):
        round_trip(format, transcript((float("nan"), 1.0, "x")))


def test_txt_is_the_text_on_one_line():
    assert to_txt(replace(EMPTY, text=" four\none ")) == "four one\n"
    assert to_txt(EMPTY) == "\n"


KEYS = (
    "file, text, segments, words, language, model, engine, lora, decoding, token_ids, audio_s, "
    "phases, end_to_end_ms, rtf, time_to_first_token_ms, new_tokens, new_tokens_per_s, "
    "peak_memory_bytes, draft, warnings, stopped"
)


def test_json_has_the_published_keys_in_order():
    given = replace(
        transcript((0.0, 1.0, "four")),
        words=(Word("four", 0.1, 0.4, 0.98), Word("x", None, None, None)),
        token_ids=(5, 2),
        phases=(PhaseTime("encoder", 12.5),),
        draft=DraftReport(drafted=4, accepted=3, passes=2),
        warnings=("cut off?",),
    )
    found = json.loads(to_json(given))
    assert ", ".join(found) == KEYS
    assert found == given.to_dict()
    assert list(found["segments"][0]) == ["start", "end", "text", "confidence"]
    assert list(found["words"][0]) == ["start", "end", "text", "confidence"]
    assert found["words"][1]["start"] is None
    assert found["phases"] == [{"name": "encoder", "ms": 12.5}]
    assert found["draft"] == {"drafted": 4, "accepted": 3, "passes": 2}
    assert found["token_ids"] == [5, 2]


def test_json_has_no_numbers_that_json_does_not_know():
    found = json.loads(to_json(replace(EMPTY, rtf=float("inf"), end_to_end_ms=float("nan"))))
    assert found["rtf"] is None
    assert found["end_to_end_ms"] is None


def test_a_transcript_does_not_change():
    with pytest.raises(FrozenInstanceError):
        EMPTY.text = "other"


def test_every_exporter_ends_in_one_newline():
    for name, write in EXPORTERS.items():
        text = write(transcript((0.0, 1.0, "four")))
        assert text.endswith("\n"), name
        assert not text.endswith("\n\n"), name


def spoken(num_words: int, word_s: float) -> Transcript:
    """One segment of ``num_words`` words of nine letters."""
    names = [f"word{number:05}" for number in range(num_words)]
    words = [Word(n, i * word_s, (i + 0.9) * word_s, 0.9) for i, n in enumerate(names)]
    whole = transcript((0.0, num_words * word_s, " ".join(names)))
    return replace(whole, words=tuple(words))


@pytest.mark.parametrize(("num_words", "word_s"), [(40, 0.2), (40, 1.0), (9, 3.0), (200, 0.05)])
def test_a_long_cue_is_cut_between_words_at_their_times(num_words: int, word_s: float):
    whole = spoken(num_words, word_s)
    blocks = [block.split("\n") for block in to_srt(whole).strip().split("\n\n")]
    times = [[seconds(one) for one in block[1].split(" --> ")] for block in blocks]
    assert len(blocks) > 1
    assert " ".join(block[2] for block in blocks) == whole.segments[0].text
    assert all(len(block[2]) <= 84 for block in blocks)
    assert all(end - start <= 7.0 for start, end in times)
    at = 0
    for (start, end), block in zip(times, blocks, strict=True):
        own = whole.words[at : at + len(block[2].split())]
        assert (start, end) == pytest.approx((own[0].start, own[-1].end), abs=0.001)
        at += len(own)
    assert to_vtt(whole).count(" --> ") == len(blocks)
    assert to_tsv(whole).count("\n") == 2


def test_a_cue_whose_words_have_no_times_or_are_others_stays_whole():
    whole = spoken(40, 1.0)
    timeless = replace(whole, words=tuple(replace(w, start=None, end=None) for w in whole.words))
    assert to_srt(timeless).count(" --> ") == 1
    assert to_srt(replace(whole, words=whole.words[1:])).count(" --> ") == 1


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)
