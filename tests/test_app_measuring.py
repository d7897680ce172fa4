"""Measurements through the app, without a browser: a random checkpoint, a stub of the ceilings.

Run alone: ``python -m pytest tests/test_app_measuring.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.service import measurement_job as module
from app.service.measurement import SAME, MeasurementService
from app.service.measurement_job import (
    SAME_HERE,
    MeasurementOptions,
    MeasurementProgress,
    MeasurementResult,
)
from app.service.profiles.library import ProfileLibrary
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.transcription_jobs import TranscriptionJob
from app.service.updates import CancelledBeforeStart, RequestResult
from app.service.worker import CancelToken
from core.lab import Lab
from measuring import RECORDING
from profiling.measure import timed_pass
from profiling.measure.capture import TraceLimits
from profiling.roofline.machine_peaks import GPUS
from profiling.runs import session
from profiling.runs.run_file import RunError

ONE_STEP = TraceLimits(num_steps=1, tax_blocks=1)
GREEDY = Settings(model="random", max_new_tokens=4)
DRAFTS = Settings(model="random", max_new_tokens=4, decoding="speculative")
PLAIN = Settings(model="random", max_new_tokens=4, lora=False)
QUICK = MeasurementOptions(blocks=1, fixed_length=True)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    file = tmp_path / "noise.wav"
    file.write_bytes(RECORDING)
    return str(file)


@pytest.fixture
def measuring(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MeasurementService:
    monkeypatch.setattr(module, "measure_ceilings", lambda *_: GPUS["H200"])
    monkeypatch.setattr(session, "capture", partial(session.capture, limits=ONE_STEP))
    service = TranscriptionService(model="random", loader=lambda *_, **__: lab)
    return MeasurementService(service, ProfileLibrary(None, shipped=tmp_path / "none"))


class TestMeasuring:
    def test_two_settings_become_two_runs_that_only_their_owner_sees(
        self, measuring: MeasurementService, clip: str
    ) -> None:
        known = replace(QUICK, reference="three six")
        *progress, end = measuring.compare("me", clip, GREEDY, DRAFTS, known)
        assert isinstance(end, MeasurementResult)
        assert [run["reference_text"] for run in end.runs] == ["three six"] * 2
        shares = [report.share for report in progress if isinstance(report, MeasurementProgress)]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        assert [run["workload"]["decoding"] for run in end.runs] == ["greedy", "speculative"]
        assert end.comparison is not None
        assert end.comparison["end_to_end"]["a_ms"] > 0
        assert "too few" in end.comparison["end_to_end"]["verdict"]
        assert {choice.key for choice in measuring.library.choices("me")} == set(end.keys)
        assert measuring.library.choices("somebody else") == []
        with pytest.raises(RunError):
            measuring.library.chosen("somebody else", end.keys[0])
        measuring.leave("me")
        assert measuring.library.choices("me") == []

    def test_stopping_keeps_the_blocks_that_are_done(
        self, measuring: MeasurementService, clip: str
    ) -> None:
        measuring.begin("me")
        last: Any = None
        for last in measuring.compare("me", clip, GREEDY, PLAIN, MeasurementOptions(blocks=40)):
            if isinstance(last, MeasurementProgress) and "run 8 of" in last.text:
                assert measuring.stop("me")
        assert isinstance(last, MeasurementResult)
        assert last.stopped
        assert 1 <= last.comparison["num_blocks"] < 40
        assert "nothing was traced" in last.runs[0]["warnings"][0]

    def test_stopping_before_a_block_is_done_says_so(
        self, measuring: MeasurementService, clip: str
    ) -> None:
        measuring.begin("me")

        def stop_while_warming_up() -> None:
            for report in measuring.compare("me", clip, GREEDY, PLAIN, QUICK):
                if isinstance(report, MeasurementProgress) and "warming up" in report.text:
                    measuring.stop("me")

        with pytest.raises(ValueError, match="before one block"):
            stop_while_warming_up()

    def test_stopping_reaches_what_waits(self, measuring: MeasurementService, clip: str) -> None:
        measuring.begin("me")
        measuring.stop("me")
        assert list(measuring.compare("me", clip, GREEDY, PLAIN, QUICK)) == [CancelledBeforeStart()]

    def test_a_program_gets_everything_and_nothing_is_kept(
        self, measuring: MeasurementService, clip: str, tmp_path: Path
    ) -> None:
        end = measuring.once(clip, (GREEDY,), QUICK, tmp_path / "runs", CancelToken())
        assert end.comparison is None
        assert end.keys == ()
        assert end.runs[0]["workload"]["clip"]["path"] == "noise.wav"
        assert measuring.library.choices("me") == []

    @pytest.mark.parametrize(
        ("ask", "message"),
        [
            (lambda m, clip: m.compare("me", clip, GREEDY, GREEDY, QUICK), SAME),
            (lambda m, clip: m.compare("me", None, GREEDY, PLAIN, QUICK), "no recording yet"),
            (
                lambda m, clip: m.profile("me", clip, GREEDY, MeasurementOptions(blocks=0)),
                "0 blocks came",
            ),
            (
                lambda m, clip: m.profile("me", clip, Settings(model="x", quantize="int2"), QUICK),
                "int2",
            ),
            (
                lambda m, clip: m.profile("me", clip, Settings(model=" "), QUICK),
                "no model was chosen",
            ),
        ],
    )
    def test_what_cannot_be_measured_is_said_before_a_model_is_loaded(
        self, measuring: MeasurementService, clip: str, ask: Callable[..., Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            list(ask(measuring, clip))
        assert not measuring.service.summary("random").loaded

    def test_settings_that_come_to_the_same_are_refused(
        self, measuring: MeasurementService, clip: str
    ) -> None:
        again = Settings(model="random", max_new_tokens=4, lora=True)
        with pytest.raises(ValueError, match="are identical"):
            list(measuring.compare("me", clip, GREEDY, again, QUICK))
        assert "adapter" in SAME_HERE

    def test_long_recordings_are_refused_with_advice(
        self, measuring: MeasurementService, clip: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LONGEST_S", 1.0)
        with pytest.raises(ValueError, match="is 2 s long.*cut a piece"):
            list(measuring.profile("me", clip, GREEDY, QUICK))

    @pytest.mark.parametrize("gives_way", [False, True])
    def test_a_transcription_goes_between_two_blocks_where_the_owner_allows_it(
        self,
        gives_way: bool,
        measuring: MeasurementService,
        clip: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        there = MeasurementService(
            measuring.service, ProfileLibrary(None, shipped=tmp_path / "none"), gives_way=gives_way
        )
        ran: list[str] = []
        real = timed_pass.time_once

        def time_once(*given: Any) -> Any:
            ran.append("run")
            return real(*given)

        def jobs() -> list[TranscriptionJob]:
            return [measuring.service.start(name, clip, GREEDY) for name in ("you", "they")]

        monkeypatch.setattr(timed_pass, "time_once", time_once)
        measuring.service.lab(GREEDY)  # what is loaded already is ready
        waiting: list[TranscriptionJob] = []
        for update in there.profile("me", clip, PLAIN, MeasurementOptions(blocks=4)):
            if isinstance(update, MeasurementProgress) and "run 1 of" in update.text:
                monkeypatch.setattr(
                    measuring.service._work, "transcribe", self._noting(ran, measuring.service)
                )
                waiting = jobs()
            end = update
        assert isinstance(end, MeasurementResult)
        assert all(isinstance(list(job.watch())[-1], RequestResult) for job in waiting)
        warnings = end.runs[0]["warnings"]
        if not gives_way:
            assert ran[-2:] == ["transcription"] * 2
            assert warnings == []
            return
        assert warnings == [session.GAVE_WAY.format(n=1)]
        first = ran.index("transcription")
        assert ran[first : first + 2] == ["transcription"] * 2  # both in one pause
        timed = 4 * 4  # blocks of two arms, the A/A arm being one, each run twice
        uncounted = 2
        after = ran[first + 2 :]
        assert (len(after) - uncounted) % 4 == 0
        assert 0 < len(after) - uncounted < timed

    @staticmethod
    def _noting(ran: list[str], service: TranscriptionService) -> Callable[..., Any]:
        real = service._work.transcribe

        def transcribe(*given: Any) -> Any:
            ran.append("transcription")
            return real(*given)

        return transcribe

    def test_where_nothing_can_be_timed_the_reason_is_given(
        self, measuring: MeasurementService
    ) -> None:
        measuring.refusal = "the GPU is lent"
        with pytest.raises(ValueError, match="the GPU is lent"):
            list(measuring.profile("me", "x.wav", GREEDY, QUICK))
