"""Shards worked through by Ray: on this machine, or on the cluster that ``RAY_ADDRESS`` names.

In: the shards that are left. Out: the workers' events, all of a shard's at its end. Every machine
must see the recordings, the model and the output folder under the same paths. One actor holds one
model. One CPU slot stays free, for a pool that takes all of them waits for itself. An actor that
dies is replaced, and its shard tried once more. Ray is an optional package, imported nowhere else.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Generator
from typing import Any

import torch

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read while ray is imported

import ray
from ray.exceptions import RayActorError

from core.bulk.executors import MOST_READERS, ShardsLeft
from core.bulk.job import BulkJob, Crew, ShardLost, WorkerEvent
from core.bulk.plan import Plan
from core.bulk.worker import ShardWorker
from core.errors import UserError

logger = logging.getLogger(__name__)

TRIES = 2
LOOK_S = 1.0


class ShardActor:
    """A worker in an actor. cores: how many it may use."""

    def __init__(self, job: BulkJob, plan: Plan, device: str | None, cores: int) -> None:
        torch.set_num_threads(cores)
        self._make = lambda: ShardWorker(job, plan, device=device, threads=min(MOST_READERS, cores))
        self._worker: ShardWorker | None = None

    def run(self, number: int) -> list[WorkerEvent] | str:
        """Work through a shard; returns its events, or why the run cannot go on."""
        try:
            self._worker = self._worker or self._make()
            return list(self._worker.run(number))
        except UserError as error:
            return str(error)


def run(
    left: ShardsLeft, crew: Crew, stop_asked: Callable[[], bool]
) -> Generator[WorkerEvent, None, None]:
    """Work in actors: one for each GPU of the cluster, or one for each CPU slot but one.

    Yields:
        Events as shards are finished.

    Raises:
        UserError: a worker cannot load the model, or cannot write.
    """  # noqa: DOC502  (raised by what is called)
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, logging_level=logging.WARNING)
    try:
        yield from _hand_out(left, crew, stop_asked)
    finally:
        if ours:
            ray.shutdown()


def _hand_out(
    left: ShardsLeft, crew: Crew, stop_asked: Callable[[], bool]
) -> Generator[WorkerEvent, None, None]:
    start, count = _actors(left, crew)
    todo, tries = deque(left.numbers), Counter[int]()
    idle = [start() for _ in range(min(count, len(todo)))]
    running: dict[Any, tuple[Any, int]] = {}
    while True:
        while idle and todo and not stop_asked():
            actor, number = idle.pop(), todo.popleft()
            running[actor.run.remote(number)] = (actor, number)
        if not running:
            return
        for reference in ray.wait(list(running), timeout=LOOK_S)[0]:
            actor, number = running.pop(reference)
            try:
                result = ray.get(reference)
            except RayActorError as error:
                tries[number] += 1
                logger.warning("the worker of shard %d ended: %s", number, error)
                if tries[number] < TRIES:
                    todo.appendleft(number)
                else:
                    yield ShardLost(number, f"its worker ended {TRIES} times")
                idle.append(start())
                continue
            if isinstance(result, str):
                raise UserError(result)
            idle.append(actor)
            yield from result


def _actors(left: ShardsLeft, crew: Crew) -> tuple[Callable[[], Any], int]:
    """Return what starts an actor, and how many there are room for."""
    has = ray.cluster_resources()
    slots, gpus = has.get("CPU", 1.0), int(has.get("GPU", 0))
    on_gpus = gpus > 0 and crew.devices != ("cpu",)
    free = max(slots - 1, 0.0)
    count = crew.num_workers or (gpus if on_gpus else max(1, int(free)))
    # Whole slots where there is one for everybody, else shares of one.
    each = float(free // count) or round(free / count, 3)
    cores = max(1, int(each))
    actor: Any = ray.remote(num_cpus=each, num_gpus=min(1.0, gpus / count) if on_gpus else 0)(
        ShardActor
    )
    # Ray shows an actor only its own GPU.
    device = None if on_gpus else crew.devices[0]
    return lambda: actor.remote(left.job, left.plan, device, cores), count
