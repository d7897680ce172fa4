"""Timed work, and heavy work of other threads that waits for it.

In: threads. Out: two contexts. What is timed waits for nobody: a trace that takes long to read
never holds up the models' thread. Reading waits while something is timed, and for other reading,
whose memory it would add to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class QuietTime:
    """Says when something is timed."""

    def __init__(self) -> None:
        self._num_timed = 0
        self._changed = Condition()
        self._reading = Lock()

    @property
    def is_timed(self) -> bool:
        """Return whether something is timed now."""
        return self._num_timed > 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Have others wait while the body is timed; begins at once."""
        with self._changed:
            self._num_timed += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_timed -= 1
                self._changed.notify_all()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Wait until nothing is timed and nothing else is read."""
        with self._reading:
            with self._changed:
                self._changed.wait_for(lambda: not self.is_timed)
            yield
