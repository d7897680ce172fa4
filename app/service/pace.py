"""Estimates of how long requests take, learnt from those that have run.

In: seconds of audio and of work, by settings. Out: estimates of the seconds left; None where
nothing is known yet. No Gradio.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from threading import Lock

from app.service.settings import Settings

WARMED_UP, TIMED = 0.2, 0.8  # shares of the bar at which profiling.measure has done this
TRACING = 0.25  # of what the timed runs take, where nothing is known
PRIOR_S = 20.0  # what was learnt counts as much as this many seconds of the recording in hand
LEARNING = 0.5  # weight of the newest


@dataclass
class PaceBook:
    """Seconds that a unit of work took, by what the work was."""

    _took_s: dict[Hashable, float] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, work: Hashable) -> float | None:
        """Return the seconds a unit takes; None where nothing of this kind has run."""
        return self._took_s.get(work)

    def learn(self, work: Hashable, took_s: float) -> None:
        """Remember what a unit took."""
        with self._lock:
            before = self._took_s.get(work, took_s)
            self._took_s[work] = before + LEARNING * (took_s - before)


def kind_of(settings: Settings) -> Hashable:
    """Return what decides how fast these settings are."""
    one = settings
    return (
        *(one.model, one.engine, one.decoding, one.num_beams if one.decoding == "beam" else 0),
        *(one.device, one.dtype, one.quantize),
    )


def left_s(
    done_s: float, total_s: float | None, spent_s: float, learnt: float | None
) -> float | None:
    """Estimate the seconds that the rest of a recording takes.

    Args:
        done_s: seconds of audio that are done.
        total_s: its length; None where that is unknown.
        spent_s: what they took, compiling left out.
        learnt: seconds a second of audio took before; None where nothing has run.

    Returns:
        Seconds; None where there is nothing to go by.
    """
    if total_s is None or (learnt is None and done_s <= 0):
        return None
    prior_s = 0.0 if learnt is None else PRIOR_S
    pace = (prior_s * (learnt or 0.0) + spent_s) / (prior_s + done_s)
    return max(0.0, total_s - done_s) * pace


class MeasurementEstimate:
    """The seconds left of one measurement: warming up, timed blocks, tracing.

    Args:
        book: where earlier measurements left what they took, and this one will.
        work: what is measured; equal work takes equally long.
        blocks: that are timed.
        built_s: seconds spent on compiling before.
    """

    def __init__(self, book: PaceBook, work: Hashable, blocks: int, built_s: float) -> None:
        self._book, self._work, self._blocks, self._built_s = book, work, blocks, built_s
        self._began: dict[str, float] = {}

    def left_s(self, share: float, now: float, built_s: float) -> float | None:
        """Estimate the seconds left; None while there is nothing to go by.

        Args:
            share: of the bar that is done.
            now: seconds of a monotonic clock.
            built_s: seconds spent on compiling so far.

        Returns:
            Seconds.
        """
        stage = "warm" if share < WARMED_UP else "time" if share < TIMED else "trace"
        since = now - self._began.setdefault(stage, now)
        warm, block, trace = (self._book.of((self._work, at)) for at in ("warm", "time", "trace"))
        timed = None if block is None else block * self._blocks
        if stage == "warm":
            if warm is None or timed is None or trace is None:
                return None
            return max(0.0, warm - since) + timed + trace
        if stage == "time":
            done = (share - WARMED_UP) / (TIMED - WARMED_UP)
            total = since / done if done > 0 else timed
            if total is None:
                return None
            return (1 - done) * total + (TRACING * total if trace is None else trace)
        if share >= 1:
            if since > 0:  # else it was stopped, and nothing was traced
                self._learn(since, built_s - self._built_s)
            return 0.0
        return None if trace is None else max(0.0, trace - since)

    def has_pause(self, share: float) -> bool:
        """Return whether a block still comes after the one in hand."""
        return self._blocks > 1 and share < TIMED - (TIMED - WARMED_UP) / self._blocks

    def pause_s(self, share: float, now: float) -> float | None:
        """Estimate the seconds until the block in hand ends; None before the first.

        Args:
            share: of the bar that is done.
            now: seconds of a monotonic clock.

        Returns:
            Seconds.
        """
        done = (share - WARMED_UP) / (TIMED - WARMED_UP) * self._blocks
        since = now - self._began.get("time", now)
        return None if done <= 0 or since <= 0 else (1 - done % 1) * since / done

    def _learn(self, traced_s: float, compiled_s: float) -> None:
        """Remember what the stages of a whole measurement took, compiling left out."""
        at = self._began
        took = {"trace": traced_s}
        if {"warm", "time", "trace"} <= set(at):
            took["warm"] = max(0.0, at["time"] - at["warm"] - compiled_s)
            took["time"] = (at["trace"] - at["time"]) / max(1, self._blocks)
        for stage, seconds in took.items():
            self._book.learn((self._work, stage), seconds)
