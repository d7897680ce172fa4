"""The only owner of loaded models and of the jobs that run on them. Knows nothing of Gradio.

In: a session's name, a recording, :class:`app.service.settings.Settings`. Out: updates as they
happen. All model work runs on one thread (:mod:`app.service.worker`), in the order it was asked
for. What is loaded is :mod:`app.service.model_cache`'s business; a transcription outlives its page
for a while (:mod:`app.service.transcription_jobs`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from threading import Lock

from app.service.limits import Limits
from app.service.model_cache import Loader, ModelCache, plain_name
from app.service.model_summary import ModelSummary
from app.service.settings import Settings
from app.service.transcription_jobs import GRACE_S, JobRegistry, TranscriptionJob
from app.service.transcription_work import ModelWork
from app.service.updates import RequestResult, Update
from app.service.worker import CancelToken, Worker
from app.service.zero_gpu import Decorator, LentGpu
from core import Lab, Transcript, load
from core.encoder_view import EncoderView

logger = logging.getLogger(__name__)

ASKING = ":ask"  # added to a session's name: it may ask while it transcribes


class TranscriptionService:
    """Models, jobs and the thread they meet on.

    Args:
        model: the model the page opens with; it is kept in memory once loaded.
        device: where models run; None takes a GPU if there is one.
        dtype: of the weights; None takes what suits the device.
        loader: ``core.load``, or a stand-in with its signature.
        grace_s: how long a transcription goes on after its page was closed.
        limits: what is taken of whoever uses the app.
        borrow: ``spaces.GPU`` where the GPU is lent by the call; the start model is loaded then.
    """

    def __init__(
        self,
        *,
        model: str = "tiny",
        device: str | None = None,
        dtype: str | None = None,
        loader: Loader = load,
        grace_s: float = GRACE_S,
        limits: Limits | None = None,
        borrow: Decorator | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.model = plain_name(model)
        self.models = ModelCache(model, device, dtype, loader)
        self.worker = Worker()
        self._grace_s = grace_s
        self._runs = JobRegistry()
        self._jobs: dict[str, CancelToken] = {}
        self._lock = Lock()  # guards the dict; never held while a model works
        lent = None if borrow is None else LentGpu(self.models, borrow)
        self._work = ModelWork(self.models, self.limits, lent)

    def summaries(self) -> list[ModelSummary]:
        """The start model, the catalog, and whatever else is loaded, as far as it is run here."""
        return [summary for summary in self.models.summaries() if self.limits.takes(summary.name)]

    def summary(self, name: str) -> ModelSummary:
        """What is known of one model; loads nothing."""
        return self.models.summary(name)

    def warm(self) -> None:
        """Load the start model in the background, so that the first visitor need not wait.

        If it cannot be loaded the log says why, and so does the first request for it.
        """
        if self._work.lent is not None:
            self._warm()  # before the app is launched, or the other process would not have it
        else:
            self.worker.submit(self._warm)

    def begin(self, session: str) -> None:
        """Announce a request, so that :meth:`stop` reaches it while it waits its turn.

        It takes the place of the session's request before it, which is stopped.
        """
        with self._lock:
            before, self._jobs[session] = self._jobs.get(session), CancelToken()
        if before is not None:
            before.cancel()

    def stop(self, session: str) -> bool:
        """End the session's requests at their next token; whether there were any."""
        with self._lock:
            jobs = [self._jobs[key] for key in (session, session + ASKING) if key in self._jobs]
        for job in jobs:
            job.cancel()
        return bool(jobs)

    def leave(self, session: str) -> None:
        """A page was closed: forget it. Its transcription waits a while for it to come back."""
        with self._lock:
            jobs = [self._jobs.pop(key, None) for key in (session, session + ASKING)]
        for job in jobs:
            run = None if job is None else self._runs.of(job)
            if run is not None:
                run.leave(session)
            elif job is not None:
                job.cancel()

    def start(self, session: str, recording: str | None, settings: Settings) -> TranscriptionJob:
        """Begin a transcription for a session; :meth:`watch` has its updates.

        Raises:
            UserError: no recording, no model, or an option nobody has; says why.
        """
        job = self.job_of(session)
        run = TranscriptionJob(job, grace_s=self._grace_s)
        try:
            work = self._transcription(run.cancelled, recording, settings)
        except Exception:
            self.forget(session, job)
            raise
        run.join(session)
        self._runs.add(run)
        self.worker.submit(lambda: run.fill(work))
        return run

    def resume(self, session: str, run_id: str) -> TranscriptionJob | None:
        """The run a page began before it was loaded again; None where it is forgotten."""
        run = self._runs.get(run_id)
        if run is not None:
            run.join(session)
            with self._lock:
                self._jobs[session] = run.job
        return run

    def watch(self, session: str, run: TranscriptionJob) -> Iterator[Update]:
        """Updates of a run; the last is an :class:`RequestResult`, or :class:`CancelledBeforeStart`.

        Raises:
            UserError: the recording, the model or an option is not usable; says why.
        """
        try:
            yield from run.watch()
        finally:
            run.leave(session)
            if run.ended_at is not None:
                self.forget(session, run.job)

    def stream(self, session: str, recording: str | None, settings: Settings) -> Iterator[Update]:
        """:meth:`start` and :meth:`watch` in one."""
        yield from self.watch(session, self.start(session, recording, settings))

    def transcribe(self, recording: str | None, settings: Settings) -> Transcript:
        """Transcribe for a caller without a page: wait, then return everything at once.

        Raises:
            UserError: as for :meth:`watch`.
        """
        job = CancelToken()
        work = self._transcription(job.cancelled, recording, settings)
        for update in self.worker.stream(job, work):
            if isinstance(update, RequestResult):
                return update.transcript
        raise AssertionError("a request ended without a transcript")

    def ask(self, session: str, model: str, message: str) -> Iterator[str]:
        """Answer text with text, LoRA off; yields the answer so far.

        Raises:
            UserError: the model has no text mode, or the message is empty.
        """
        job = self.job_of(session + ASKING)
        try:
            yield from self.worker.stream(
                job, lambda: self._work.answer(job.cancelled, model, message)
            )
        finally:
            self.forget(session + ASKING, job)

    def encoder_view(self, recording: str | None, settings: Settings) -> EncoderView:
        """What the encoder makes of a recording, in its turn.

        Raises:
            UserError: no readable recording, or no such model.
        """
        path, job = self.limits.check_recording(recording), CancelToken()
        (view,) = self.worker.stream(
            job, lambda: self._work.encoder_view(job.cancelled, path, settings)
        )
        return view

    def lab(self, settings: Settings) -> Lab:
        """The model of these settings, loaded if need be. For work on the worker's thread only.

        Raises:
            UserError: not run here, or not loadable.
        """
        return self._work.lab(settings)

    def close(self) -> None:
        """Stop every request and let the thread end."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        self.worker.close()

    def _warm(self) -> None:
        try:
            self.models.lab(self.models.start)
        except Exception as error:
            logger.warning("%s is not loaded yet: %s", self.model, error)

    def job_of(self, session: str) -> CancelToken:
        """The job of a session's request, as :meth:`begin` announced it."""
        with self._lock:
            return self._jobs.setdefault(session, CancelToken())

    def forget(self, session: str, job: CancelToken) -> None:
        """The request of this job is over."""
        with self._lock:
            if self._jobs.get(session) is job:
                del self._jobs[session]

    def _transcription(
        self, cancelled: Callable[[], bool], recording: str | None, settings: Settings
    ) -> Callable[[], Iterator[Update]]:
        """Check what can be checked without a model; the rest is for the worker's thread.

        Raises:
            UserError: no recording, or an option nobody has.
        """
        if recording:
            self.limits.check(settings)  # before the file is opened
        path = self.limits.check_recording(recording)
        return lambda: self._work.transcribe(cancelled, path, settings)
