"""The promise to whoever sends bad input: one line of advice or a right result, and soon.

In: cases, each with its name, and a reader that raises ``UserError`` or returns. Out:
:class:`Outcome`: how many were read and refused, and a line for each broken promise. Memory is the
peak of the process above what it held when a case began, where the system can begin a new peak
(Linux); elsewhere the growth of its highest peak. Time is what a machine without other work takes.
"""

from __future__ import annotations

import io
import logging
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeVar

import torch

from core.errors import UserError
from core.memory import peak_memory_bytes

T = TypeVar("T")
LONGEST_S, MOST_BYTES = 5.0, 1_000_000_000
HANGS_S = 120.0  # of a clock that runs while others have the processor
LONGEST_LINE = 1_000  # letters of an error: a model's list of names may be long
CPU = torch.device("cpu")


class TookTooLongError(BaseException):
    """No ``Exception``: the code under test may not catch it."""


@dataclass
class Outcome:
    """What became of the cases. broken: a line for each that was neither read nor refused well."""

    read: int = 0
    refused: int = 0
    broken: list[str] = field(default_factory=list)

    def check(self) -> None:
        """See that no promise was broken, and that there were cases of both kinds."""
        num = self.read + self.refused + len(self.broken)
        assert not self.broken, "\n".join([f"{len(self.broken)} of {num}", *self.broken])
        assert self.read, "every case was refused, a right one too?"
        assert self.refused, "no case was refused"


def hold(cases: Iterable[tuple[str, T]], read: Callable[[T], object]) -> Outcome:
    """Give every case to ``read`` and count what comes of it."""
    outcome = Outcome()
    for name, case in cases:
        said, fault, seconds, grown = _attempt(case, read)
        if seconds > LONGEST_S or grown > MOST_BYTES:
            fault += f" took {seconds:.1f} s and {grown / 1e6:.0f} MB"
        if said is not None and ("\n" in said or len(said) > LONGEST_LINE or not said.strip()):
            fault = f"no short line: {said[:200]!r} ({len(said)} letters)"
        if fault:
            outcome.broken.append(f"{name[:300]}: {fault}")
        elif said is None:
            outcome.read += 1
        else:
            outcome.refused += 1
    return outcome


def _attempt(case: T, read: Callable[[T], object]) -> tuple[str | None, str, float, int]:
    """Read once: what was said of it, its fault, the seconds and the memory it took."""
    said, fault, records, printed = None, "", list[str](), io.StringIO()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    begin, waited, before = time.perf_counter(), _waited_s(), peak_memory_bytes(CPU)
    try:
        with _limited(), _logged() as records, redirect_stderr(printed):
            read(case)
    except UserError as error:
        said = str(error)
    except (Exception, TookTooLongError) as error:
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = ", ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames)
        fault = f"{type(error).__name__}: {str(error)[:150]!r} at {where}"
    if "Traceback (most recent" in printed.getvalue():
        records.append(printed.getvalue()[-300:])
    if records and not fault:
        fault = f"a traceback was written: {records[0]}"
    seconds = time.perf_counter() - begin - (_waited_s() - waited)
    return said, fault, seconds, peak_memory_bytes(CPU) - before


def _waited_s() -> float:
    """How long this process waited for a processor that others had; 0 where nobody counts it."""
    found = 0.0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # a thread may have ended
            found += int(file.read_text().split()[1]) / 1e9
    return found


@contextmanager
def _limited() -> Iterator[None]:
    """Break off what takes too long, as far as Python code can be."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TookTooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HANGS_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect the exceptions that are logged."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                found.append(f"{record.getMessage()}: {record.exc_info[1]!r}"[:200])

    collector = Collector()
    logging.getLogger().addHandler(collector)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(collector)
