"""A transcription that outlives the page that asked for it.

In: updates from the model's thread. Out: the newest of each kind, to any number of pages, from any
moment on. A page that reads slowly misses old partial texts, never the end. A job that nobody
watches any more ends after a grace period, long enough for a page to be loaded again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from threading import Condition, Lock

from app.service.updates import CancelledBeforeStart, QueuePlace, RequestResult, Update
from app.service.worker import LOOK_EVERY_S, CancelToken

GRACE_S = 60.0  # a reload takes a few seconds, on a bad line a few more
KEPT_S = 3600.0  # as long as uploads are kept
MOST_KEPT = 64


class TranscriptionJob:
    """One transcription. id: whoever knows it may watch, so it cannot be guessed.

    recording, engine and reference: for a page that is loaded again; whoever began it may set them.
    place: says where it waits; None once it runs.
    """

    def __init__(self, token: CancelToken, *, grace_s: float = GRACE_S) -> None:
        self.id = secrets.token_urlsafe(24)
        self.token = token
        self.recording = ""
        self.engine = "eager"
        self.reference = ""
        self.ended_at: float | None = None
        self._grace_s = grace_s
        self._watchers: set[str] = set()
        self._left_at: float | None = None
        self._latest: dict[type, tuple[int, Update]] = {}
        self._number = 0
        self._error: BaseException | None = None
        self._changed = Condition()
        self.place: Callable[[], QueuePlace | None] = lambda: None

    def fill(self, work: Callable[[], Iterator[Update]]) -> None:
        """Take the updates of ``work()``, and its exception, on the model's thread."""
        try:
            if not self.cancelled():
                for update in work():
                    self._put(update)
        except BaseException as error:  # whatever it is belongs to who watches, not to this thread
            self._error = error
        with self._changed:
            self.ended_at = time.monotonic()
            self._changed.notify_all()

    def cancelled(self) -> bool:
        """Return whether to end at the next step: it was stopped, or everybody has long left."""
        left = self._left_at
        return self.token.cancelled() or (
            left is not None and time.monotonic() - left > self._grace_s
        )

    def join(self, session: str) -> None:
        """Count ``session`` among those who watch."""
        with self._changed:
            self._watchers.add(session)
            self._left_at = None

    def leave(self, session: str) -> None:
        """Stop counting ``session``; the last to leave starts the grace period."""
        with self._changed:
            self._watchers.discard(session)
            if not self._watchers:
                self._left_at = self._left_at or time.monotonic()

    def watch(self) -> Iterator[Update]:
        """Yield the newest update of each kind, then more as they come.

        Yields:
            Updates; :class:`CancelledBeforeStart` where there was none.

        Raises:
            BaseException: what the work raised.
        """
        seen, stood = 0, None
        while True:
            fresh, ended = self._news(seen)
            if not fresh and not ended:
                place = self.place()
                if place is not None and place != stood:
                    yield (stood := place)
                continue
            for number, update in fresh:
                seen = number
                yield update
            if ended and not fresh:
                break
        if self._error is not None:
            raise self._error
        if RequestResult not in self._latest:
            yield CancelledBeforeStart()

    def _news(self, seen: int) -> tuple[list[tuple[int, Update]], bool]:
        """Wait for what came after number ``seen``; also says whether it was the last.

        Returns:
            What came, and whether nothing follows. While it waits its turn nothing may have come.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._number > seen or self.ended_at is not None,
                timeout=LOOK_EVERY_S if self._number == 0 else None,
            )
            fresh = [(number, update) for number, update in self._latest.values() if number > seen]
            return sorted(fresh, key=lambda item: item[0]), self.ended_at is not None

    def _put(self, update: Update) -> None:
        with self._changed:
            self._number += 1
            self._latest[type(update)] = (self._number, update)
            self._changed.notify_all()


class JobRegistry:
    """Jobs by id, the finished ones for an hour."""

    def __init__(self) -> None:
        self._jobs: dict[str, TranscriptionJob] = {}
        self._lock = Lock()

    def add(self, job: TranscriptionJob) -> None:
        """Remember a job; forget those that ended long ago, or too many ago."""
        now = time.monotonic()
        with self._lock:
            ended = [r for r in self._jobs.values() if r.ended_at is not None]
            old = [r for r in ended if now - (r.ended_at or now) > KEPT_S]
            for gone in {*old, *ended[: max(0, len(ended) - MOST_KEPT)]}:
                del self._jobs[gone.id]
            self._jobs[job.id] = job

    def get(self, job_id: str) -> TranscriptionJob | None:
        """Return the job, if it is known."""
        with self._lock:
            return self._jobs.get(job_id)

    def of(self, token: CancelToken) -> TranscriptionJob | None:
        """Return the job that this token cancels."""
        with self._lock:
            return next((job for job in self._jobs.values() if job.token is token), None)
