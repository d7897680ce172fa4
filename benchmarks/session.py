"""One session: every shape, every system, taking turns; everything measured, as JSON.

In: a :class:`SessionPlan`. Out: a plain dict (see :func:`measure`), which :mod:`benchmarks.bars`
judges and :mod:`benchmarks.table` prints. A system that fails is reported with its reason and left
out; the others are measured all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.moved import reachable
from benchmarks.numbers import equal_tokens, spent, summary
from benchmarks.process import WorkerProcess
from benchmarks.shapes import BenchmarkShape, folder_of
from benchmarks.systems import ON_EQUAL_TOKENS, SYSTEMS, Answer
from core.checkpoint.config_file import parse_config
from core.checkpoint.hub import resolve
from profiling.measure.machine import Busyness, describe_machine
from profiling.measure.timing import Arm, interleave
from profiling.roofline.counts import decoder_parameters, encoder_parameters, projector_parameters
from profiling.roofline.machine_peaks import measure_ceilings

VERSION = 1
CPU = torch.device("cpu")

Say = Callable[[str], None]
Blocks = list[tuple[Answer, Answer]]


@dataclass(frozen=True)
class SessionPlan:
    """Benchmark settings. repeats and num_tokens: None for each shape's own. root: for checkpoints.

    extras: also batches, lengths, recordings and long files. minutes: of the long files.
    """

    shapes: tuple[BenchmarkShape, ...]
    seconds: tuple[float, ...]
    systems: tuple[str, ...]
    threads: int
    root: Path
    repeats: int | None = None
    num_tokens: int | None = None
    extras: bool = True
    minutes: tuple[float, ...] = (10.0, 60.0)


@dataclass(frozen=True)
class Work:
    """One shape as it is measured: lengths that it takes, tokens, blocks."""

    shape: BenchmarkShape
    folder: Path
    seconds: tuple[float, ...]
    num_tokens: int
    repeats: int


def measure(plan: SessionPlan, say: Say) -> dict[str, Any]:
    """Run the plan.

    Returns:
        ``version, when, machine, ceilings, shapes`` and ``failures``; a shape has ``name,
        parameters, num_tokens, config, systems`` (name -> start-up and memory) and ``lengths``
        (seconds -> system -> summary).
    """
    busy = Busyness()
    torch.set_num_threads(plan.threads)
    failures: list[str] = []
    say("measuring what this machine can do")
    ceilings = asdict(measure_ceilings(CPU, ("float32",)))
    shapes = []
    for shape in plan.shapes:
        say(f"{shape.name}: preparing its weights")
        work = work_of(plan, shape)
        shapes.append(_measure_shape(plan, work, failures, say))
    return {
        "version": VERSION,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**describe_machine(CPU), **busy.read(), "threads": plan.threads},
        "ceilings": ceilings,
        "shapes": shapes,
        "failures": failures,
    }


def work_of(plan: SessionPlan, shape: BenchmarkShape) -> Work:
    """Prepare the shape's checkpoint and the part of the plan that applies to it."""
    return Work(
        shape,
        folder_of(shape, plan.root),
        tuple(s for s in plan.seconds if s <= shape.longest_s) or (shape.longest_s,),
        plan.num_tokens or shape.num_tokens,
        plan.repeats or shape.repeats,
    )


def _measure_shape(plan: SessionPlan, work: Work, failures: list[str], say: Say) -> dict[str, Any]:
    raw = resolve(str(work.folder)).json("config.json")
    config = parse_config(raw, source=work.shape.name)
    parts = {
        "encoder": encoder_parameters(config.encoder),
        "projector": projector_parameters(config.projector),
        "decoder": decoder_parameters(config.decoder),
    }
    names = [name for name in plan.systems if name in ON_EQUAL_TOKENS]
    groups = [names] if work.shape.together else [[name] for name in names]
    systems: dict[str, Any] = {}
    lengths: dict[str, dict[str, Any]] = {f"{s:g}": {} for s in work.seconds}
    for group in groups:
        with _running(group, work, plan.threads, failures, say) as workers:
            for worker in workers:
                with spent(failures):
                    systems[worker.system.name] = _start_up(worker, work, say)
            alive = [w for w in workers if w.system.name in systems]
            for seconds in work.seconds if alive else ():
                with spent(failures):
                    lengths[f"{seconds:g}"] |= _take_turns(alive, work, seconds, say)
    for found in lengths.values():
        equal_tokens(found, [name for name in found if SYSTEMS[name].exact])
    return {
        "name": work.shape.name,
        "config": raw,
        "parameters": parts,
        "num_tokens": work.num_tokens,
        "together": work.shape.together,
        "systems": systems,
        "lengths": lengths,
    }


@contextmanager
def _running(
    names: Sequence[str], work: Work, threads: int, failures: list[str], say: Say
) -> Iterator[list[WorkerProcess]]:
    """Start workers; those that could not be are left out."""
    with ExitStack() as stack:
        workers = []
        for name in names:
            say(f"{work.shape.name}: starting {SYSTEMS[name].title}")
            with spent(failures):
                workers.append(stack.enter_context(WorkerProcess(name, work.folder, threads)))
        yield workers


def _start_up(worker: WorkerProcess, work: Work, say: Say) -> dict[str, Any]:
    """Time the first request of all, then the first at each length: the cost of a cold start."""
    say(f"{work.shape.name}: first requests of {worker.system.title}")
    base = max(work.seconds, key=lambda s: s == 10)  # 10 s where it is asked for
    order = [base, *(s for s in work.seconds if s != base)]
    first = {}
    for seconds in order:
        answer = worker.ask("once", seconds=seconds, num_tokens=work.num_tokens)
        first[f"{seconds:g}"] = {"ms": answer.end_to_end_ms, "graphs": answer.graphs}
    again = worker.ask("once", seconds=base, num_tokens=work.num_tokens)
    cold_s = (first[f"{base:g}"]["ms"] - again.end_to_end_ms) / 1000
    return {
        "import_s": worker.import_s,
        "load_s": worker.load_s,
        "first": first,
        "cold_start_s": cold_s,
        "later_graphs": sum(one["graphs"] for one in list(first.values())[1:]),
        "peak_bytes": again.peak_bytes,
    }


def _take_turns(
    workers: Sequence[WorkerProcess], work: Work, seconds: float, say: Say
) -> dict[str, dict[str, Any]]:
    """System -> summary of its blocks at one length."""
    say(f"{work.shape.name}, {seconds:g} s: {work.repeats} blocks of {len(workers)} systems")

    def arm(worker: WorkerProcess) -> Arm[Answer]:
        return Arm(
            worker.system.name,
            lambda: worker.ask("once", seconds=seconds, num_tokens=work.num_tokens),
        )

    before = readable_now()
    blocks = interleave([arm(worker) for worker in workers], work.repeats)
    readable = {"reachable_bytes_per_s": (before + readable_now()) / 2}
    return {name: summary(found, work.num_tokens) | readable for name, found in blocks.items()}


def readable_now() -> float:
    """Measure bytes read a second at this moment: on a shared machine it drifts by half."""
    return reachable(asdict(measure_ceilings(CPU, ("float32",), seconds=0.2)))
