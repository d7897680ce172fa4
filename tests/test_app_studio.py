"""The owner of models and jobs, with a stand-in for the model."""

from __future__ import annotations

from dataclasses import replace
from threading import Event, Thread
from typing import Any

import pytest

from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.updates import CancelledBeforeStart, RequestResult
from app.service.worker import CancelToken, Worker
from app_stubs import SETTINGS, StubLab, last, service_of
from core.checkpoint.catalog import CATALOG
from core.transcription.options import PartialText, PhaseStarted


class TestTranscriptionService:
    def test_a_model_is_loaded_once(self) -> None:
        loaded: list[str] = []
        service = service_of(loaded)
        for name in ("tiny", CATALOG["tiny"].source, " tiny "):
            last(service.stream("a", "x.wav", Settings(model=name)))
        assert loaded == ["tiny"]

    def test_the_first_update_says_that_the_model_is_loading(self) -> None:
        service = service_of([])
        assert next(service.stream("a", "x.wav", SETTINGS)) == PhaseStarted(0, "load")

    def test_the_start_model_stays_and_one_more(self) -> None:
        loaded: list[str] = []
        service = service_of(loaded)
        for name in ("tiny", "a/b", "c/d", "tiny", "a/b"):
            last(service.stream("a", "x.wav", Settings(model=name)))
        assert loaded == ["tiny", "a/b", "c/d", "a/b"]
        assert [summary.name for summary in service.summaries() if summary.loaded] == [
            "tiny",
            "a/b",
        ]

    def test_where_an_upload_lies_is_not_told(self) -> None:
        outcome = last(service_of([]).stream("a", "upload/x.wav", SETTINGS))
        assert outcome.transcript.file == "x.wav"

    def test_two_callers_do_not_mix(self) -> None:
        service, texts = service_of([]), {}

        def call(name: str) -> None:
            updates = list(service.stream(name, f"upload/{name}.wav", SETTINGS))
            partial = [u.text for u in updates if isinstance(u, PartialText)]
            assert all(f"{name}.wav".startswith(text) for text in partial)
            texts[name] = last(iter(updates)).transcript.text

        names = [f"caller-{number}" for number in range(8)]
        threads = [Thread(target=call, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert texts == {name: f"{name}.wav" for name in names}

    def test_stop_keeps_what_came_and_frees_the_model(self) -> None:
        gate = Event()
        service = service_of([], gate)
        service.begin("a")
        updates = service.stream("a", "long.wav", SETTINGS)
        while not isinstance(next(updates), PartialText):
            pass
        assert service.stop("a")
        outcome = last(updates)
        assert outcome.transcript.text == "l"
        assert outcome.transcript.stopped
        assert not service.stop("a")
        gate.set()
        assert last(service.stream("b", "next.wav", SETTINGS)).transcript.text == "next.wav"

    def test_stop_reaches_a_request_that_waits(self) -> None:
        service = service_of([])
        service.begin("a")
        service.stop("a")
        assert list(service.stream("a", "x.wav", SETTINGS)) == [CancelledBeforeStart()]
        assert last(service.stream("a", "x.wav", SETTINGS)).transcript.text == "x.wav"

    def test_what_a_newer_request_replaced_says_nothing_more(self) -> None:
        gate = Event()
        service = service_of([], gate)
        service.begin("a")
        older = service.stream("a", "older.wav", SETTINGS)
        assert any(isinstance(update, PartialText) for update in older)  # the first is enough
        service.begin("a")  # an example was clicked, and then Transcribe
        newer = service.stream("a", "newer.wav", SETTINGS)
        gate.set()
        assert last(newer).transcript.text == "newer.wav"
        assert list(older) == []  # no "stopped" over the newer text
        assert service._tokens == {}

    def test_who_leaves_is_forgotten(self) -> None:
        service = service_of([])
        service.begin("a")
        service.leave("a")
        assert not service.stop("a")
        assert service._tokens == {}

    def test_warming_loads_the_start_model_once_and_survives_its_absence(self) -> None:
        loaded: list[str] = []
        service = service_of(loaded)
        service.warm()
        last(service.stream("a", "x.wav", SETTINGS))
        assert loaded == ["tiny"]

        def fail(name: str, **_: Any) -> StubLab:
            raise ValueError("not there")

        absent = TranscriptionService(loader=fail)
        absent.warm()
        with pytest.raises(ValueError, match="not there"):
            list(absent.stream("a", "x.wav", SETTINGS))

    def test_stop_leaves_others_alone(self) -> None:
        service = service_of([])
        service.begin("a")
        service.begin("b")
        service.stop("b")
        assert last(service.stream("a", "x.wav", SETTINGS)).transcript.text == "x.wav"

    def test_work_whose_page_is_gone_for_long_ends(self) -> None:
        service = service_of([], gate=Event(), grace_s=0.05)  # its gate never opens
        run = service.start("a", "x.wav", SETTINGS)
        service.leave("a")
        *_, outcome = run.watch()
        assert isinstance(outcome, RequestResult)
        assert outcome.transcript.stopped

    def test_a_page_that_is_loaded_again_finds_its_run(self) -> None:
        gate = Event()
        service = service_of([], gate)
        run = service.start("before", "x.wav", SETTINGS)
        updates = service.watch("before", run)
        while not isinstance(next(updates), PartialText):
            pass
        service.leave("before")
        again = service.resume("after", run.id)
        assert again is run
        gate.set()
        assert last(service.watch("after", again)).transcript.text == "x.wav"
        assert last(service.watch("later", again)).transcript.text == "x.wav"

    def test_stop_reaches_a_run_from_the_page_that_found_it_again(self) -> None:
        service = service_of([], gate=Event())
        run = service.start("before", "long.wav", SETTINGS)
        service.leave("before")
        assert service.resume("after", run.id) is run
        assert service.stop("after")
        assert last(service.watch("after", run)).transcript.stopped

    def test_nobody_finds_a_run_by_guessing(self) -> None:
        service = service_of([])
        run = service.start("a", "x.wav", SETTINGS)
        assert len(run.id) >= 32
        assert service.resume("b", run.id[:-1]) is None

    def test_the_same_model_in_another_number_format_is_loaded_anew(self) -> None:
        asked: list[dict[str, Any]] = []

        def load(name: str, **how: Any) -> StubLab:
            asked.append(how)
            return StubLab(name)

        service = TranscriptionService(loader=load, device="cpu")
        for settings in (SETTINGS, replace(SETTINGS, dtype="bfloat16", quantize="int8"), SETTINGS):
            last(service.stream("a", "x.wav", settings))
        assert asked == [
            {"device": "cpu", "dtype": None},
            {"device": "cpu", "dtype": "bfloat16", "quantize": "int8"},
        ]

    def test_an_error_reaches_its_caller_and_nobody_else(self) -> None:
        def load(name: str, **_: Any) -> StubLab:
            if name == "bad/one":
                raise ValueError("no such model")
            return StubLab(name)

        service = TranscriptionService(loader=load)
        with pytest.raises(ValueError, match="no such model"):
            list(service.stream("a", "x.wav", Settings(model="bad/one")))
        assert last(service.stream("a", "x.wav", SETTINGS)).transcript.text == "x.wav"

    @pytest.mark.parametrize(
        ("recording", "settings", "message"),
        [
            (None, SETTINGS, "no recording yet"),
            ("x.wav", Settings(model=" "), "no model was chosen"),
            ("x.wav", Settings(model="tiny", engine="fast"), "expected one of eager, compile"),
            ("x.wav", Settings(model="tiny", max_new_tokens=0), "at least 1"),
        ],
    )
    def test_what_cannot_work_is_refused_before_loading(
        self, recording: str | None, settings: Settings, message: str
    ) -> None:
        loaded: list[str] = []
        with pytest.raises(ValueError, match=message):
            list(service_of(loaded).stream("a", recording, settings))
        assert loaded == []

    def test_asking_does_not_disturb_transcribing(self) -> None:
        service = service_of([])
        service.begin("a")
        assert list(service.ask("a", "tiny", "one two")) == ["one", "onetwo"]
        assert last(service.stream("a", "x.wav", SETTINGS)).transcript.text == "x.wav"


class TestWorker:
    def test_values_come_in_order_from_another_thread(self) -> None:
        assert list(Worker().stream(CancelToken(), lambda: iter(range(5)))) == list(range(5))

    def test_cancelled_work_never_begins(self) -> None:
        job, began = CancelToken(), []
        job.cancel()
        assert list(Worker().stream(job, lambda: iter([began.append(1)]))) == []
        assert began == []
