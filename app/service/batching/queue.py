"""Clips of many callers -> batches of the model. No Gradio, no web framework.

In: clips, from any thread. Out: each clip's events, told to its own function on the model's thread,
all of them or the last alone, ``Finished`` or :class:`Failed`. A clip gets the text it would get
alone (``Lab.transcribe_batch`` promises it). :class:`WaitingLine` says who runs with whom; a batch
waits a few milliseconds at most, and only while another clip is on its way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition

from app.service.batching.waiting_line import Failed, QueuedClip, QueueLimits, WaitingLine
from app.service.settings import Settings
from core import Lab, Transcript
from core.builder_process import BackgroundBuild
from core.errors import UserError
from core.transcription.options import Event, Finished, PartialText, Progress

logger = logging.getLogger(__name__)

Missing = Callable[[Settings, Sequence[float | None]], BackgroundBuild | None]
FIRST_GUESS_S = 1.0  # of a clip's time on the model, until one was measured
LEARNING = 0.2  # share of the newest batch in that estimate


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
        report: told of every batch, on the model's thread.
    """

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
        self._running: tuple[QueuedClip, ...] = ()
        self._arriving = 0
        self._clip_s = FIRST_GUESS_S
        self._changed = Condition()  # guards the line and the count of arrivals

    @property
    def waiting(self) -> int:
        """Return how many clips wait."""
        with self._changed:
            return len(self._line)

    @property
    def running(self) -> int:
        """Return how many clips of callers who are still there are with the model."""
        return sum(not clip.token.cancelled() for clip in self._running)

    def check_room(self, client: str) -> None:
        """See that ``client`` may bring a clip.

        Raises:
            QueueFull: all places, or all of this client's, are taken.
        """
        with self._changed:
            self._line.check_room(client, self._clip_s)

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
            self._line.check_room(clip.client, self._clip_s)
            clip.since = time.monotonic()
            self._line.put(clip)
            self._changed.notify_all()
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
            # Equal lengths side by side: the encoder takes a large batch in groups of rows.
            batch.sort(key=lambda clip: clip.length_s)
            begin, self._running = time.monotonic(), tuple(batch)
            transcripts = self._run(lab, batch)
        except BaseException as error:  # whatever it is belongs to the callers, not to this thread
            for clip in batch:
                _tell(clip, Failed(error))
            return
        finally:
            self._running = ()
        self._clip_s += LEARNING * ((time.monotonic() - begin) / len(batch) - self._clip_s)
        self._report(BatchReport(tuple(begin - clip.since for clip in batch), transcripts))

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
        if all(clip.token.cancelled() for clip in batch):
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
            cancelled=lambda: all(clip.token.cancelled() for clip in batch),
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


def _tell(clip: QueuedClip, event: Event | Failed) -> None:
    if clip.token.cancelled() or not (clip.stream or isinstance(event, Finished | Failed)):
        return  # each event wakes the caller's thread, which costs the model's its turn
    try:
        clip.tell(event)
    except Exception:  # nobody is there any more to be told
        logger.exception("a caller could not be told; its clip is cancelled")
        clip.token.cancel()
