"""Traced runs, profiler on: where the time goes, never how much. Bounded, and its tax measured.

In: a loaded model, a workload and the recording's bytes. Out: a Chrome trace on disk, gzipped,
that Perfetto and HTA open, and :class:`Capture`: what of the run it holds and how much slower
profiling made it.

A trace holds the whole run up to a number of decode steps, then the run is stopped: a step of a
large model is megabytes, and all steps look alike. Stacks are never recorded (the most expensive
mode). Ranges carry the phases' names and stand around the compiled callables; Inductor's CPU
kernels are visible only if compiled inside :func:`kernels_visible`.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config as inductor
from torch.profiler import ProfilerActivity, profile

from core import phases
from core.lab import Lab
from core.phases import PhaseClock
from core.transcription.options import Finished
from profiling.measure.memory_history import memory_history
from profiling.measure.memory_runs import MemoryRun, memory_run
from profiling.measure.module_ranges import module_ranges
from profiling.measure.quiet_process import undisturbed
from profiling.measure.timing import Arm, Sample, interleave, sample_of
from profiling.measure.workload import Workload

TRACE_FILE = "trace.json.gz"
MAX_TRACE_BYTES = 20_000_000
STEP_PHASES = (phases.DECODE, phases.VERIFY)
_PRIVATE_KEYS = re.compile(r"host_name|traceName")  # most lines have neither: found fast
_PRIVATE = re.compile(r'"(host_name|traceName)": "[^"]*"')


@dataclass(frozen=True, kw_only=True)
class TraceLimits:
    """The limits of a trace. num_steps: decode steps, halved until the file is at most max_bytes.

    tax_blocks: how often the profiler's overhead is measured: off, on, on, off; each of these
    profiled runs is one more for the spread of memory. modules: whether the calls of modules are
    ranges too, in eager runs; that makes the trace larger and slower.
    """

    num_steps: int = 8
    tax_blocks: int = 3
    max_bytes: int = MAX_TRACE_BYTES
    modules: bool = False

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; expected at least 1")


@dataclass(frozen=True)
class Tax:
    """The same work with the profiler on and off. ratio: on over off; phases: the same by phase.

    n: runs of each.
    """

    ratio: float
    off_ms: float
    on_ms: float
    n: int
    phases: dict[str, float]


@dataclass(frozen=True)
class Capture:
    """One trace. num_steps: decode or verify steps in it; cut: whether the run had more of them.

    stop_ms and export_ms: what reading out and writing took, outside the traced run. memory: of
    every profiled run, warmed up. snapshot: of a GPU's allocations, in a run of its own.
    """

    num_steps: int
    cut: bool
    num_bytes: int
    stop_ms: float
    export_ms: float
    tax: Tax
    memory: tuple[MemoryRun, ...] = ()
    snapshot: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, without what ``run.json`` has a place of its own for."""
        plain = asdict(replace(self, memory=(), snapshot=None))
        return {name: value for name, value in plain.items() if name not in ("memory", "snapshot")}


@contextmanager
def kernels_visible() -> Iterator[None]:
    """Compile inside, and traces show Inductor's fused CPU kernels by name.

    They then carry a mark each, which costs nanoseconds while no profiler runs.
    """
    with inductor.patch({"cpp.enable_kernel_profile": True}):
        yield


