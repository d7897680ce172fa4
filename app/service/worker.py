"""One thread that does all model work, and the jobs that wait for it.

In: generators that compute. Out: their values, one by one, in the caller's thread. One thread means
that two requests can never mix, that timings are of one request at a time and do not count the
time a slow browser takes to fetch a value, and that torch keeps one pool of workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Generic, TypeVar

from app.service.updates import QueuePlace

T = TypeVar("T")
LOOK_EVERY_S = 0.5  # at the line, by those who wait in it
TRANSCRIPTION, MEASUREMENT, OTHER = "transcription", "measurement", "other"


@dataclass(eq=False)
class Turn:
    """One piece of work in the line. ends_at: of a monotonic clock, None where unknown.

    is_ready: whether it could run now without changing what is loaded. gives_way: it lets
    transcriptions that are ready go first, next at pauses_at.
    """

    kind: str
    is_ready: Callable[[], bool] = lambda: True
    run: Callable[[], None] = lambda: None
    begun: bool = False
    ends_at: float | None = None
    gives_way: bool = False
    pauses_at: float | None = None


@dataclass
class CancelToken:
    """A request that can be cancelled from any thread; the work asks :meth:`cancelled`.

    left: asked too; True once nobody waits for the result.
    """

    left: Callable[[], bool] = lambda: False
    _flag: Event = field(default_factory=Event)
    _replaced: set[str] = field(default_factory=set)

    def cancel(self) -> None:
        """Ask the work to end at its next step."""
        self._flag.set()

    def replace(self, session: str) -> None:
        """Cancel it for a newer request of ``session``, whose page shows that one now."""
        self._replaced.add(session)
        self.cancel()

    def replaced(self, session: str) -> bool:
        """Return whether ``session`` has a newer request."""
        return session in self._replaced

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
            before = self._line[: self._line.index(turn)] if turn in self._line else []
        if not before:
            return None
        first, ends_at = before[0], before[0].ends_at
        between = first.gives_way and turn.kind == TRANSCRIPTION and turn.is_ready()
        if between:
            before = [first, *(one for one in before[1:] if one.kind == TRANSCRIPTION)]
            ends_at = first.pauses_at
        left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
        return QueuePlace(len(before), first.kind, left_s, between)

    def expect(
        self, left_s: float | None, *, gives_way: bool = False, pause_s: float | None = None
    ) -> None:
        """Note how long the work now running still takes; called by that work.

        Args:
            left_s: seconds; None where unknown.
            gives_way: it will call :meth:`give_way` before its end.
            pause_s: seconds until it does; None where unknown.
        """
        now = time.monotonic()
        with self._lock:
            if self._line:
                self._line[0].ends_at = None if left_s is None else now + left_s
                self._line[0].gives_way = gives_way
                self._line[0].pauses_at = None if pause_s is None else now + pause_s

    def give_way(self) -> bool:
        """Run the transcriptions that wait now and are ready; called by the work now running.

        What comes meanwhile waits for the next call, so that this work goes on.

        Returns:
            Whether any ran.
        """
        with self._lock:
            waiting = [turn for turn in self._line[1:] if turn.kind == TRANSCRIPTION]
        ready = [turn for turn in waiting if turn.is_ready()]
        for turn in ready:
            with self._lock:
                self._line.remove(turn)
                self._line.insert(0, turn)
            with suppress(Exception):  # as on the pool: it belongs to whoever asked
                turn.run()
        return bool(ready)

    def stream(
        self,
        token: CancelToken,
        work: Callable[[], Iterator[T]],
        kind: str = OTHER,
        is_ready: Callable[[], bool] = lambda: True,
        waiting: Callable[[QueuePlace], T] | None = None,
    ) -> Iterator[T]:
        """Run ``work()`` on the worker's thread.

        Work whose token is cancelled before its turn never begins; a caller that stops reading
        cancels it.

        Args:
            token: cancels it.
            work: yields its values.
            kind: of work.
            is_ready: whether it could run now without changing what is loaded.
            waiting: makes a value of the place in the line, while there is one.

        Returns:
            Its values as they come; its exception, if it raises one.
        """
        box: SimpleQueue[_Value[T] | _End] = SimpleQueue()
        begin = partial(self.submit, lambda: _pump(token, work, box), kind, is_ready)
        return self._values(token, begin, box, waiting)

    def _values(
        self,
        token: CancelToken,
        begin: Callable[[], Turn],
        box: SimpleQueue[_Value[T] | _End],
        waiting: Callable[[QueuePlace], T] | None,
    ) -> Iterator[T]:
        turn = begin()
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

        begin = partial(self.submit, lambda: _pump(token, silent, box), MEASUREMENT)
        return self._values(token, begin, box, waiting)

    def submit(
        self,
        work: Callable[[], None],
        kind: str = OTHER,
        is_ready: Callable[[], bool] = lambda: True,
    ) -> Turn:
        """Run ``work`` in its turn, for which :meth:`place` is asked."""
        turn = Turn(kind, is_ready)

        def run() -> None:
            if turn.begun:  # it went before its turn, where other work gave way
                return
            turn.begun = True
            try:
                work()
            finally:
                with self._lock:
                    self._line.remove(turn)

        # With the caller's context: who asked is known over there too.
        turn.run = partial(copy_context().run, run)
        with self._lock:
            self._line.append(turn)
            self._pool.submit(turn.run)
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
