"""The only owner of loaded models and of the jobs that run on them. Knows nothing of Gradio.

In: a session's name, a recording, :class:`app.settings.Settings`. Out: updates as they happen.
All model work runs on one thread (:mod:`app.jobs`), in the order it was asked for. The model the
app started with stays in memory, and beside it the one used last.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from app.jobs import Job, Worker
from app.model_card import ModelCard, card_of_lab, card_of_name
from app.settings import Settings
from core import Lab, Transcript, load
from core.catalog import CATALOG, lookup
from core.options import Event, Finished, PhaseStarted, TranscribeOptions
from core.phases import LOAD

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The last update. compile_s and load_s: what this request spent on compiling and loading."""

    transcript: Transcript
    compile_s: float
    load_s: float
    card: ModelCard


@dataclass(frozen=True)
class NotBegun:
    """The only update of a request that was stopped while it waited."""


Update = Event | Outcome | NotBegun
Loader = Callable[..., Lab]
ASKING = ":ask"  # added to a session's name: it may ask while it transcribes


class Studio:
    """Models, jobs and the thread they meet on.

    Args:
        model: the model the page opens with; it is kept in memory once loaded.
        device: where models run; None takes a GPU if there is one.
        dtype: of the weights; None takes what suits the device.
        loader: ``core.load``, or a stand-in with its signature.
    """

    def __init__(
        self,
        *,
        model: str = "tiny",
        device: str | None = None,
        dtype: str | None = None,
        loader: Loader = load,
    ) -> None:
        self.model = plain_name(model)
        self._device, self._dtype, self._loader = device, dtype, loader
        self._labs: dict[str, Lab] = {}
        self._jobs: dict[str, Job] = {}
        self._lock = Lock()  # guards the two dicts; never held while a model works
        self._worker = Worker()

    def cards(self) -> list[ModelCard]:
        """The start model, the catalog, and whatever else is loaded."""
        with self._lock:
            names = dict.fromkeys([self.model, *CATALOG, *self._labs])
        return [self.card(name) for name in names]

    def card(self, name: str) -> ModelCard:
        """What is known of one model; loads nothing."""
        key = plain_name(name)
        with self._lock:
            lab = self._labs.get(key)
        return card_of_name(key) if lab is None else card_of_lab(key, lab)

    def warm(self) -> None:
        """Load the start model in the background, so that the first visitor need not wait.

        If it cannot be loaded the log says why, and so does the first request for it.
        """
        self._worker.submit(self._warm)

    def begin(self, session: str) -> None:
        """Announce a request, so that :meth:`stop` reaches it while it waits its turn.

        It takes the place of the session's request before it, which is stopped.
        """
        with self._lock:
            before, self._jobs[session] = self._jobs.get(session), Job()
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
        """End the session's requests and forget it."""
        self.stop(session)
        with self._lock:
            for key in (session, session + ASKING):
                self._jobs.pop(key, None)

    def stream(self, session: str, recording: str | None, settings: Settings) -> Iterator[Update]:
        """Transcribe for a session; the last update is an :class:`Outcome`.

        Raises:
            ValueError: the recording, the model or an option is not usable; says why.
        """
        job, outcome = self._job_of(session), None
        try:
            for update in self._worker.stream(job, self._transcription(job, recording, settings)):
                outcome = update if isinstance(update, Outcome) else outcome
                yield update
            if outcome is None:
                yield NotBegun()
        finally:
            self._forget(session, job)

    def transcribe(self, recording: str | None, settings: Settings) -> Transcript:
        """Transcribe for a caller without a page: wait, then return everything at once.

        Raises:
            ValueError: as for :meth:`stream`.
        """
        job = Job()
        for update in self._worker.stream(job, self._transcription(job, recording, settings)):
            if isinstance(update, Outcome):
                return update.transcript
        raise AssertionError("a request ended without a transcript")

    def ask(self, session: str, model: str, message: str) -> Iterator[str]:
        """Answer text with text, LoRA off; yields the answer so far.

        Raises:
            ValueError: the model has no text mode, or the message is empty.
        """
        job = self._job_of(session + ASKING)
        try:
            yield from self._worker.stream(job, lambda: self._answer(job, model, message))
        finally:
            self._forget(session + ASKING, job)

    def close(self) -> None:
        """Stop every request and let the thread end."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        self._worker.close()

    def _warm(self) -> None:
        try:
            self._lab(self.model)
        except Exception as error:
            logger.warning("%s is not loaded yet: %s", self.model, error)

    def _job_of(self, session: str) -> Job:
        with self._lock:
            return self._jobs.setdefault(session, Job())

    def _forget(self, session: str, job: Job) -> None:
        with self._lock:
            if self._jobs.get(session) is job:
                del self._jobs[session]

    def _transcription(
        self, job: Job, recording: str | None, settings: Settings
    ) -> Callable[[], Iterator[Update]]:
        """Check what can be checked without a model; the rest is for the worker's thread.

        Raises:
            ValueError: no recording, or an option nobody has.
        """
        if not recording:
            raise ValueError("no recording came; record something, or choose a file or an example")
        if not settings.model.strip():
            raise ValueError("no model came; choose one, or type a repository id or a folder")
        TranscribeOptions(**settings.options())
        return lambda: self._transcribe(job, recording, settings)

    def _transcribe(self, job: Job, recording: str, settings: Settings) -> Iterator[Update]:
        """On the worker's thread: load if need be, then transcribe."""
        begin = time.perf_counter()
        if not self.card(settings.model).loaded:
            yield PhaseStarted(0, LOAD)
        lab = self._lab(settings.model)
        load_s = time.perf_counter() - begin
        before_s = sum(lab.compile_ledger.seconds.values())
        for event in lab.stream(recording, cancelled=job.cancelled, **settings.options()):
            if not isinstance(event, Finished):
                yield event
                continue
            compile_s = sum(lab.compile_ledger.seconds.values()) - before_s
            # Where an upload lies on this machine is nobody's business.
            transcript = replace(event.transcript, file=Path(recording).name)
            yield Outcome(transcript, compile_s, load_s, self.card(settings.model))

    def _answer(self, job: Job, model: str, message: str) -> Iterator[str]:
        """On the worker's thread: the answer as it grows."""
        text = ""
        for piece in self._lab(model).stream_chat(message, cancelled=job.cancelled):
            text += piece
            yield text

    def _lab(self, name: str) -> Lab:
        """The model, loaded now if it was not. Only ever called on the worker's thread.

        Room is made first: two large models may not fit at once. The start model stays.
        """
        key = plain_name(name)
        with self._lock:
            lab = self._labs.get(key)
            going = [] if lab is not None or key == self.model else list(self._labs)
            for old in going:
                if old != self.model:
                    logger.info("unloading %s to make room for %s", old, key)
                    del self._labs[old]
        if lab is None:
            gc.collect()
            lab = self._loader(key, device=self._device, dtype=self._dtype)
            with self._lock:
                self._labs[key] = lab
        return lab


def plain_name(name: str) -> str:
    """One name for each model: the catalog's, where a source or a name with spaces came."""
    entry = lookup(name.strip())
    return name.strip() if entry is None else entry.name
