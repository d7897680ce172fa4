"""Profiled runs -> memory by phase, over time, and by what it holds; several runs give a spread.

In: finished sessions of torch's profiler, of the same work. Out: plain JSON types. The events are
read where the profiler keeps them: writing a trace out and reading it back takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import profile

from core.memory import weight_bytes
from core.phases import PHASES
from profiling.trace.memory_events import extremes, rise
from profiling.trace.trace_columns import MEMORY_EVENT

MOST_POINTS = 400  # of a curve that is kept in run.json


@dataclass(frozen=True)
class MemoryRun:
    """One run on the device that computes. times_ns and levels: [events]; a level is in bytes.

    peaks: phase -> the most it rose above where a stay in it began.
    """

    device: str
    start_ns: int
    times_ns: np.ndarray
    levels: np.ndarray
    peaks: dict[str, float]


def memory_run(session: profile, device: torch.device) -> MemoryRun:
    """Read what a stopped session saw allocated and freed on ``device``."""
    assert session.profiler is not None
    results: Any = session.profiler.kineto_results
    kind = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    changes: list[tuple[int, int]] = []
    stays: dict[str, list[tuple[int, int]]] = {}
    for event in results.events():
        name = event.name()
        if name == MEMORY_EVENT and event.device_type() == kind:
            changes.append((event.start_ns(), event.nbytes()))
        elif name in PHASES and event.device_type() == DeviceType.CPU:
            stays.setdefault(name, []).append((event.start_ns(), event.end_ns()))
    table = np.array(sorted(changes, key=lambda one: one[0]), dtype=np.int64).reshape(-1, 2)
    times, levels = table[:, 0], np.cumsum(table[:, 1]).astype(float)
    peaks = {
        name: rise(times, levels, *np.array(stays[name], dtype=np.int64).T)[0]
        for name in PHASES
        if name in stays
    }
    return MemoryRun(str(device), results.trace_start_ns(), times, levels, peaks)


def memory_rows(runs: Sequence[MemoryRun]) -> list[dict[str, Any]]:
    """Return for each phase the median peak of the runs with the least and the most of them."""
    rows = []
    for phase in dict.fromkeys(name for run in runs for name in run.peaks):
        peaks = [run.peaks[phase] for run in runs if phase in run.peaks]
        rows.append(
            {
                "phase": phase,
                "device": runs[0].device,
                "peak_bytes": int(median(peaks)),
                "low_bytes": int(min(peaks)),
                "high_bytes": int(max(peaks)),
                "runs": len(peaks),
            }
        )
    return rows


def memory_curve_of(run: MemoryRun) -> dict[str, list[float]]:
    """Thin a run's curve out, keeping every peak: ``ms`` since the start, ``bytes`` above it."""
    kept = extremes(run.levels, MOST_POINTS)
    moments = (run.times_ns[kept] - run.start_ns) / 1e6
    return {"ms": moments.round(3).tolist(), "bytes": run.levels[kept].tolist()}


def memory_parts(
    model: nn.Module, runs: Sequence[MemoryRun], cache_bytes: int, process_bytes: int
) -> dict[str, int]:
    """Tell apart what memory held at the most.

    Args:
        model: whose weights were there before.
        runs: at least one.
        cache_bytes: of a request's keys and values, which were allocated during the runs.
        process_bytes: the most that the process, or the GPU's allocator, held.

    Returns:
        ``weights_bytes``, ``cache_bytes``, ``activations_bytes`` (whatever else was allocated at
        the highest moment) and ``process_bytes``.
    """
    top = median(run.levels.max(initial=0.0) for run in runs)
    return {
        "weights_bytes": weight_bytes(model),
        "cache_bytes": cache_bytes,
        "activations_bytes": int(max(0.0, top - cache_bytes)),
        "process_bytes": process_bytes,
    }