def capture(
    lab: Lab,
    workload: Workload,
    recording: bytes,
    target: Path,
    *,
    limits: TraceLimits | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Capture:
    """Return what one traced run of ``workload`` holds; warmed up already, or compiling is traced.

    Args:
        lab: the model.
        workload: what to run.
        recording: the clip's bytes.
        target: the file to write; should end in ``.json.gz``.
        limits: how much of it.
        cancelled: asked before every run.
    """
    limits = limits or TraceLimits()
    num_steps = limits.num_steps
    # Read once, at the first session: Kineto prints every start and stop, and that there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    modules = limits.modules and workload.engine == "eager"
    bounded = _Bounded(lab, workload, recording, modules=modules)
    bounded.traced(1)  # the first session of a process pays for starting the profiler
    bounded.memory.clear()  # and for what is allocated once
    tax = _measure_tax(bounded, num_steps, limits.tax_blocks, cancelled)
    while True:
        session, stop_ms = bounded.traced(num_steps)
        begin = time.perf_counter()
        session.export_chrome_trace(str(target))
        export_ms = 1000 * (time.perf_counter() - begin)
        forget_names(target)
        size = target.stat().st_size
        if size <= limits.max_bytes or num_steps == 1:
            break
        num_steps //= 2
    recorded, cut = bounded.last_steps, bounded.last_cut
    snapshot = memory_history(lab.device, lambda: bounded.run(recorded, nullcontext()))
    memory = tuple(bounded.memory)
    return Capture(recorded, cut, size, stop_ms, export_ms, tax, memory, snapshot)


def forget_names(trace: Path) -> None:
    """Take out of a gzipped trace what Kineto says of the machine: its name, a folder on it."""
    kept = trace.with_name(f".{trace.name}")
    with gzip.open(trace, "rt", encoding="utf-8") as old, gzip.open(kept, "wt") as new:
        for line in old:
            new.write(_PRIVATE.sub(r'"\1": ""', line) if _PRIVATE_KEYS.search(line) else line)
    kept.replace(trace)


class _Bounded:
    """One workload, stopped after so many steps, with or without the profiler."""

    def __init__(
        self, lab: Lab, workload: Workload, recording: bytes, *, modules: bool = False
    ) -> None:
        self.lab, self.workload, self.recording = lab, workload, recording
        self.modules = modules
        self.last_steps, self.last_cut = 0, False
        self.on: Sample | None = None
        self.memory: list[MemoryRun] = []

    def run(self, num_steps: int, profiler: AbstractContextManager[Any]) -> Sample:
        clock = PhaseClock(self.lab.device)
        finished: list[Finished] = []

        def steps() -> int:
            return sum(span.name in STEP_PHASES for span in clock.spans)

        with undisturbed(self.workload.threads), profiler:
            events = self.lab.stream_batch(
                [self.recording] * self.workload.batch,
                clock=clock,
                cancelled=lambda: steps() >= num_steps,
                **self.workload.options(),
            )
            finished = [event for event in events if isinstance(event, Finished)]
        transcript = finished[-1].transcript
        self.last_steps = steps()
        self.last_cut = transcript.stopped
        return sample_of(clock, transcript)

    def traced(self, num_steps: int) -> tuple[profile, float]:
        """Stop a session and return it, with the milliseconds that stopping took."""
        session = profile(
            activities=[ProfilerActivity.CPU, *_device_activities(self.lab.device)],
            record_shapes=True,
            profile_memory=True,
            with_stack=False,
        )
        stopped: list[float] = []

        @contextmanager
        def profiler() -> Iterator[None]:
            session.start()
            try:
                for key, value in _metadata(self.workload, num_steps).items():
                    session.add_metadata_json(key, json.dumps(value))
                yield
            finally:
                begin = time.perf_counter()
                session.stop()
                stopped.append(1000 * (time.perf_counter() - begin))

        with module_ranges(self.lab.model) if self.modules else nullcontext():
            self.on = self.run(num_steps, profiler())
        self.memory.append(memory_run(session, self.lab.device))
        return session, stopped[0]


def _device_activities(device: torch.device) -> list[ProfilerActivity]:
    return [ProfilerActivity.CUDA] if device.type == "cuda" else []


def _metadata(workload: Workload, num_steps: int) -> Mapping[str, Any]:
    """Return top-level keys of the trace. HTA refuses a trace that states no rank."""
    return {
        "distributedInfo": {"backend": "none", "rank": 0, "world_size": 1},
        "granite_speech_lab": {
            "workload": workload.to_json(),
            "most_decode_steps": num_steps,
            "torch": torch.__version__,
        },
    }


def _measure_tax(
    bounded: _Bounded, num_steps: int, blocks: int, cancelled: Callable[[], bool]
) -> Tax:
    def traced() -> Sample:
        bounded.traced(num_steps)
        assert bounded.on is not None
        return bounded.on

    arms = [Arm("off", lambda: bounded.run(num_steps, nullcontext())), Arm("on", traced)]
    found = interleave(arms, blocks, cancelled=cancelled)
    off, on = ([run for pair in found[name] for run in pair] for name in ("off", "on"))
    names = [name for name in off[0].phases_ms if off[0].phases_ms[name] > 0]
    # The quickest of so few runs: a run after a trace was written out begins with cold caches.
    by_phase = {
        name: min(r.phases_ms[name] for r in on) / min(r.phases_ms[name] for r in off)
        for name in names
    }
    off_ms, on_ms = (min(run.end_to_end_ms for run in runs) for runs in (off, on))
    return Tax(on_ms / off_ms, off_ms, on_ms, len(on), by_phase)
