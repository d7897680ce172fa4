"""Shards worked through by several processes of this machine, each on cores or a GPU of its own.

In: the shards that are left. Out: the workers' events. A process that dies (memory ran out, a
decoder crashed) takes no other shard with it: its own is tried once more, in a new process. The
processes end when this one does, however it ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from core.bulk.executors import (
    CORES_OF_A_PROCESS,
    MOST_READERS,
    ShardsLeft,
    core_groups,
    usable_cores,
)
from core.bulk.job import BulkJob, Crew, ShardDone, ShardLost, WorkerEvent
from core.bulk.plan import Plan
from core.bulk.worker import ShardWorker
from core.errors import UserError

logger = logging.getLogger(__name__)

TRIES = 2
LOOK_S = 1.0  # between two looks at whether to stop


@dataclass(frozen=True)
class Seat:
    """Where a process runs: its cores and the device of its model."""

    cores: tuple[int, ...]
    device: str | None


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""


@dataclass(frozen=True)
class WorkerFailed:
    """The worker cannot go on, and neither can the run."""

    text: str


@dataclass
class WorkerProcess:
    """One process. number: of the shard it has; ending: it was told to end."""

    seat: Seat
    process: BaseProcess
    number: int | None = None
    ending: bool = False


def run(
    left: ShardsLeft, crew: Crew, stop_asked: Callable[[], bool]
) -> Generator[WorkerEvent, None, None]:
    """Work in processes: one for each device, or one for each group of cores.

    Yields:
        Events as they happen.

    Raises:
        UserError: a worker cannot load the model, or cannot write.
    """  # noqa: DOC502  (raised by what is called)
    pool = ProcessPool(left, stop_asked)
    try:
        for seat in seats(crew, len(left.numbers)):
            pool.start(seat)
        yield from pool.events()
    finally:
        pool.end()


def seats(crew: Crew, num_shards: int) -> list[Seat]:
    """Choose how many processes there are, and where each one runs."""
    cores, devices = len(usable_cores()), crew.devices
    by_cores = min(cores, max(2, cores // CORES_OF_A_PROCESS))
    on_gpus = any(device is not None and device != "cpu" for device in devices)
    wanted = crew.num_workers or (len(devices) if on_gpus else by_cores)
    groups = core_groups(min(wanted, num_shards))
    return [Seat(tuple(group), devices[place % len(devices)]) for place, group in enumerate(groups)]


class ProcessPool:
    """The processes and what each of them does."""

    def __init__(self, left: ShardsLeft, stop_asked: Callable[[], bool]) -> None:
        self._job, self._plan, self._stop_asked = left.job, left.plan, stop_asked
        self._todo, self._tries = deque(left.numbers), Counter[int]()
        self._workers: dict[Connection, WorkerProcess] = {}
        self._context = multiprocessing.get_context("spawn")

    def start(self, seat: Seat) -> None:
        """Start a process; it asks for a shard once its model is loaded."""
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._job, self._plan, seat)
        process = self._context.Process(target=work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self._workers[ours] = WorkerProcess(seat, process)

    def events(self) -> Generator[WorkerEvent, None, None]:
        """Hand out shards until none is left, or the caller wishes to stop.

        Yields:
            The workers' events.

        Raises:
            UserError: a worker cannot go on.
        """
        while self._workers:
            for connection in wait(list(self._workers), timeout=LOOK_S):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    yield from self._died(connection)
                    continue
                if isinstance(message, WorkerFailed):
                    raise UserError(message.text)
                if isinstance(message, Ready | ShardDone):
                    self._give(connection)
                if not isinstance(message, Ready):
                    yield message

    def end(self) -> None:
        """End what still runs."""
        for worker in self._workers.values():
            worker.process.terminate()
        for worker in self._workers.values():
            worker.process.join()

    def _give(self, connection: Connection) -> None:
        """Give a worker its next shard, or tell it to end."""
        worker = self._workers[connection]
        worker.number = None
        if self._todo and not self._stop_asked():
            worker.number = self._todo.popleft()
        worker.ending = worker.number is None
        connection.send(worker.number)

    def _died(self, connection: Connection) -> Generator[WorkerEvent, None, None]:
        worker = self._workers.pop(connection)
        worker.process.join()
        if worker.ending:
            return
        code = worker.process.exitcode
        if worker.number is None:
            raise UserError(
                f"a process ended while it loaded the model (exit code {code}); expected enough "
                "memory for every process: use fewer --num-workers"
            )
        self._tries[worker.number] += 1
        if self._tries[worker.number] < TRIES:
            logger.warning(
                "the process of shard %d ended (exit code %s); it is tried again",
                *(worker.number, code),
            )
            self._todo.appendleft(worker.number)
        else:
            why = f"its process ended {TRIES} times (exit code {code})"
            yield ShardLost(worker.number, why)
        if self._todo and not self._stop_asked():
            self.start(worker.seat)


def work(connection: Connection, job: BulkJob, plan: Plan, seat: Seat) -> None:
    """Work through the shards that come in, in a process of its own.

    Args:
        connection: to the process that hands out shards.
        job: the run.
        plan: its plan.
        seat: where to run.
    """
    # Ctrl-C reaches every process of a terminal; the one that hands out shards decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, seat.cores)
    torch.set_num_threads(len(seat.cores))
    readers = min(MOST_READERS, len(seat.cores))
    try:
        worker = ShardWorker(job, plan, device=seat.device, threads=readers)
        connection.send(Ready())
        while (number := connection.recv()) is not None:
            for event in worker.run(number):
                connection.send(event)
    except UserError as error:
        connection.send(WorkerFailed(str(error)))
    except Exception as error:
        logger.exception("a worker failed")
        text = f"a worker failed ({type(error).__name__}); what happened is written above"
        connection.send(WorkerFailed(text))


def end_with_parent() -> None:
    """End this process with the one that started it, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
