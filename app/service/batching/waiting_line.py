"""Who is next: clips that wait, fair between clients. Plain data, no threads.

In: clips as they come. Out: the clip that leads a batch, and those that ride along. Clients take
turns: the oldest clip of the client that has waited longest leads; riders are like it, one a client
before a second of anybody's.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.service.settings import Settings
from app.service.worker import CancelToken
from core.errors import UserError
from core.transcription.options import Event


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

    wait_s: how long a batch waits for clips that are on their way.
    """

    places: int = 64
    per_client: int = 48
    batch: int = 8
    batch_s: float = 240.0
    wait_s: float = 0.005


@dataclass(eq=False, kw_only=True)
class QueuedClip:
    """One recording that waits.

    Args:
        client: whose turn it counts as.
        settings: how to transcribe; clips ride together where these are equal.
        tell: gets its events, on the model's thread, and returns at once.
        source: a waveform [N] at 16 kHz, or a binary file.
        seconds: its length; None where it is unknown.
        stream: tell every event, with partial texts that only ever grow; else the last alone.
    here: run in this process, whatever others there are.
    """

    client: str
    settings: Settings
    tell: Callable[[Event | Failed], None]
    source: Any = None
    seconds: float | None = None
    stream: bool = False
    here: bool = False
    token: CancelToken = field(default_factory=CancelToken)
    since: float = field(default_factory=time.monotonic)

    @property
    def length_s(self) -> float:
        """Its length; 0 where it is unknown."""
        return self.seconds or 0.0

    def is_within(self, longest_s: float) -> bool:
        """Return whether one pass of the model takes it."""
        return self.seconds is not None and self.seconds <= longest_s

    def rides_with(self, lead: QueuedClip) -> bool:
        """Return whether both may run as one batch: padding a far shorter one costs time."""
        low, high = sorted((self.length_s, lead.length_s))
        return self.settings == lead.settings and high <= 2 * low + 1


Fits = Callable[[QueuedClip], bool]


def anything(clip: QueuedClip) -> bool:
    """Take any clip."""
    return True


class WaitingLine:
    """Clips by client; clients in the order of their turns."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._clips: dict[str, deque[QueuedClip]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._clips.values()))

    def settings(self) -> set[Settings]:
        """Return the settings of all that wait."""
        return {clip.settings for clips in self._clips.values() for clip in clips}

    def check_room(self, client: str, clip_s: float) -> None:
        """See that there is a place for ``client``; a clip takes ``clip_s`` of the model's time.

        Raises:
            QueueFull: all places, or all of this client's, are taken.
        """
        mine, total = len(self._clips.get(client, ())), len(self)
        if total < self._limits.places and mine < self._limits.per_client:
            return
        those = f"{total} recordings" if total >= self._limits.places else f"{mine} of yours"
        later = min(60, max(1, math.ceil(total * clip_s)))
        raise QueueFull(f"{those} wait already; try again in {later} s", later)

    def put(self, clip: QueuedClip) -> None:
        """Have a clip wait behind its client's others."""
        self._clips.setdefault(clip.client, deque()).append(clip)

    def drop(self, clip: QueuedClip) -> None:
        """Forget a clip, if it still waits."""
        clips = self._clips.get(clip.client)
        if clips is not None and clip in clips:
            clips.remove(clip)
            if not clips:
                del self._clips[clip.client]

    def lead(self, fits: Fits = anything) -> QueuedClip | None:
        """Return the first clip, in the clients' order, that ``fits``; None where there is none."""
        return next((clips[0] for clips in self._clips.values() if fits(clips[0])), None)

    def take_lead(self, fits: Fits = anything) -> QueuedClip | None:
        """Take out the clip that :meth:`lead` returns."""
        clip = self.lead(fits)
        return None if clip is None else self._take(clip)

    def riders(self, lead: QueuedClip, longest_s: float, fits: Fits = anything) -> list[QueuedClip]:
        """Return the clips that may run with ``lead`` in one pass, in the order of taking them."""
        fitting = [
            clip
            for clips in self._clips.values()
            for clip in clips
            if clip.is_within(longest_s) and clip.rides_with(lead) and fits(clip)
        ]
        fitting.sort(key=lambda clip: abs(clip.length_s - lead.length_s))
        taken, rounds = Counter([lead.client]), dict[QueuedClip, int]()
        for clip in fitting:
            rounds[clip] = taken[clip.client]
            taken[clip.client] += 1
        return sorted(fitting, key=rounds.__getitem__)  # stable: the likest of a round first

    def take_riders(
        self, lead: QueuedClip, longest_s: float, fits: Fits = anything
    ) -> list[QueuedClip]:
        """Take out as many of :meth:`riders` as a batch holds."""
        taken: list[QueuedClip] = []
        longest = lead.length_s
        for clip in self.riders(lead, longest_s, fits):
            size, longest = len(taken) + 2, max(longest, clip.length_s)
            if size > self._limits.batch or size * longest > self._limits.batch_s:
                break
            taken.append(self._take(clip))
        return taken

    def _take(self, clip: QueuedClip) -> QueuedClip:
        """Take a clip out and send its client to the end of the line."""
        self.drop(clip)
        rest = self._clips.pop(clip.client, None)
        if rest is not None:
            self._clips[clip.client] = rest
        return clip
