"""Progress of a bulk run: done, left, RTFx, failures, and the time of the end.

In: workers' events. Out: one line. Speed is that of this run alone; the time of the end follows
from the work that is left, a fixed cost for every recording included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from core.bulk.job import BatchDone, ShardBegun, ShardLost, WorkerEvent
from core.bulk.plan import FILE_S, Plan

SMOOTHED_FROM_S = 5.0  # before that no time of the end is given


class RunProgress:
    """Counts of one run.

    Args:
        plan: what there is to do.
        done: shards that earlier runs finished.
        clock: seconds that only grow.
    """

    def __init__(
        self, plan: Plan, done: set[int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan, self._clock, self._begin = plan, clock, clock()
        self._first: float | None = None  # when the first shard was begun, the model loaded
        self.files_before = sum(plan.shards[number].num_files for number in done)
        self._planned_before_s = sum(plan.shards[number].seconds for number in done)
        self._shards: dict[int, tuple[int, float, int]] = {}
        self.num_lost = 0

    def add(self, event: WorkerEvent) -> None:
        """Count an event."""
        if self._first is None:
            self._first = self._clock()
        if isinstance(event, ShardBegun):
            self._shards[event.number] = (0, 0.0, 0)
        elif isinstance(event, BatchDone):
            files, seconds, failed = self._shards.get(event.number, (0, 0.0, 0))
            self._shards[event.number] = (
                files + event.num_files,
                seconds + event.seconds,
                failed + event.num_failed,
            )
        elif isinstance(event, ShardLost):
            self._shards.pop(event.number, None)
            self.num_lost += 1

    @property
    def files(self) -> int:
        """Return how many recordings this run transcribed."""
        return sum(files for files, _, _ in self._shards.values())

    @property
    def seconds(self) -> float:
        """Return how much sound this run transcribed."""
        return sum(seconds for _, seconds, _ in self._shards.values())

    @property
    def failed(self) -> int:
        """Return how many recordings failed in this run."""
        return sum(failed for _, _, failed in self._shards.values())

    @property
    def elapsed_s(self) -> float:
        """Return the time since the run began, loading of the model included."""
        return self._clock() - self._begin

    def line(self) -> str:
        """Say how far the run is."""
        done, total = self.files_before + self.files, self._plan.num_files
        heard_s, all_s = self._planned_before_s + self.seconds, self._plan.seconds
        text = f"{done:,} of {total:,} recordings, {total - done:,} left"
        text += f", {heard_s / 3600:.2f} of {all_s / 3600:.2f} h"
        if self.failed:
            text += f", {self.failed:,} failed"
        working_s = 0.0 if self._first is None else self._clock() - self._first
        if working_s < SMOOTHED_FROM_S or not self.files:
            return text
        text += f", {self.seconds / working_s:.1f}x real time"
        work = self.seconds + FILE_S * self.files
        left = max(0.0, all_s - heard_s) + FILE_S * (total - done)
        left_s = left * working_s / work
        return f"{text}, {_end(datetime.now(), left_s)}"


def _end(now: datetime, left_s: float) -> str:
    end = now + timedelta(seconds=left_s)
    minutes = round(left_s / 60)
    span = f"{left_s:.0f} s" if left_s < 90 else f"{minutes} min"
    if minutes >= 120:
        span = f"{minutes // 60} h {minutes % 60} min"
    day = "" if end.date() == now.date() else f"{end:%d %b} "
    return f"ends {day}{end:%H:%M} (in {span})"
