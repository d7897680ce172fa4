"""A trace as a speedscope file: the host's calls of each thread, by time and by memory.

In: the :class:`profiling.trace.trace_index.TraceIndex` of a trace. Out: an object of speedscope's
file format (speedscope.app/file-format-schema.json), which its page and command open.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from profiling.trace.memory_events import allocated_by_call
from profiling.trace.trace_index import TraceIndex

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def speedscope(index: TraceIndex, title: str) -> dict[str, Any]:
    """Return the file's content, modules among the calls where they were recorded.

    Every thread is a profile of opened and closed calls in microseconds; where memory was recorded,
    one more has the bytes that each stack of calls allocated.

    Args:
        index: of the trace.
        title: shown above the flame graph.
    """
    index = index.with_modules
    names = index.call_names.astype(str)
    unique, frames = np.unique(names, return_inverse=True)
    profiles = [_timed(index, frames, thread, calls) for thread, calls in _threads(index).items()]
    stacks = _allocated(index, frames)
    return {
        "$schema": SCHEMA,
        "exporter": "granite-speech-lab",
        "name": title,
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": name} for name in unique.tolist()]},
        "profiles": [*profiles, *([stacks] if stacks["samples"] else [])],
    }


def _threads(index: TraceIndex) -> dict[str, np.ndarray]:
    """Name -> places of a thread's calls, those of the busiest thread first."""
    rows = index.events.loc[index.calls["row"], ["pid", "tid"]].astype(str)
    tracks = ("process " + rows["pid"] + ", thread " + rows["tid"]).reset_index(drop=True)
    own = index.calls["self_ns"].to_numpy()
    found = {str(track): calls for track, calls in tracks.groupby(tracks).indices.items()}
    return dict(sorted(found.items(), key=lambda one: -own[one[1]].sum()))


def _timed(index: TraceIndex, frames: np.ndarray, thread: str, calls: np.ndarray) -> dict[str, Any]:
    """Open and close the calls of one thread; one that outlasts its caller ends with it."""
    starts, ends = (index.calls[key].to_numpy() for key in ("start_ns", "end_ns"))
    parents = index.calls["parent"].to_numpy()
    events: list[dict[str, Any]] = []
    open_calls: list[tuple[int, int]] = []  # call, end

    def close(until: float) -> None:
        while open_calls and open_calls[-1][1] <= until:
            call, end = open_calls.pop()
            events.append({"type": "C", "frame": int(frames[call]), "at": end / 1000})

    for call in calls.tolist():
        close(float(starts[call]))
        # A call that overlaps without nesting pauses the one before it, and so ends it.
        while open_calls and open_calls[-1][0] != parents[call]:
            close(float(open_calls[-1][1]))
        end = min(int(ends[call]), open_calls[-1][1] if open_calls else int(ends[call]))
        events.append({"type": "O", "frame": int(frames[call]), "at": int(starts[call]) / 1000})
        open_calls.append((call, end))
    close(float("inf"))
    return {
        "type": "evented",
        "name": thread,
        "unit": "microseconds",
        "startValue": int(starts[calls].min()) / 1000,
        "endValue": int(ends[calls].max()) / 1000,
        "events": events,
    }


def _allocated(index: TraceIndex, frames: np.ndarray) -> dict[str, Any]:
    parents, samples, weights = index.calls["parent"].tolist(), [], []
    for call, size in enumerate(allocated_by_call(index).tolist()):
        if size > 0:
            stack, place = [], call
            while place >= 0:
                stack.append(int(frames[place]))
                place = parents[place]
            samples.append(stack[::-1])
            weights.append(size)
    return {
        "type": "sampled",
        "name": "memory allocated",
        "unit": "bytes",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
