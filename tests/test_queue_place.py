"""Those who wait are told how many come first, what runs, and how long that still takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

from app.service.quiet_time import QuietTime
from app.service.transcription_jobs import TranscriptionJob
from app.service.updates import CancelledBeforeStart, QueuePlace, TranscriptionProgress, Update
from app.service.worker import MEASUREMENT, TRANSCRIPTION, CancelToken, Worker
from app.wording.progress import ProgressLine, waiting_html
from core.transcription.options import PartialText

PATIENT_S = 20


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def occupy(worker: Worker, kind: str, left_s: float | None) -> Event:
    """Keep the thread busy until the event is set."""
    release, runs = Event(), Event()

    def hold() -> None:
        worker.expect(left_s)
        runs.set()
        release.wait(PATIENT_S)

    worker.submit(hold, kind)
    assert runs.wait(PATIENT_S)
    return release


def test_a_transcription_that_waits_says_how_many_come_first_and_what_runs(
    worker: Worker,
) -> None:
    release = occupy(worker, MEASUREMENT, 40.0)
    worker.submit(lambda: None)
    job = TranscriptionJob(CancelToken())
    turn = worker.submit(
        lambda: job.fill(lambda: iter([PartialText(0, "hello", 1)])), TRANSCRIPTION
    )
    job.place = lambda: worker.place(turn)
    updates = job.watch()
    place = next(updates)
    assert isinstance(place, QueuePlace)
    assert (place.ahead, place.running) == (2, MEASUREMENT)
    assert place.left_s is not None
    assert 10 < place.left_s <= 40
    release.set()
    later = [update for update in updates if not isinstance(update, QueuePlace)]
    assert [type(update) for update in later] == [PartialText, CancelledBeforeStart]
    assert worker.place(turn) is None


def test_a_measurement_that_waits_is_told_its_place_and_then_reports(worker: Worker) -> None:
    release = occupy(worker, TRANSCRIPTION, None)

    def work(report: Callable[[str], None]) -> None:
        report("measured")

    seen = worker.stream_reports(CancelToken(), work, str)
    first = next(seen)
    assert "ahead=1" in first
    assert "left_s=None" in first
    release.set()
    assert [value for value in seen if "ahead" not in value] == ["measured"]


def test_work_that_fails_leaves_the_line(worker: Worker) -> None:
    def fail() -> Iterator[Update]:
        raise OSError("gone")
        yield

    with pytest.raises(OSError, match="gone"):
        list(worker.stream(CancelToken(), fail))
    release = occupy(worker, TRANSCRIPTION, None)
    turn = worker.submit(lambda: None)
    found = worker.place(turn)
    assert found is not None
    assert found.ahead == 1
    release.set()


def test_transcriptions_that_are_ready_go_first_where_a_measurement_gives_way(
    worker: Worker,
) -> None:
    ran: list[str] = []
    waits, runs, over = Event(), Event(), Event()

    def measure() -> None:
        worker.expect(60.0, gives_way=True, pause_s=2.0)
        runs.set()
        waits.wait(PATIENT_S)
        ran.append("block")
        gaps = [worker.give_way(), worker.give_way()]
        ran.append(f"block {gaps}")

    worker.submit(measure, MEASUREMENT)
    assert runs.wait(PATIENT_S)
    worker.submit(lambda: ran.append("second measurement"), MEASUREMENT)
    one = worker.submit(lambda: ran.append("one"), TRANSCRIPTION)
    other = worker.submit(lambda: ran.append("another model"), TRANSCRIPTION, lambda: False)
    two = worker.submit(lambda: ran.append("two"), TRANSCRIPTION)
    worker.submit(over.set)
    places = [worker.place(turn) for turn in (one, other, two)]
    assert all(place is not None and place.running == MEASUREMENT for place in places)
    said = [(place.ahead, place.between, (place.left_s or 0) <= 2) for place in places if place]
    assert said == [(1, True, True), (3, False, False), (3, True, True)]
    assert places[0] is not None
    assert "goes between two of its blocks" in waiting_html(places[0])
    waits.set()
    assert over.wait(PATIENT_S)
    last = ["block [True, False]", "second measurement", "another model"]
    assert ran == ["block", "one", "two", *last]


def test_a_measurement_that_gave_way_is_told_so_and_an_error_there_is_not_its_own(
    worker: Worker,
) -> None:
    begun, waits, release = Event(), Event(), Event()

    def work(report: Callable[[str], None]) -> None:
        begun.set()
        waits.wait(PATIENT_S)
        worker.give_way()
        report("measured")

    def transcribe() -> None:
        release.wait(PATIENT_S)
        raise OSError("gone")

    seen: list[str] = []
    reader = Thread(
        target=lambda: seen.extend(worker.stream_reports(CancelToken(), work, lambda p: p.running))
    )
    reader.start()
    assert begun.wait(PATIENT_S)
    worker.submit(transcribe, TRANSCRIPTION)
    waits.set()
    while TRANSCRIPTION not in seen and reader.is_alive():
        reader.join(0.05)
    release.set()
    reader.join(PATIENT_S)
    assert set(seen) == {TRANSCRIPTION, "measured"}


def test_what_is_timed_waits_for_no_trace_and_traces_wait_for_it_and_for_each_other() -> None:
    quiet, done, readers = QuietTime(), list[str](), []
    with quiet.reading(), quiet.timed(), quiet.timed():  # begins at once, however long it is read
        assert quiet.is_timed

    def read(name: str) -> None:
        with quiet.reading():
            assert not quiet.is_timed
            done.append(name)

    with quiet.timed():
        for name in ("one", "two"):
            readers.append(Thread(target=read, args=(name,)))
            readers[-1].start()
        readers[0].join(0.05)
        assert done == []
    for reader in readers:
        reader.join(PATIENT_S)
    assert sorted(done) == ["one", "two"]


def test_the_line_of_the_page_names_place_work_and_time() -> None:
    place = QueuePlace(1, MEASUREMENT, 21.0)
    said = waiting_html(place)
    assert "1 request before this one" in said
    assert "A measurement runs" in said
    assert "about 20 seconds left" in said
    line = ProgressLine("eager")
    assert line.html(place) == said
    assert line.html(TranscriptionProgress(1.0, 10.0, 9.0)) is not None


def test_a_page_that_waits_ends_its_wait_when_it_is_stopped(worker: Worker) -> None:
    release = occupy(worker, TRANSCRIPTION, None)
    job = TranscriptionJob(CancelToken())
    turn = worker.submit(lambda: job.fill(lambda: iter(())), TRANSCRIPTION)
    job.place = lambda: worker.place(turn)
    seen: list[Update] = []
    watcher = Thread(target=lambda: seen.extend(job.watch()))
    watcher.start()
    job.token.cancel()
    release.set()
    watcher.join(PATIENT_S)
    assert not watcher.is_alive()
    assert isinstance(seen[-1], CancelledBeforeStart)


def test_the_updates_of_a_job_carry_no_place_once_it_runs(worker: Worker) -> None:
    job = TranscriptionJob(CancelToken())
    turn = worker.submit(lambda: job.fill(lambda: iter([PartialText(0, "a", 1)])), TRANSCRIPTION)
    job.place = lambda: worker.place(turn)
    assert not any(isinstance(update, QueuePlace) and update.ahead == 0 for update in job.watch())
