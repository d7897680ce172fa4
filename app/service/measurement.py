"""Timed comparisons and recorded profiles: checks, queueing, and where the runs go.

In: a recording and one or two :class:`app.service.settings.Settings`. Out: progress as it is made,
at last what was measured. What happens on the models' thread is :mod:`app.service.measurement_job`.
No Gradio.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from app.service.measurement_job import (
    MeasurementJob,
    MeasurementOptions,
    MeasurementProgress,
    MeasurementResult,
    MeasurementStage,
    MeasurementUpdate,
)
from app.service.profiles.library import ProfileLibrary
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.updates import CancelledBeforeStart, QueuePlace
from app.service.worker import CancelToken
from core.builder_process import BackgroundBuild
from core.devices import quantisers
from core.errors import UserError
from core.transcription.long_form import seconds_of
from profiling.runs.store import RunStore

POLL_S = 0.5  # how often a wait says how far it is
FEWEST, MOST = 1, 50  # blocks
MEASURING = ":measure"  # added to a session's name: it may measure and read text meanwhile
SAME = "A and B are identical; change one of them: engine, LoRA, decoding, weights or model"


def _as_it_is(place: QueuePlace) -> MeasurementUpdate:
    return place


class MeasurementService:
    """Measurements on the models of a service.

    Args:
        service: whose models and whose thread.
        library: where runs go.
        refusal: why nothing is measured here, None where it is.
        gives_way: let transcriptions that wait run between the blocks.
    """

    def __init__(
        self,
        service: TranscriptionService,
        library: ProfileLibrary,
        refusal: str | None = None,
        gives_way: bool = False,
    ) -> None:
        self.service, self.library, self.refusal = service, library, refusal
        self.gives_way = gives_way
        self._work = MeasurementJob(service, gives_way)
        self.quiet = self._work.quiet

    def begin(self, session: str) -> None:
        """Announce a measurement, so that :meth:`stop` reaches it while it waits its turn."""
        self.service.begin(session + MEASURING)

    def stop(self, session: str) -> bool:
        """End a measurement at its next run; what was measured by then is kept."""
        return self.service.stop(session + MEASURING)

    def leave(self, session: str) -> None:
        """End a closed page's measurement and forget its own runs."""
        self.service.leave(session + MEASURING)
        self.library.forget(session)

    def compare(
        self,
        session: str,
        recording: str | None,
        a: Settings,
        b: Settings,
        options: MeasurementOptions,
    ) -> Iterator[MeasurementUpdate]:
        """Time two ways of transcribing one recording against each other.

        Args:
            session: of the visitor.
            recording: its path.
            a: settings of the baseline.
            b: settings to compare with it.
            options: how thoroughly.

        Returns:
            Progress as it is made, then the result.

        Raises:
            UserError: nothing to compare, or work a model cannot do.
        """
        if a == b:
            raise UserError(SAME)
        return self._measure(session, recording, (a, b), options)

    def profile(
        self, session: str, recording: str | None, settings: Settings, options: MeasurementOptions
    ) -> Iterator[MeasurementUpdate]:
        """Time and trace one way of transcribing a recording.

        Args:
            session: of the visitor.
            recording: its path.
            settings: how it is transcribed.
            options: how thoroughly.

        Returns:
            Progress as it is made, then the result.

        Raises:
            UserError: as for :meth:`compare`.
        """
        return self._measure(session, recording, (settings,), options)

    def once(
        self,
        recording: str | None,
        settings: tuple[Settings, ...],
        options: MeasurementOptions,
        folder: Path,
        token: CancelToken,
    ) -> MeasurementResult:
        """Measure for a caller without a page.

        Args:
            recording: its path.
            settings: one or two.
            options: how thoroughly.
            folder: where the runs are written.
            token: ends the measurement at its next run.

        Returns:
            What was measured.

        Raises:
            UserError: as for :meth:`compare`.
            AssertionError: a measurement ended without a result.
        """
        if len(set(settings)) < len(settings):
            raise UserError(SAME)
        path, blocks = self._checked(recording, settings, options)
        work = self._work.work_of(
            token,
            path,
            settings,
            replace(options, blocks=blocks),
            RunStore(folder),
            "",
        )
        for _ in self.compiled(token, (seconds_of(path),), *settings):
            pass
        for report in self.service.worker.stream_reports(token, work):
            if isinstance(report, MeasurementResult):
                return report
        raise AssertionError("a measurement ended without a result")

    def _measure(
        self,
        session: str,
        recording: str | None,
        settings: tuple[Settings, ...],
        options: MeasurementOptions,
    ) -> Iterator[MeasurementUpdate]:
        path, blocks = self._checked(recording, settings, options)
        store, prefix = self.library.store(session)
        token = self.service.token_of(session + MEASURING)
        ended = False
        try:
            work = self._work.work_of(
                token,
                path,
                settings,
                replace(options, blocks=blocks),
                store,
                prefix,
            )
            yield from self.compiled(token, (seconds_of(path),), *settings)
            for report in self.service.worker.stream_reports(token, work, _as_it_is):
                ended = isinstance(report, MeasurementResult)
                yield report
            if not ended:
                yield CancelledBeforeStart()
        finally:
            self.service.forget(session + MEASURING, token)

    def compiled(
        self, token: CancelToken, lengths_s: Sequence[float | None], *settings: Settings
    ) -> Iterator[MeasurementProgress]:
        """Wait until what is measured as compiled is compiled; other requests run meanwhile.

        A build that failed is not waited for: compiling where the model runs says why, or works.

        Args:
            token: ends the waiting.
            lengths_s: of the recordings of one pass.
            settings: of what will be measured.

        Yields:
            Progress.
        """
        for one in settings:
            while not token.cancelled():
                # A stream of its own: its end must not cancel the measurement.
                ask = partial(self._ask, one, lengths_s)
                (build,) = self.service.worker.stream(CancelToken(), ask)
                if build is None or build.status.failure is not None:
                    break
                while not token.cancelled() and not build.wait(POLL_S):
                    status = build.status
                    stage = MeasurementStage.COMPILING
                    yield MeasurementProgress(stage, 0.0, status.text, status.left_s)

    def _ask(
        self, settings: Settings, lengths_s: Sequence[float | None]
    ) -> Iterator[BackgroundBuild | None]:
        yield self.service.missing(settings, lengths_s)

    def _checked(
        self, recording: str | None, settings: tuple[Settings, ...], options: MeasurementOptions
    ) -> tuple[Path, int]:
        """Check what can be checked without a model.

        Returns:
            The recording and the number of blocks.

        Raises:
            UserError: nothing is measured here, no recording, no model, or an unknown setting.
        """
        if self.refusal is not None:
            raise UserError(self.refusal)
        path = self.service.limits.check_recording(recording)
        if not FEWEST <= options.blocks <= MOST:
            raise UserError(f"{options.blocks} blocks came; expected {FEWEST} to {MOST}")
        for one in settings:
            self.service.limits.check(one)
            if one.quantize and one.quantize not in quantisers(one.device or None):
                known = ", ".join(quantisers(one.device or None))
                raise UserError(f"weights {one.quantize!r} are not known here; expected {known}")
        return Path(path), int(options.blocks)
