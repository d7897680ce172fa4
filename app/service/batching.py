"""Clips that wait for the model -> batches, fair between clients. No Gradio, no web framework.

In: clips of many callers, from any thread. Out: each clip's events, told to its own function on the
model's thread; the last is ``Finished`` or :class:`Failed`. A clip gets the text it would get alone
(``Lab.transcribe_batch`` promises it). Clients take turns: the oldest clip of the client that has
waited longest leads a batch, and clips that fit it ride along, one a client before a second of
anybody's. A batch waits a few milliseconds at most, and only while another clip is on its way.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

from app.service.settings import Settings
from app.service.worker import CancelToken
from core import Lab, Transcript
from core.errors import UserError
from core.transcription.options import Event, Finished, PartialText, Progress

logger = logging.getLogger(__name__)

FIRST_GUESS_S = 1.0  # of a clip's time on the model, until one was measured


@dataclass(frozen=True)
class Failed:
    """The last event of a clip that could not be transcribed."""

    error: BaseException


class QueueFull(UserError):
    """No place is free. retry_after_s: when one may be."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """Bounds. per_client: places of one client; batch_s: seconds of a batch, padding counted.

    wait_s: how long a batch waits for clips that are on their way. A rider is between half and
    twice as long as the clip that leads, give or take a second, for padding costs time.
    """

    places: int = 64
    per_client: int = 48
    batch: int = 8
    batch_s: float = 240.0
    wait_s: float = 0.005


@dataclass(eq=False, kw_only=True)
class QueuedClip:
    """One recording that waits. tell: gets its events, on the model's thread, and returns at once.

    Args:
        client: whose turn it counts as.
        source: a waveform [N] at 16 kHz, or a binary file.
        seconds: its length; None where it is unknown.
        settings: how to transcribe; clips ride together where these are equal.
        stream: also tell partial texts, which then only ever grow.
    """

    client: str
    source: Any
    seconds: float | None
    settings: Settings
    tell: Callable[[Event | Failed], None]
    stream: bool = False
    job: CancelToken = field(default_factory=CancelToken)
    since: float = field(default_factory=time.monotonic)

    def fits(self, lead: QueuedClip, longest_s: float) -> bool:
        """Return whether this clip may ride with ``lead``."""
        if self.settings != lead.settings or self.seconds is None or self.seconds > longest_s:
            return False
        low, high = sorted((self.seconds, lead.seconds or 0.0))
        return high <= 2 * low + 1


@dataclass(frozen=True)
class BatchReport:
    """One batch that is over: how long each clip waited, and the transcripts there are."""

    waits_s: tuple[float, ...]
    transcripts: tuple[Transcript, ...]


class BatchingQueue:
    """Places for clips, and the turns in which they run.

    Args:
        submit: runs a function on the model's thread, in its turn (``Worker.submit``).
        lab: the model of some settings, loaded if need be (``TranscriptionService.lab``).
        limits: the bounds.
        report: told of every batch, on the model's thread.
    """

    def __init__(
        self,
        submit: Callable[[Callable[[], None]], None],
        lab: Callable[[Settings], Lab],
        *,
        limits: QueueLimits | None = None,
        report: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self.limits = limits or QueueLimits()
        self._submit, self._lab, self._report = submit, lab, report
        self._waiting: dict[str, deque[QueuedClip]] = {}  # clients in the order of their turns
        self._running: tuple[QueuedClip, ...] = ()
        self._arriving = 0
        self._clip_s = FIRST_GUESS_S
        self._changed = Condition()

    @property
    def waiting(self) -> int:
        """How many clips wait."""
        with self._changed:
            return self._count()

    @property
    def running(self) -> int:
        """How many clips of callers who are still there are with the model."""
        return sum(not clip.job.cancelled() for clip in self._running)

    def check_room(self, client: str) -> None:
        """See that ``client`` may bring a clip.

        Raises:
            QueueFull: all places, or all of this client's, are taken.
        """
        with self._changed:
            self._check_room(client)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Announce a clip that is being read: a batch waits for it a little."""
        with self._changed:
            self._arriving += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving -= 1
                self._changed.notify_all()

    def put(self, clip: QueuedClip) -> None:
        """Have a clip wait for its turn.

        Raises:
            QueueFull: there is no place for it.
        """
        with self._changed:
            self._check_room(clip.client)
            self._waiting.setdefault(clip.client, deque()).append(clip)
            self._changed.notify_all()
        # One turn a clip: a turn that finds nothing left does nothing, so none can be forgotten.
        self._submit(self._turn)

    def cancel(self, clip: QueuedClip) -> None:
        """Forget a clip: its place is free at once; the model stops at its next step.

        Where others share its batch, their texts are finished first.
        """
        clip.job.cancel()
        with self._changed:
            self._drop(clip)

    def _check_room(self, client: str) -> None:
        mine, total = len(self._waiting.get(client, ())), self._count()
        if total >= self.limits.places or mine >= self.limits.per_client:
            whose = "" if total >= self.limits.places else " of yours"
            later = min(60, max(1, math.ceil(total * self._clip_s)))
            raise QueueFull(
                f"{mine if whose else total} recordings{whose} wait already; "
                f"try again in {later} s",
                later,
            )

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _drop(self, clip: QueuedClip) -> None:
        clips = self._waiting.get(clip.client)
        if clips is not None and clip in clips:
            clips.remove(clip)
            if not clips:
                del self._waiting[clip.client]

    def _turn(self) -> None:
        """On the model's thread: run the next batch, if anything waits."""
        with self._changed:
            client = next(iter(self._waiting), None)
            if client is None:
                return
            lead = self._waiting[client][0]
            self._serve(lead)
        batch = [lead]
        begin = time.monotonic()
        try:
            lab = self._lab(lead.settings)
            longest_s = min(lab.model_info.reliable_s, lab.max_audio_s)
            if lead.seconds is not None and lead.seconds <= longest_s:
                batch += self._riders(lead, longest_s)
            # Equal lengths side by side: the encoder takes a large batch in groups of rows.
            batch.sort(key=lambda clip: clip.seconds or 0.0)
            begin, self._running = time.monotonic(), tuple(batch)
            transcripts = self._run(lab, batch)
        except BaseException as error:  # whatever it is belongs to the callers, not to this thread
            for clip in batch:
                _tell(clip, Failed(error))
            return
        finally:
            self._running = ()
        spent = time.monotonic() - begin
        self._clip_s += 0.2 * (spent / len(batch) - self._clip_s)
        self._report(BatchReport(tuple(begin - clip.since for clip in batch), transcripts))

    def _serve(self, clip: QueuedClip) -> None:
        """Take a clip out and send its client to the end of the line."""
        self._drop(clip)
        rest = self._waiting.pop(clip.client, None)
        if rest is not None:
            self._waiting[clip.client] = rest

    def _riders(self, lead: QueuedClip, longest_s: float) -> list[QueuedClip]:
        """Take the clips that run with ``lead``; wait for some where some are on their way."""
        limits = self.limits

        def fitting() -> list[QueuedClip]:
            return [
                clip
                for clips in self._waiting.values()
                for clip in clips
                if clip.fits(lead, longest_s)
            ]

        def near(clip: QueuedClip) -> float:
            return abs((clip.seconds or 0.0) - (lead.seconds or 0.0))

        riders: list[QueuedClip] = []
        with self._changed:
            self._changed.wait_for(
                lambda: not self._arriving or len(fitting()) >= limits.batch - 1, limits.wait_s
            )
            taken, rounds = Counter([lead.client]), dict[QueuedClip, int]()
            for clip in sorted(fitting(), key=near):
                rounds[clip] = taken[clip.client]
                taken[clip.client] += 1
            longest = lead.seconds or 0.0
            for clip in sorted(rounds, key=lambda clip: rounds[clip]):  # stable: near ones first
                longest = max(longest, clip.seconds or 0.0)
                if len(riders) + 2 > limits.batch or (len(riders) + 2) * longest > limits.batch_s:
                    break
                riders.append(clip)
                self._serve(clip)
        return riders

    def _run(self, lab: Lab, batch: Sequence[QueuedClip]) -> tuple[Transcript, ...]:
        """Transcribe a batch; where it fails for a caller's mistake, each of its clips alone."""
        try:
            return self._transcribe(lab, batch)
        except UserError as error:
            if len(batch) == 1:
                _tell(batch[0], Failed(error))
                return ()
            logger.info("a batch of %d failed (%s); each clip runs alone", len(batch), error)
            return tuple(done for clip in batch for done in self._run(lab, [clip]))

    def _transcribe(self, lab: Lab, batch: Sequence[QueuedClip]) -> tuple[Transcript, ...]:
        if all(clip.job.cancelled() for clip in batch):
            return ()
        options = batch[0].settings.options()
        if batch[0].stream:
            options["batch_size"] = 1  # spans of a long recording in order, so that text only grows
        done = []
        events = lab.stream_batch(
            [clip.source for clip in batch],
            cancelled=lambda: all(clip.job.cancelled() for clip in batch),
            **options,
        )
        for event in events:
            if isinstance(event, Finished):
                done.append(event.transcript)
            if isinstance(event, Finished | PartialText | Progress):
                _tell(batch[event.index], event)
            else:  # a phase is the whole batch's
                for clip in batch:
                    _tell(clip, event)
        return tuple(done)


def _tell(clip: QueuedClip, event: Event | Failed) -> None:
    if clip.job.cancelled() or (isinstance(event, PartialText) and not clip.stream):
        return
    try:
        clip.tell(event)
    except Exception:  # nobody is there any more to be told
        logger.exception("a caller could not be told; its clip is cancelled")
        clip.job.cancel()
