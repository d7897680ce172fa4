"""How long things take, learnt from what has run, and the one line that says so.

Run alone: ``python -m pytest tests/test_progress.py``. Needs no model.
"""

from __future__ import annotations

import re

import pytest

from app.service.pace import MeasurementEstimate, PaceBook, kind_of, left_s
from app.service.settings import Settings
from app.service.updates import CancelledBeforeStart, TranscriptionProgress
from app.wording.progress import ProgressLine, progress_html, time_left
from core.transcription.options import PartialText, PhaseStarted


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "almost done"),
        (6.4, "about 6 seconds left"),
        (21.8, "about 20 seconds left"),
        (58.0, "about 1 minute left"),
        (2003.0, "about 33 minutes left"),
        (4200.0, "about 1 h 10 min left"),
    ],
)
def test_time_is_told_no_finer_than_an_estimate_is(seconds: float, said: str) -> None:
    assert time_left(seconds) == said


def test_a_bar_has_a_value_only_where_the_share_is_known_and_words_are_escaped() -> None:
    assert "value='25'" in progress_html("<x>", 0.25, 60.0)
    assert "<x>" not in progress_html("<x>", 0.25)
    assert "value" not in progress_html("so far")


def test_a_long_recording_keeps_to_one_line_and_counts_never_begin_anew() -> None:
    line = ProgressLine("eager")
    assert "Listening" in str(line.html(PhaseStarted(0, "encoder")))
    assert "3 tokens so far" in str(line.html(PartialText(0, "a b c", 3)))
    html = str(line.html(TranscriptionProgress(30.0, 120.0, 90.0)))
    assert "0:30 of 2:00 transcribed, about 2 minutes left" in html
    assert "value='25'" in html
    assert line.html(PhaseStarted(0, "encoder")) is None
    assert line.html(PartialText(0, "d", 1)) is None
    assert "1:01:40 transcribed so far" in str(line.html(TranscriptionProgress(3700.0, None, None)))
    assert "Stopped" in str(line.html(CancelledBeforeStart()))


def test_a_compiled_run_says_that_it_may_take_long() -> None:
    started = PhaseStarted(0, "encoder")
    assert "minute" in str(ProgressLine("compile").html(started))
    assert "minute" not in str(ProgressLine("eager").html(started))


def test_nothing_is_foretold_before_anything_has_run() -> None:
    assert left_s(0.0, 600.0, 0.0, None) is None
    assert left_s(30.0, None, 5.0, 0.2) is None


def test_what_has_run_is_the_estimate_at_first_and_the_recording_itself_soon_after() -> None:
    assert left_s(0.0, 600.0, 0.0, 0.5) == pytest.approx(300.0)
    assert left_s(300.0, 600.0, 30.0, 0.5) == pytest.approx(300 * 40 / 320)
    assert left_s(300.0, 600.0, 30.0, None) == pytest.approx(30.0)


def test_a_pace_belongs_to_its_settings() -> None:
    book, eager = PaceBook(), Settings(model="tiny")
    book.learn(kind_of(eager), 0.2)
    book.learn(kind_of(eager), 0.4)
    assert book.of(kind_of(eager)) == pytest.approx(0.3)
    assert book.of(kind_of(Settings(model="tiny", engine="compile"))) is None
    assert book.of(kind_of(Settings(model="tiny", num_beams=2))) is not None  # greedy has no beams


def measured(book: PaceBook, warm_s: float, built_s: float = 0.0) -> list[float | None]:
    """What is foretold during 10 blocks of a second each and 5 s of tracing."""
    estimate = MeasurementEstimate(book, "work", 10, 0.0)
    moments = [(0.0, 0.0), (0.2, warm_s), (0.5, warm_s + 5), (0.8, warm_s + 10), (1.0, warm_s + 15)]
    return [estimate.left_s(share, at, built_s) for share, at in moments]


def test_a_measurement_is_foretold_from_the_one_before() -> None:
    book = PaceBook()
    first = measured(book, 60.0, built_s=58.0)
    assert first[:2] == [None, None]
    assert first[2] == pytest.approx(5 + 2.5)
    assert measured(book, 2.0) == pytest.approx([17.0, 15.0, 10.0, 5.0, 0.0])


def test_a_measurement_that_was_stopped_teaches_nothing() -> None:
    book = PaceBook()
    estimate = MeasurementEstimate(book, "work", 10, 0.0)
    for share, at in ((0.0, 0.0), (0.3, 1.0), (1.0, 2.0)):
        estimate.left_s(share, at, 0.0)
    assert measured(book, 2.0)[0] is None


def test_no_estimate_shows_milliseconds_or_fractions() -> None:
    said = " ".join(time_left(seconds / 7) for seconds in range(0, 70_000, 13))
    assert not re.search(r"\d\.\d|ms|\b0 ", said)
