"""Keeps other threads, garbage collection and profilers away from timed runs.

In: nothing. Out: context managers, :func:`undisturbed` around one run and :func:`settled` around
many. Garbage collection is off inside a run and done between runs. A running profiler is refused:
it would tax eager runs more than compiled ones.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_depth = 0  # of settled(); one thread measures at a time


@contextmanager
def undisturbed(threads: int) -> Iterator[None]:
    """Set ``threads`` torch threads and pause garbage collection; both are put back after."""
    if torch._C._autograd._profiler_enabled():
        raise RuntimeError("a profiler is running; timed runs need it off")
    before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


@contextmanager
def settled() -> Iterator[None]:
    """Freeze existing objects so that collections between timed runs skip them.

    A process that has loaded torch holds hundreds of thousands of objects. Looking through them
    takes longer than a request of a small model, and empties the processor's caches before it.
    Inside another one it freezes what has come since; all is unfrozen at the end of the outermost.
    """
    global _depth
    gc.collect()
    gc.freeze()
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            gc.unfreeze()
