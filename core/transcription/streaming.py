"""Text while somebody speaks: what to transcribe next, and what the text is by now.

In: blocks of a microphone, and a way to transcribe a waveform. Out: certain words, tentative words,
and how far behind the speech they are. Speech is cut at pauses; a stretch that is over is
transcribed once more and then stays; the open one is transcribed again and again, unless older
stretches still wait. Nothing is dropped when the model is slow: the text falls behind, and says by
how much.

:meth:`Live.push` may be called from any thread at any time and takes microseconds;
:meth:`Live.step` does the work, one piece at a time, on one thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.audio.microphone import Microphone
from core.audio.segmentation import SpeechSegment
from core.errors import UserError
from core.text.transcript import Segment, Transcript, Word
from core.transcription.stable_words import Agreement

STEP_S = 0.5  # new sound that is worth another pass over the open stretch
LONGEST_S = 8.0  # the longest stretch: what is transcribed again must stay short
MAX_LIVE_S = 600.0


@dataclass(frozen=True)
class LiveState:
    """A moment. Times in seconds.

    heard_s: sound that came. covered_s: sound whose words are in the text. worst_s: the furthest
    the text was behind so far. working_s: time the model took. done: nothing more will change.
    """

    committed: tuple[Word, ...]
    tentative: tuple[Word, ...]
    heard_s: float
    covered_s: float
    worst_s: float
    working_s: float
    num_passes: int
    done: bool

    @property
    def behind_s(self) -> float:
        """Return how much of what was heard is not in the text yet."""
        return max(0.0, self.heard_s - self.covered_s)

    @property
    def rtf(self) -> float | None:
        """Return the time the model took over time heard; below 1 keeps up."""
        return self.working_s / self.heard_s if self.heard_s > 0 else None


class Live:
    """One recording while it is spoken.

    Args:
        reliable_s: how long a recording one pass of the model is trusted with.
        microphone: cuts the sound; one of its own by default.
    """

    def __init__(self, *, reliable_s: float, microphone: Microphone | None = None) -> None:
        longest_s = max(1.0, min(LONGEST_S, reliable_s - 0.5))
        self._microphone = microphone or Microphone(longest_s=longest_s)
        self._blocks: deque[tuple[NDArray[Any], int]] = deque()
        self._waiting: deque[SpeechSegment] = deque()  # over, not transcribed yet
        self._speech = Agreement()
        self._finished: list[Segment] = []
        self._words: list[Word] = []
        self._last: Transcript | None = None
        self._taken_s = 0.0  # how far the sound is cut
        self._read_s = 0.0  # how far the last pass read
        self._ended = self._flushed = False
        self._state = LiveState((), (), 0.0, 0.0, 0.0, 0.0, 0, False)
        self._came_s = 0.0
        self._lock = Lock()  # guards _blocks, _came_s, _ended and _state

    def push(self, samples: NDArray[Any], rate: int) -> bool:
        """Take the next block of the microphone.

        Returns:
            Whether there is enough for a step.

        Raises:
            UserError: more than :data:`MAX_LIVE_S` came, or the recording has ended.
        """
        with self._lock:
            if self._ended:
                raise UserError("the recording has ended; start a new one")
            if self._came_s >= MAX_LIVE_S:
                raise UserError(
                    f"live text ends after {MAX_LIVE_S / 60:.0f} minutes; stop, and start again"
                )
            self._blocks.append((samples, rate))
            self._came_s += len(samples) / rate
        return self.is_due()

    def end(self) -> None:
        """Note that no more blocks will come."""
        with self._lock:
            self._ended = True

    def is_due(self) -> bool:
        """Return whether :meth:`step` has something to do."""
        with self._lock:
            if self._state.done:
                return False
            fresh = self._came_s - self._taken_s
            return self._ended or bool(self._waiting) or fresh >= STEP_S

    def state(self) -> LiveState:
        """Return the text by now."""
        with self._lock:
            behind = max(self._state.worst_s, self._came_s - self._state.covered_s)
            return replace(self._state, heard_s=self._came_s, worst_s=behind)

    def step(self, transcribe: Callable[[Tensor], Transcript]) -> None:
        """Take in what came, and transcribe one stretch: the oldest that is over, or the open one.

        Args:
            transcribe: a waveform [N] at 16 kHz -> its transcript.
        """
        begin = time.perf_counter()
        ended = self._take_in()
        span = self._waiting[0] if self._waiting else self._microphone.open_span
        if span is not None:
            self._last = transcribe(span.waveform)
            words = [_moved(word, span.start_s) for word in self._last.words]
            if self._waiting:
                self._speech.close(words)
                self._settle(self._waiting.popleft())
            else:
                self._speech.update(words, span.end_s)
            self._read_s = span.end_s
        self._tell(time.perf_counter() - begin, 0 if span is None else 1, ended)

    def transcript(self) -> Transcript | None:
        """Join everything said so far; its cost is that of all passes.

        Returns:
            One transcript without token ids, for passes overlap; None before the first pass.
        """
        state = self.state()
        if self._last is None:
            return None
        words = (*state.committed, *state.tentative)
        return replace(
            self._last,
            text=" ".join(word.text for word in words),
            segments=tuple(self._finished),
            words=words,
            token_ids=(),
            audio_s=state.heard_s,
            phases=(),
            end_to_end_ms=1000 * state.working_s,
            rtf=state.rtf or 0.0,
            time_to_first_token_ms=None,
            new_tokens=0,
            new_tokens_per_s=None,
            draft=None,
            warnings=(),
        )

    def recording(self) -> NDArray[np.int16]:
        """Return everything heard, [N] at 16 kHz."""
        return self._microphone.recording()

    def _take_in(self) -> bool:
        """Cut what came; returns whether it was the last."""
        with self._lock:
            blocks, ended = list(self._blocks), self._ended
            self._blocks.clear()
            self._taken_s = self._came_s
        for samples, rate in blocks:
            self._waiting += self._microphone.push(samples, rate)
        if ended and not self._flushed:
            self._waiting += self._microphone.finish()
            self._flushed = True
        return ended

    def _settle(self, span: SpeechSegment) -> None:
        """The words of a stretch that is over, as they will stay."""
        words, self._speech = self._speech.committed, Agreement()
        if words:
            text = " ".join(word.text for word in words)
            sure = [word.confidence for word in words if word.confidence is not None]
            mean = sum(sure) / len(sure) if sure else None
            self._finished.append(Segment(span.start_s, span.end_s, text, mean))
            self._words += words

    def _tell(self, spent_s: float, passes: int, ended: bool) -> None:
        unread = self._waiting[0] if self._waiting else self._microphone.open_span
        covered_s = self._taken_s if unread is None else max(unread.start_s, self._read_s)
        before = self._state
        with self._lock:
            self._state = LiveState(
                committed=(*self._words, *self._speech.committed),
                tentative=tuple(self._speech.tentative),
                heard_s=self._came_s,
                covered_s=covered_s,
                # Just before this step's text was told, the text was as old as the last one.
                worst_s=max(before.worst_s, self._came_s - before.covered_s),
                working_s=before.working_s + spent_s,
                num_passes=before.num_passes + passes,
                done=ended and not self._waiting,
            )


def _moved(word: Word, by_s: float) -> Word:
    if word.start is None or word.end is None:
        return word
    return replace(word, start=word.start + by_s, end=word.end + by_s)
