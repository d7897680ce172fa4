"""Graphs built side by side, by processes that share the loaded weights.

In: names, and what builds one. Out: each name with its seconds, as they are finished. Most of a
build is Python, which threads do not share; a forked process has the model without a copy of it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

import torch

from core.memory import available_bytes

BUILDER_BYTES = 3 * 2**29  # memory of one builder and its C++ compiler, the weights apart


def most_builders(device: torch.device, graphs: int) -> int:
    """Return how many processes may build at once: as many as processors and memory are free for.

    Args:
        device: where the model is.
        graphs: there are to build.

    Returns:
        At least one, and one where a process cannot be forked: on another system or device.
    """
    if sys.platform != "linux" or device.type != "cpu":
        return 1
    free = available_bytes()
    room = graphs if free is None else free // BUILDER_BYTES
    return max(1, min(len(os.sched_getaffinity(0)), graphs, room))


def build_all(
    names: Sequence[str], build: Callable[[str], None], builders: int
) -> Iterator[tuple[str, float]]:
    """Build each of ``names``.

    A builder that dies, for want of memory perhaps, is not replaced: what it left is built here.

    Args:
        names: in the order in which they begin.
        build: builds one.
        builders: processes at once; one builds in this process.

    Yields:
        A name and its seconds, when it is finished.

    Raises:
        Exception: of a build; the other builders are ended.
    """
    if builders > 1:
        missing = yield from _build_apart(names, build, builders)
    else:
        missing = list(names)
    for name in missing:
        yield name, _timed(build, name)


def _build_apart(
    names: Sequence[str], build: Callable[[str], None], builders: int
) -> Generator[tuple[str, float], None, list[str]]:
    """Build in other processes; returns the names that none of them finished."""
    context = multiprocessing.get_context("fork")
    ahead, missing = list(names), list[str]()
    busy: dict[Connection, str] = {}
    processes = []
    try:
        for _ in range(builders):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, build), daemon=True)
            process.start()
            theirs.close()  # so that its end is seen here
            processes.append(process)
            busy[ours] = ahead.pop(0)
            ours.send(busy[ours])
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                name = busy.pop(ready)
                try:
                    answer = ready.recv()
                except EOFError:
                    missing.append(name)
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                if ahead:
                    busy[ready] = ahead.pop(0)
                    ready.send(busy[ready])
                yield name, answer
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return [*missing, *ahead]


def _serve(pipe: Connection, build: Callable[[str], None]) -> None:
    """Build what ``pipe`` names until it is closed, and answer with seconds or the error."""
    torch.set_num_threads(1)  # threads of the parent's are not here, and a pool would wait for them
    with suppress(EOFError):
        while True:
            name = pipe.recv()
            try:
                answer: float | BaseException = _timed(build, name)
            except Exception as error:
                answer = error
            try:
                pipe.send(answer)
            except Exception:  # an error that holds what cannot be sent
                pipe.send(RuntimeError(str(answer)))


def _timed(build: Callable[[str], None], name: str) -> float:
    begin = time.perf_counter()
    build(name)
    return time.perf_counter() - begin
