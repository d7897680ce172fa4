"""Clips of many callers -> batches of the model. No Gradio, no web framework.

In: clips, from any thread. Out: each clip's events, told to its own function on the model's thread,
all of them or the last alone, ``Finished`` or :class:`Failed`. A clip gets the text it would get
alone (``Lab.transcribe_batch`` promises it). :class:`WaitingLine` says who runs with whom; a batch
waits a few milliseconds at most, and only while another clip is on its way. While the model's
thread is busy, a second process may run what waits (:meth:`BatchingQueue.run_beside`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Condition

from app.service.batching.waiting_line import Failed, Fits, QueuedClip, QueueLimits, WaitingLine
from app.service.settings import Settings
from core import Lab, Transcript
from core.batch_process import BatchProcess, ProcessEnded, is_waveform, leaving_cores
from core.builder_process import BackgroundBuild
from core.errors import UserError
from core.transcription.options import Event, Finished, PartialText, Progress

logger = logging.getLogger(__name__)

Missing = Callable[[Settings, Sequence[float | None]], BackgroundBuild | None]
FIRST_GUESS_S = 1.0  # of a clip's time on the model, until one was measured
LEARNING = 0.2  # share of the newest batch in that estimate
OF_A_MODEL = ("model", "device", "dtype", "quantize")


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
        missing: the build that compiled stages of settings and lengths still wait for.
        report: told of every batch, on the thread that ran it.

    awaits_second: a second process has been promised and is not there yet.
    """

    awaits_second = False

    def __init__(
        self,
        submit: Callable[[Callable[[], None]], object],
        lab: Callable[[Settings], Lab],
        *,
        limits: QueueLimits | None = None,
        missing: Missing = lambda settings, lengths_s: None,
        report: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self._submit, self._lab, self._report, self._missing = submit, lab, report, missing
        self._limits = limits or QueueLimits()
        self._line = WaitingLine(self._limits)
        self._running: tuple[QueuedClip, ...] = ()  # on the model's thread
        self._beside: tuple[QueuedClip, ...] = ()  # in the second process
        self._threads_beside = 0  # of the second process, once it is there
        self._arriving = 0
        self._clip_s = FIRST_GUESS_S
        self._changed = Condition()  # guards the line, what runs and the count of arrivals

    @property
    def waiting(self) -> int:
        """Return how many clips wait."""
        with self._changed:
            return len(self._line)

    @property
    def running(self) -> int:
        """Return how many clips of callers who are still there are with the model."""
        with self._changed:
            return sum(not clip.token.cancelled() for clip in (*self._running, *self._beside))

    def check_room(self, client: str) -> None:
        """See that ``client`` may bring a clip.

        Raises:
            QueueFull: all places, or all of this client's, are taken.
        """
        with self._changed:
            self._line.check_room(client, self._clip_s)

    def put(self, clip: QueuedClip, read: Callable[[QueuedClip], None] = lambda clip: None) -> None:
        """Read a clip and have it wait for its turn; a batch waits a little for one being read.

        Args:
            clip: what waits.
            read: sets its source, on this thread.

        Raises:
            QueueFull: there is no place for it.
        """
        with self._changed:
            self._arriving += 1
        arrived = False
        try:
            read(clip)
            arrived = True
        finally:
            # It arrives before its own turn can begin: that would wait for itself.
            with self._changed:
                self._arriving -= 1
                self._changed.notify_all()
                if arrived:
                    self._line.check_room(clip.client, self._clip_s)
                    clip.since = time.monotonic()
                    self._line.put(clip)
        # One turn a clip: a turn that finds nothing left does nothing, so none can be forgotten.
        self._submit(self._turn)

    def waiting_settings(self) -> set[Settings]:
        """Return what those who wait ask for."""
        with self._changed:
            return self._line.settings()

    def cancel(self, clip: QueuedClip) -> None:
        """Forget a clip: its place is free at once; the model stops at its next step.

        Where others share its batch, their texts are finished first.
        """
        clip.token.cancel()
        with self._changed:
            self._line.drop(clip)

    def _turn(self) -> None:
        """On the model's thread: run the next batch, if anything waits."""
        with self._changed:
            lead = self._line.take_lead()
        if lead is None:
            return
        batch = [lead]
        try:
            lab = self._lab(lead.settings)
            longest_s = min(lab.model_info.reliable_s, lab.max_audio_s)
            if lead.is_within(longest_s):
                batch += self._riders(lead, longest_s)
            _sort(batch)
            begin = time.monotonic()
            with self._sharing_cores(batch):
                transcripts = self._run(lab, batch)
        except BaseException as error:  # whatever it is belongs to the callers, not to this thread
            for clip in batch:
                _tell(clip, Failed(error))
            return
        self._count(batch, begin, transcripts)

    def run_beside(self, process: BatchProcess, settings: Settings, longest_s: float) -> None:
        """Run what waits while the model's thread is busy, on a thread of the caller's.

        A batch that fails over there runs again here, where its callers get the reason.

        Args:
            process: where to run; this returns once it has ended.
            settings: those of the model it holds; other models and compiled stages run here.
            longest_s: what one pass of the model takes.
        """
        batch: list[QueuedClip] = []
        try:
            process.wait_until_loaded()
            self._threads_beside, self.awaits_second = process.threads, False
            while True:
                batch = self._next_beside(partial(_fits_beside, settings, longest_s), longest_s)
                begin = time.monotonic()
                sources, options = [clip.source for clip in batch], batch[0].settings.options()
                transcripts = process.run(sources, options, partial(all_cancelled, batch))
                if transcripts is None:
                    self._return(batch)
                    continue
                self._count(batch, begin, transcripts)
                for index, (clip, done) in enumerate(zip(batch, transcripts, strict=True)):
                    _tell(clip, Finished(index, done))
                self._beside = ()
        except ProcessEnded:
            logger.warning("the second process has ended; all batches run in this one")
            self._return(batch)
        finally:
            self._threads_beside, self.awaits_second = 0, False

    def _next_beside(self, fits: Fits, longest_s: float) -> list[QueuedClip]:
        """Wait for a batch that the model's thread has no time for, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._running and self._line.lead(fits) is not None)
            lead = self._line.take_lead(fits)
            assert lead is not None
            batch = [lead, *self._line.take_riders(lead, longest_s, fits)]
            self._beside = tuple(batch)
        _sort(batch)
        return batch

    def _return(self, batch: Sequence[QueuedClip]) -> None:
        """Have clips that another process took wait for the model's thread again."""
        with self._changed:
            self._beside = ()
            for clip in batch:
                clip.here = True
                self._line.put(clip)
        for _ in batch:
            self._submit(self._turn)

    @contextmanager
    def _sharing_cores(self, batch: Sequence[QueuedClip]) -> Iterator[None]:
        """Mark clips as running; leave the second process its cores where it has work."""
        with self._changed:
            self._running = tuple(batch)
            busy = len(self._line) > 0 or len(self._beside) > 0
            self._changed.notify_all()
        try:
            with leaving_cores(self._threads_beside if busy else 0):
                yield
        finally:
            with self._changed:
                self._running = ()

    def _count(
        self, batch: Sequence[QueuedClip], begin: float, transcripts: Sequence[Transcript]
    ) -> None:
        """Learn from a batch that is over, and report it."""
        each_s = (time.monotonic() - begin) / len(batch)
        with self._changed:
            self._clip_s += LEARNING * (each_s - self._clip_s)
        waits_s = tuple(begin - clip.since for clip in batch)
        self._report(BatchReport(waits_s, tuple(transcripts)))

    def _riders(self, lead: QueuedClip, longest_s: float) -> list[QueuedClip]:
        """Take the clips that run with ``lead``; wait for some where some are on their way."""

        def is_full() -> bool:
            return len(self._line.riders(lead, longest_s)) >= self._limits.batch - 1

        with self._changed:
            self._changed.wait_for(lambda: not self._arriving or is_full(), self._limits.wait_s)
            return self._line.take_riders(lead, longest_s)

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
        if all_cancelled(batch):
            return ()
        options = batch[0].settings.options()
        build = self._missing(batch[0].settings, [clip.seconds for clip in batch])
        if build is not None:
            options["engine"] = "eager"
        if batch[0].stream:
            options["batch_size"] = 1  # spans of a long recording in order, so that text only grows
        done = []
        events = lab.stream_batch(
            [clip.source for clip in batch],
            cancelled=partial(all_cancelled, batch),
            **options,
        )
        for event in events:
            if isinstance(event, Finished):
                if build is not None:
                    event = Finished(event.index, event.transcript.warned(build.note()))
                done.append(event.transcript)
            if isinstance(event, Finished | PartialText | Progress):
                _tell(batch[event.index], event)
            else:  # a phase is the whole batch's
                for clip in batch:
                    _tell(clip, event)
        return tuple(done)


def all_cancelled(batch: Sequence[QueuedClip]) -> bool:
    """Return whether nobody waits for any of these clips."""
    return all(clip.token.cancelled() for clip in batch)


def _fits_beside(settings: Settings, longest_s: float, clip: QueuedClip) -> bool:
    """Return whether a process that holds the model of ``settings`` can run a clip."""
    mine = clip.settings
    return (
        not (clip.here or clip.stream or mine.adapter)
        and is_waveform(clip.source)
        and clip.is_within(longest_s)
        and mine.engine == "eager"
        and all(getattr(mine, name) == getattr(settings, name) for name in OF_A_MODEL)
    )


def _sort(batch: list[QueuedClip]) -> None:
    """Put equal lengths side by side: the encoder takes a large batch in groups of rows."""
    batch.sort(key=lambda clip: clip.length_s)


def _tell(clip: QueuedClip, event: Event | Failed) -> None:
    if clip.token.cancelled() or not (clip.stream or isinstance(event, Finished | Failed)):
        return  # each event wakes the caller's thread, which costs the model's its turn
    try:
        clip.tell(event)
    except Exception:  # nobody is there any more to be told
        logger.exception("a caller could not be told; its clip is cancelled")
        clip.token.cancel()
