"""The only owner of loaded models and of the jobs that run on them. No Gradio.

In: a session's name, a recording, :class:`app.service.settings.Settings`. Out: updates as they
happen. All model work runs on one thread (:mod:`app.service.worker`), in the order it was asked
for. :mod:`app.service.model_cache` loads them; a transcription outlives its page
for a while (:mod:`app.service.transcription_jobs`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock

from app.service.limits import Limits
from app.service.model_cache import Loader, ModelCache, plain_name
from app.service.model_summary import ModelSummary
from app.service.settings import Settings
from app.service.transcription_jobs import GRACE_S, JobRegistry, TranscriptionJob
from app.service.transcription_work import ModelWork
from app.service.updates import RequestResult, TranscriptionProgress, Update
from app.service.worker import TRANSCRIPTION, CancelToken, Worker
from app.service.zero_gpu import Decorator, LentGpu
from core import Lab, Transcript, load
from core.background_build import BackgroundBuilds
from core.builder_process import BackgroundBuild
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
        limits: which models, recordings and engines are taken.
        borrow: ``spaces.GPU`` where the GPU is lent by the call; the start model is loaded then.
        builds: what compiles in the background; without it a compiled request waits for its graphs.
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
        builds: BackgroundBuilds | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.model = plain_name(model)
        self.models = ModelCache(model, device, dtype, loader)
        self.worker = Worker()
        self._grace_s = grace_s
        self._jobs = JobRegistry()
        self._tokens: dict[str, CancelToken] = {}
        self._lock = Lock()  # guards the dict; never held while a model works
        lent = None if borrow is None else LentGpu(self.models, borrow)
        self.builds = builds
        self._work = ModelWork(self.models, self.limits, lent, builds)

    def summaries(self) -> list[ModelSummary]:
        """List the start model, the catalog, and other loaded models, if they are run here."""
        return [summary for summary in self.models.summaries() if self.limits.takes(summary.name)]

    def summary(self, name: str) -> ModelSummary:
        """Describe one model; loads nothing."""
        return self.models.summary(name)

    def warm(self) -> None:
        """Load the start model in the background, so that the first visitor need not wait.

        If it cannot be loaded the log says why, and so does the first request for it.
        """
        if self._work.lent is not None:
            self._warm()  # before the app is launched, or the other process would not have it
        else:
            self.worker.submit(self._warm)

    def build_package(self) -> None:
        """Compile the start model in the background, if what was built is not found."""
        if self.builds is not None and self.limits.no_compile is None:
            self.worker.submit(self._build)

    def missing(
        self, settings: Settings, lengths_s: Sequence[float | None] = ()
    ) -> BackgroundBuild | None:
        """Return the build that a compiled request waits for; only on the worker's thread."""
        return self._work.missing(self.lab(settings), settings, lengths_s)

    @contextmanager
    def no_builders(self) -> Iterator[None]:
        """Let nothing compile in the background while something is timed."""
        if self.builds is not None:
            self.builds.pause(paused=True)
        try:
            yield
        finally:
            if self.builds is not None:
                self.builds.pause(paused=False)

    def begin(self, session: str) -> None:
        """Announce a request, so that :meth:`stop` reaches it while it waits its turn.

        It takes the place of the session's request before it, which is stopped.
        """
        with self._lock:
            before, self._tokens[session] = self._tokens.get(session), CancelToken()
        if before is not None:
            before.replace(session)

    def stop(self, session: str) -> bool:
        """End the session's requests at their next token; returns whether there were any."""
        with self._lock:
            tokens = [
                self._tokens[key] for key in (session, session + ASKING) if key in self._tokens
            ]
        for token in tokens:
            token.cancel()
        return bool(tokens)

    def leave(self, session: str) -> None:
        """Forget a closed page. Its transcription waits a while for it to come back."""
        with self._lock:
            tokens = [self._tokens.pop(key, None) for key in (session, session + ASKING)]
        for token in tokens:
            job = None if token is None else self._jobs.of(token)
            if job is not None:
                job.leave(session)
            elif token is not None:
                token.cancel()

    def start(self, session: str, recording: str | None, settings: Settings) -> TranscriptionJob:
        """Begin a transcription for a session.

        Returns:
            The job, for :meth:`watch`.

        Raises:
            UserError: no recording, no model, or an unknown option.
        """
        token = self.token_of(session)
        job = TranscriptionJob(token, grace_s=self._grace_s)
        try:
            work = self._transcription(job.cancelled, recording, settings)
        except Exception:
            self.forget(session, token)
            raise
        job.join(session)
        self._jobs.add(job)
        turn = self.worker.submit(
            lambda: job.fill(lambda: self._expected(work())),
            TRANSCRIPTION,
            partial(self.models.is_ready, settings),
        )
        job.place = lambda: self.worker.place(turn)
        return job

    def _expected(self, updates: Iterator[Update]) -> Iterator[Update]:
        """Pass updates on; those who wait in the line learn from them how long it takes."""
        for update in updates:
            if isinstance(update, TranscriptionProgress):
                self.worker.expect(update.left_s)
            yield update

    def resume(self, session: str, job_id: str) -> TranscriptionJob | None:
        """Return the job that a page began before a reload; None where it is forgotten."""
        job = self._jobs.get(job_id)
        if job is not None:
            job.join(session)
            with self._lock:
                self._tokens[session] = job.token
        return job

    def watch(self, session: str, job: TranscriptionJob) -> Iterator[Update]:
        """Yield the updates of a job, until a newer request of the session takes its place.

        Yields:
            Updates; the last is a :class:`RequestResult` or :class:`CancelledBeforeStart`. None
            once it is replaced: "stopped" could reach the page after the newer one's text.

        Raises:
            UserError: the recording, the model or an option is not usable.
        """
        try:
            for update in job.watch():
                if job.token.replaced(session):
                    return
                yield update
        except Exception:
            if not job.token.replaced(session):
                raise
        finally:
            job.leave(session)
            if job.ended_at is not None:
                self.forget(session, job.token)

    def stream(self, session: str, recording: str | None, settings: Settings) -> Iterator[Update]:
        """Run :meth:`start` and :meth:`watch` in one."""
        yield from self.watch(session, self.start(session, recording, settings))

    def transcribe(
        self, recording: str | None, settings: Settings, token: CancelToken | None = None
    ) -> Transcript:
        """Transcribe for a caller without a page: wait, then return everything at once.

        A ``token`` that is cancelled ends the work with what is there, if its turn has come.

        Returns:
            The transcript.

        Raises:
            UserError: as for :meth:`watch`.
            AssertionError: a request ended without a transcript.
        """
        token = token or CancelToken()
        work = self._transcription(token.cancelled, recording, settings)
        ready = partial(self.models.is_ready, settings)
        for update in self.worker.stream(token, work, TRANSCRIPTION, ready):
            if isinstance(update, RequestResult):
                return update.transcript
        raise AssertionError("a request ended without a transcript")

    def ask(self, session: str, model: str, message: str) -> Iterator[str]:
        """Answer text with text, LoRA off.

        Yields:
            The answer so far.

        Raises:
            UserError: the model has no text mode, or the message is empty.
        """
        token = self.token_of(session + ASKING)
        try:
            yield from self.worker.stream(
                token, lambda: self._work.answer(token.cancelled, model, message)
            )
        finally:
            self.forget(session + ASKING, token)

    def encoder_view(self, recording: str | None, settings: Settings) -> EncoderView:
        """Run the encoder alone over a recording, in its turn.

        Returns:
            Features and what its CTC head reads.

        Raises:
            UserError: no readable recording, or no such model.
        """
        path, token = self.limits.check_recording(recording), CancelToken()
        (view,) = self.worker.stream(
            token, lambda: self._work.encoder_view(token.cancelled, path, settings)
        )
        return view

    def lab(self, settings: Settings) -> Lab:
        """Return the model of these settings, loaded if need be. Only on the worker's thread.

        Returns:
            The model.

        Raises:
            UserError: not run here, or not loadable.
        """
        return self._work.lab(settings)

    def close(self) -> None:
        """Stop every request and let the thread end."""
        with self._lock:
            tokens = list(self._tokens.values())
        for token in tokens:
            token.cancel()
        self.worker.close()
        if self.builds is not None:
            self.builds.close()

    def _build(self) -> None:
        try:
            self.missing(Settings(model=self.model, engine="compile"))
        except Exception as error:
            logger.warning("%s is not compiled in the background: %s", self.model, error)

    def _warm(self) -> None:
        try:
            self.models.lab(self.models.start)
        except Exception as error:
            logger.warning("%s is not loaded yet: %s", self.model, error)

    def token_of(self, session: str) -> CancelToken:
        """Return the token of a session's request, as :meth:`begin` announced it."""
        with self._lock:
            return self._tokens.setdefault(session, CancelToken())

    def forget(self, session: str, token: CancelToken) -> None:
        """Forget a request that is over."""
        with self._lock:
            if self._tokens.get(session) is token:
                del self._tokens[session]

    def _transcription(
        self, cancelled: Callable[[], bool], recording: str | None, settings: Settings
    ) -> Callable[[], Iterator[Update]]:
        """Check what can be checked without a model; the rest is for the worker's thread.

        Returns:
            The work.

        Raises:
            UserError: no recording, or an unknown option.
        """
        if recording:
            self.limits.check(settings)  # before the file is opened
        path = self.limits.check_recording(recording)
        return lambda: self._work.transcribe(cancelled, path, settings)
