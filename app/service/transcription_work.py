"""A request on the models' thread: load if need be, then transcribe or answer.

In: a recording or a message, settings. Out: updates as they happen. Where a GPU is lent by the call
(:mod:`app.service.zero_gpu`), the model runs there and everything else here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from app.service.limits import Limits
from app.service.model_cache import ModelCache
from app.service.pace import PaceBook, kind_of, left_s
from app.service.settings import Settings
from app.service.updates import EagerMeanwhile, RequestResult, TranscriptionProgress, Update
from app.service.zero_gpu import ASK, HEAR, TRANSCRIBE, LentGpu
from core import Lab
from core.background_build import BackgroundBuilds, PackageRequest, needs_batches
from core.builder_process import BackgroundBuild
from core.encoder_view import EncoderView, encoder_view
from core.errors import UserError
from core.phases import LOAD
from core.transcription.long_form import seconds_of
from core.transcription.options import (
    Event,
    Finished,
    PhaseStarted,
    Progress,
    TranscribeOptions,
)


class ModelWork:
    """Requests on cached models.

    lent: the GPU, where it is not this process's own. builds: what compiles beside it; None makes
    requests for compiled stages wait.
    """

    def __init__(
        self,
        models: ModelCache,
        limits: Limits,
        lent: LentGpu | None,
        builds: BackgroundBuilds | None = None,
    ) -> None:
        self.models, self.limits, self.lent, self.builds = models, limits, lent, builds
        self._pace = PaceBook()

    def lab(self, settings: Settings) -> Lab:
        """Return the model of these settings, loaded if need be, with the adapter they name.

        Returns:
            The model.

        Raises:
            UserError: it is not run here, or cannot be loaded; or it has no such adapter.
        """
        self.limits.check_model(settings.model)
        wanted = self.models.wanted(settings)
        return self.models.adapters.fit(self.models.lab(wanted), wanted.name, settings.adapter)

    def missing(
        self, lab: Lab, settings: Settings, lengths_s: Sequence[float | None]
    ) -> BackgroundBuild | None:
        """Return the build that compiled stages of a request still need.

        Args:
            lab: the model.
            settings: of the request.
            lengths_s: of its recordings, in seconds; None where unknown.

        Returns:
            The build; None where it can run as asked for.
        """
        if settings.engine != "compile" or self.builds is None or self.lent is not None:
            return None
        options = TranscribeOptions(**settings.options())
        added = self.models.adapters.of(self.models.wanted(settings).name)
        folders = tuple(one.folder for one in added if one.name in lab.adapters.names)
        return self.builds.missing(
            lab,
            PackageRequest.of(lab, settings.model, adapters=folders),
            batches=needs_batches(lab, options, lengths_s),
        )

    def transcribe(
        self, cancelled: Callable[[], bool], recording: str, settings: Settings
    ) -> Iterator[Update]:
        """Yield the updates of one transcription; the last is a :class:`RequestResult`."""
        begin = time.perf_counter()
        if not self.models.holds(self.models.wanted(settings)):
            yield PhaseStarted(0, LOAD)
        lab = self.lab(settings)
        build = None
        if settings.engine == "compile":
            build = self.missing(lab, settings, (seconds_of(recording),))
        if build is not None:
            settings = replace(settings, engine="eager")
            yield EagerMeanwhile(build.status)
        loaded = time.perf_counter()
        before_s = sum(lab.compile_ledger.seconds.values())
        kind = kind_of(settings)
        learnt = self._pace.of(kind)
        with suppress(UserError):  # what cannot be read is said below
            total_s = seconds_of(recording)
            if total_s is not None and total_s > lab.model_info.reliable_s:
                yield TranscriptionProgress(0.0, total_s, left_s(0.0, total_s, 0.0, learnt))
        for event in self._events(lab, cancelled, recording, settings):
            compile_s = sum(lab.compile_ledger.seconds.values()) - before_s
            spent_s = time.perf_counter() - loaded - compile_s
            if isinstance(event, Progress):
                left = left_s(event.done_s, event.total_s, spent_s, learnt)
                yield TranscriptionProgress(event.done_s, event.total_s, left)
            elif isinstance(event, Finished):
                if event.transcript.audio_s > 0 and not cancelled():
                    self._pace.learn(kind, spent_s / event.transcript.audio_s)
                # The folder of an upload stays private.
                transcript = replace(event.transcript, file=Path(recording).name)
                if build is not None:
                    transcript = transcript.warned(build.note())
                summary = self.models.summary(settings.model)
                yield RequestResult(transcript, compile_s, loaded - begin, summary)
            elif isinstance(event, PhaseStarted) and build is not None:
                yield EagerMeanwhile(build.status)
            else:
                yield event

    def answer(self, cancelled: Callable[[], bool], model: str, message: str) -> Iterator[str]:
        """Yield the answer to a message as it grows."""
        text, lab = "", self.lab(Settings(model=model))
        pieces = (
            lab.stream_chat(message, cancelled=cancelled)
            if self.lent is None
            else self.lent(ASK, cancelled, model, message)
        )
        for piece in pieces:
            text += piece
            yield text

    def encoder_view(
        self, cancelled: Callable[[], bool], recording: str, settings: Settings
    ) -> Iterator[EncoderView]:
        """Yield the encoder's view of a recording; one value."""
        lab = self.lab(settings)
        if self.lent is not None:
            yield from self.lent(HEAR, cancelled, recording, settings)
        else:
            adapter = settings.adapter or None
            yield encoder_view(lab, recording, lora=settings.lora, adapter=adapter)

    def _events(
        self, lab: Lab, cancelled: Callable[[], bool], recording: str, settings: Settings
    ) -> Iterator[Event]:
        if self.lent is not None:
            return self.lent(TRANSCRIBE, cancelled, recording, settings)
        return lab.stream(recording, cancelled=cancelled, **settings.options())
