"""Memory events of a trace -> a curve, and the peak of each phase.

In: the :class:`profiling.trace.trace_index.TraceIndex` of a trace. Out: bytes over time and per
phase, by device; empty for a trace without memory events. On a CPU the profiler sees only what is
allocated while it runs: activations and caches, not the weights, which were there before.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.phases import PHASES
from profiling.trace.trace_columns import MEMORY_EVENT
from profiling.trace.trace_index import TraceIndex

CURVE_COLUMNS = {
    "ts_us": "float64",
    "device": "object",  # "cpu", "cuda:0", ...
    "phase": "object",
    "bytes": "float64",  # of this event; negative: freed
    "allocated_bytes": "float64",  # since the recording began
    "total_bytes": "float64",  # as the allocator counts: on a CPU across all recordings so far
    "reserved_bytes": "float64",  # held by the caching allocator; NaN on a CPU, which has none
}
PEAK_COLUMNS = {
    "phase": "object",
    "device": "object",
    "peak_bytes": "float64",  # most above the level at which a stay in the phase began
    "net_bytes": "float64",  # what its spans left behind, summed
    "allocations": "int64",
}
CPU, CUDA = 0, 1  # c10::DeviceType


def memory_curve(index: TraceIndex) -> pd.DataFrame:
    """Return allocated bytes after each allocation and release; columns :data:`CURVE_COLUMNS`.

    The profiler's "Total Allocated" goes on counting where the process's previous recording ended,
    so the level before the first event is subtracted, device by device.
    """
    events = index.events
    found = events[(events["name"] == MEMORY_EVENT) & events["total_allocated_bytes"].notna()]
    devices = [
        _device_name(kind, index)
        for kind, index in zip(found["device_type"], found["device_index"], strict=True)
    ]
    times_ns = np.rint(found["ts_us"].to_numpy() * 1000).astype(np.int64)
    total = found["total_allocated_bytes"]
    before = total - found["bytes"]
    on_cpu = np.array([device == "cpu" for device in devices], dtype=bool)
    start = before.groupby(devices).transform("first") if len(found) else total
    columns = {
        "ts_us": found["ts_us"],
        "device": np.array(devices, dtype=object),
        "phase": index.phase_at(times_ns),
        "bytes": found["bytes"],
        "allocated_bytes": total - start,
        "total_bytes": total,
        "reserved_bytes": np.where(on_cpu, np.nan, found["total_reserved_bytes"]),
    }
    return pd.DataFrame(columns).reset_index(drop=True).astype(CURVE_COLUMNS)


def memory_peaks(index: TraceIndex) -> pd.DataFrame:
    """Return the highest each phase rose above where it began; columns :data:`PEAK_COLUMNS`.

    A peak, not a net: a buffer made and freed inside the phase counts. Of several spans of a phase
    the highest counts. Empty where memory or phases were not recorded.
    """
    curve, spans = memory_curve(index), index.spans
    rows = []
    for device in dict.fromkeys(curve["device"]):
        mine = curve[curve["device"] == device]
        times_ns = np.rint(mine["ts_us"].to_numpy() * 1000).astype(np.int64)
        levels = mine["allocated_bytes"].to_numpy()
        for phase in [name for name in PHASES if name in set(spans["phase"])]:
            stretches = spans[spans["phase"] == phase]
            starts, ends = (stretches[key].to_numpy() for key in ("start_ns", "end_ns"))
            peak, net = rise(times_ns, levels, starts, ends)
            within = zip(*_places(times_ns, starts, ends), strict=True)
            made = sum((mine["bytes"].to_numpy()[a:b] > 0).sum() for a, b in within)
            rows.append(
                {
                    "phase": phase,
                    "device": device,
                    "peak_bytes": peak,
                    "net_bytes": net,
                    "allocations": int(made),
                }
            )
    return pd.DataFrame(rows, columns=list(PEAK_COLUMNS)).astype(PEAK_COLUMNS)


def allocated_by_call(index: TraceIndex) -> np.ndarray:
    """Return the bytes that each host call allocated itself, [calls]; what it freed counts too.

    An allocation belongs to the innermost call that was open on its thread.
    """
    events, calls = index.events, index.calls
    found = np.zeros(len(calls))
    made = events[(events["name"] == MEMORY_EVENT) & (events["bytes"] > 0)]
    starts, ends, parents = (calls[key].to_numpy() for key in ("start_ns", "end_ns", "parent"))
    threads = events.loc[calls["row"], "tid"].astype(str).to_numpy()
    times = np.rint(made["ts_us"].to_numpy() * 1000).astype(np.int64)
    owners = made["tid"].astype(str).to_numpy()
    for thread in np.unique(owners):
        mine, here = np.flatnonzero(threads == thread), owners == thread
        mine = mine[np.argsort(starts[mine], kind="stable")]
        before = np.searchsorted(starts[mine], times[here], side="right") - 1
        sizes = made["bytes"].to_numpy()[here]
        for place, time, size in zip(before, times[here], sizes, strict=True):
            call = mine[place] if place >= 0 else -1
            while call >= 0 and ends[call] <= time:
                call = parents[call]
            if call >= 0:
                found[call] += size
    return found


def rise(
    times_ns: np.ndarray, levels: np.ndarray, starts_ns: np.ndarray, ends_ns: np.ndarray
) -> tuple[float, float]:
    """Return how far memory rose within stretches of time, at the most and in all.

    Args:
        times_ns: [events], in order.
        levels: [events] bytes allocated after each event; 0 before the first.
        starts_ns: [stretches].
        ends_ns: [stretches].

    Returns:
        The most above the level at which a stretch began, and the sum of what each left behind.
    """
    # Level before each event; the last entry is the level after all of them.
    steps = np.concatenate([[0.0], levels])
    ranges = list(zip(*_places(times_ns, starts_ns, ends_ns), strict=True))
    peak = max(steps[a : b + 1].max() - steps[a] for a, b in ranges)
    return float(peak), float(sum(steps[b] - steps[a] for a, b in ranges))


def _places(times_ns: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, ...]:
    return (
        np.searchsorted(times_ns, starts, side="left"),
        np.searchsorted(times_ns, ends, side="right"),
    )


def extremes(levels: np.ndarray, most: int) -> np.ndarray:
    """Return places so that every stretch keeps its first, lowest, highest and last value."""
    if len(levels) <= most:
        return np.arange(len(levels))
    pieces = np.array_split(np.arange(len(levels)), most // 4)
    kept = [
        place
        for piece in pieces
        for place in (
            piece[0],
            piece[levels[piece].argmin()],
            piece[levels[piece].argmax()],
            piece[-1],
        )
    ]
    return np.unique(kept)


def _device_name(kind: float, index: float) -> str:
    if np.isnan(kind) or kind == CPU:
        return "cpu"
    name = "cuda" if kind == CUDA else f"device type {kind:.0f}"
    return name if np.isnan(index) or index < 0 else f"{name}:{index:.0f}"
