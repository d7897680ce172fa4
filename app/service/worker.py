"""One thread that does all model work, and the jobs that wait for it.

In: generators that compute. Out: their values, one by one, in the caller's thread. One thread means
that two requests can never mix, that timings are of one request at a time and do not count the
time a slow browser takes to fetch a value, and that torch keeps one pool of workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Generic, TypeVar

from app.service.updates import QueuePlace

T = TypeVar("T")
LOOK_EVERY_S = 0.5  # at the line, by those who wait in it
TRANSCRIPTION, MEASUREMENT, OTHER = "transcription", "measurement", "other"


@dataclass(eq=False)
class Turn:
    """One piece of work in the line. ends_at: of a monotonic clock, None where unknown."""

    kind: str
    ends_at: float | None = None


@dataclass
class CancelToken:
    """A request that can be cancelled from any thread; the work asks :meth:`cancelled`.

    left: asked too; True once nobody waits for the result.
    """

    left: Callable[[], bool] = lambda: False
    _flag: Event = field(default_factory=Event)

    def cancel(self) -> None:
        """Ask the work to end at its next step."""
        self._flag.set()

    def cancelled(self) -> bool:
        """Return whether somebody cancelled it, or left."""
        return self._flag.is_set() or self.left()


@dataclass(frozen=True)
class _Value(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class Worker:
    """Runs generators one after the other on a thread of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._line: list[Turn] = []  # the first runs, or is about to
        self._lock = Lock()

    def place(self, turn: Turn) -> QueuePlace | None:
        """Return where a piece of work waits; None once it runs, or has ended."""
        with self._lock:
            ahead = self._line.index(turn) if turn in self._line else 0
            first = self._line[0] if ahead else None
        if first is None:
            return None
        left_s = None if first.ends_at is None else max(0.0, first.ends_at - time.monotonic())
        return QueuePlace(ahead, first.kind, left_s)

    def expect(self, left_s: float | None) -> None:
        """Note how long the work now running still takes; called by that work."""
        with self._lock:
            if self._line:
                self._line[0].ends_at = None if left_s is None else time.monotonic() + left_s

    def stream(self, token: CancelToken, work: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Run ``work()`` on the worker's thread.

        Work whose token is cancelled before its turn never begins; a caller that stops reading
        cancels it.

        Returns:
            Its values as they come; its exception, if it raises one.
        """
        return self._values(token, work, SimpleQueue(), OTHER)

    def _values(
        self,
        token: CancelToken,
        work: Callable[[], Iterator[T]],
        box: SimpleQueue[_Value[T] | _End],
        kind: str,
        waiting: Callable[[QueuePlace], T] | None = None,
    ) -> Iterator[T]:
        turn = self.submit(lambda: _pump(token, work, box), kind)
        try:
            while not isinstance(item := _next(box, waiting is not None), _End):
                if item is not None:
                    yield item.value
                elif waiting is not None and (place := self.place(turn)) is not None:
                    yield waiting(place)
        finally:
            token.cancel()
        if item.error is not None:
            raise item.error

    def stream_reports(
        self,
        token: CancelToken,
        work: Callable[[Callable[[T], None]], None],
        waiting: Callable[[QueuePlace], T] | None = None,
    ) -> Iterator[T]:
        """Stream a measurement, which reports its values to a function instead of yielding.

        Args:
            token: cancels it.
            work: reports to the function it is given.
            waiting: makes a value of the place in the line, while there is one.

        Returns:
            What it reported.
        """
        box: SimpleQueue[_Value[T] | _End] = SimpleQueue()

        def silent() -> Iterator[T]:
            work(lambda value: box.put(_Value(value)))
            yield from ()

        return self._values(token, silent, box, MEASUREMENT, waiting)

    def submit(self, work: Callable[[], None], kind: str = OTHER) -> Turn:
        """Run ``work`` in its turn, for which :meth:`place` is asked."""
        turn = Turn(kind)

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._line.remove(turn)

        with self._lock:
            self._line.append(turn)
            # With the caller's context: who asked is known over there too.
            self._pool.submit(copy_context().run, run)
        return turn

    def close(self) -> None:
        """End the thread once the work in hand is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _next(box: SimpleQueue[_Value[T] | _End], looking: bool) -> _Value[T] | _End | None:
    """Return what came; None where the caller looks at the line meanwhile."""
    try:
        return box.get(timeout=LOOK_EVERY_S if looking else None)
    except Empty:
        return None


def _pump(
    token: CancelToken, work: Callable[[], Iterator[T]], box: SimpleQueue[_Value[T] | _End]
) -> None:
    error: BaseException | None = None
    try:
        if not token.cancelled():
            for value in work():
                box.put(_Value(value))
    except BaseException as raised:  # whatever it is belongs to the caller, not to this thread
        error = raised
    box.put(_End(error))
