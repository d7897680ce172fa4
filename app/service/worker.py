"""One thread that does all model work, and the jobs that wait for it.

In: generators that compute. Out: their values, one by one, in the caller's thread. One thread means
that two requests can never mix, that timings are of one request at a time and do not count the
time a slow browser takes to fetch a value, and that torch keeps one pool of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from typing import Generic, TypeVar

T = TypeVar("T")


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

    def stream(self, token: CancelToken, work: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Run ``work()`` on the worker's thread.

        Work whose token is cancelled before its turn never begins; a caller that stops reading
        cancels it.

        Returns:
            Its values as they come; its exception, if it raises one.
        """
        return self._values(token, work, SimpleQueue())

    def _values(
        self,
        token: CancelToken,
        work: Callable[[], Iterator[T]],
        box: SimpleQueue[_Value[T] | _End],
    ) -> Iterator[T]:
        # With the caller's context: who asked is known over there too.
        self._pool.submit(copy_context().run, _pump, token, work, box)
        try:
            while isinstance(item := box.get(), _Value):
                yield item.value
        finally:
            token.cancel()
        if item.error is not None:
            raise item.error

    def stream_reports(
        self, token: CancelToken, work: Callable[[Callable[[T], None]], None]
    ) -> Iterator[T]:
        """Stream from work that reports its values to a function instead of yielding."""
        box: SimpleQueue[_Value[T] | _End] = SimpleQueue()

        def silent() -> Iterator[T]:
            work(lambda value: box.put(_Value(value)))
            yield from ()

        return self._values(token, silent, box)

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work`` in its turn; nobody waits for it."""
        self._pool.submit(copy_context().run, work)

    def close(self) -> None:
        """End the thread once the work in hand is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)


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
