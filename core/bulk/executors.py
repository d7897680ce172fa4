"""Who works through the shards: this process, several processes, or a Ray cluster.

In: a job, its plan and the numbers of the shards that are left. Out: the workers' events, whoever
they are. When the caller wishes to stop, the shards that are running are finished and no other is
begun.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from core.bulk.job import BulkJob, Crew, WorkerEvent
from core.bulk.plan import Plan
from core.bulk.worker import ShardWorker
from core.errors import UserError

EXECUTORS = ("local", "processes", "ray")
MOST_READERS = 8  # threads of a worker that read recordings
CORES_OF_A_PROCESS = 4

MODULES = {"processes": "core.bulk.processes", "ray": "core.bulk.ray_actors"}


@dataclass(frozen=True)
class ShardsLeft:
    """The work of one run: the job, its plan, and which shards of it, in this order."""

    job: BulkJob
    plan: Plan
    numbers: Sequence[int]


Executor = Callable[[ShardsLeft, Crew, Callable[[], bool]], Generator[WorkerEvent, None, None]]


def executor_named(name: str) -> Executor:
    """Return the executor called ``name``.

    Raises:
        UserError: ray is not installed.
    """
    if name == "local":
        return run_local
    if name == "ray" and find_spec("ray") is None:
        raise UserError(
            "--executor ray needs the package ray, which is not installed; expected --executor "
            "processes, or pip install -r requirements-cluster.txt first"
        )
    executor: Executor = import_module(MODULES[name]).run
    return executor


def run_local(
    left: ShardsLeft, crew: Crew, stop_asked: Callable[[], bool]
) -> Generator[WorkerEvent, None, None]:
    """Work in this process; its model uses all of the processor's cores.

    Yields:
        Events as they happen.
    """
    threads = min(MOST_READERS, len(usable_cores()))
    worker = ShardWorker(left.job, left.plan, device=crew.devices[0], threads=threads)
    for number in left.numbers:
        if stop_asked():
            return
        yield from worker.run(number)


def usable_cores() -> list[int]:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_groups(num_groups: int) -> list[list[int]]:
    """Divide the usable cores among workers, neighbours together; each gets one at least."""
    cores = usable_cores()
    if num_groups >= len(cores):
        return [[cores[place % len(cores)]] for place in range(num_groups)]
    bounds = [round(place * len(cores) / num_groups) for place in range(num_groups + 1)]
    return [cores[begin:end] for begin, end in zip(bounds, bounds[1:], strict=False)]
