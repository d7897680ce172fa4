"""Events -> which encloses which, and which phase each belongs to.

In: the events of :mod:`profiling.trace.events`. Out: frames and arrays in whole nanoseconds, so
that borders compare exactly: :func:`nest` for the host's calls, :func:`device_work` for kernels and
copies, :func:`phase_spans` and :func:`phase_segments` for the phases.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from core.phases import PHASES
from profiling.trace.trace_columns import DEVICE_CATS, LAUNCH_CATS

OUTSIDE = "other"  # the phase of whatever happens in no phase

# Mirrors of host ranges on the device's tracks, and the profiler's own bookkeeping: not calls.
NOT_CALLS = (*DEVICE_CATS, "gpu_user_annotation", "Trace", "overhead", "cuda_sync")

NEST_COLUMNS = {
    "row": "int64",  # place in the events
    "parent": "int64",  # place in this frame, -1 at the top
    "depth": "int64",
    "start_ns": "int64",
    "end_ns": "int64",
    "self_ns": "int64",  # duration without the time of enclosed calls
}
SPAN_COLUMNS = {"phase": "object", "start_ns": "int64", "end_ns": "int64"}
DEVICE_COLUMNS = {
    "row": "int64",
    "start_ns": "int64",
    "end_ns": "int64",
    "cause": "int64",  # the host call that launched it, as a place in the nest; -1 if unknown
    "caused_ns": "int64",  # when: the phase at this time is charged
}


def nest(events: pd.DataFrame) -> pd.DataFrame:
    """Return the host's calls with parents and self times, columns :data:`NEST_COLUMNS`.

    A sweep over each thread in order of time, longer call first, with a stack of open calls. Calls
    that overlap without nesting (marks around asynchronous work) share no time: each instant counts
    for the call that began last, so self times add up to the time covered.
    """
    calls = events[events["dur_us"].notna() & ~events["cat"].isin(NOT_CALLS)]
    starts, ends = _nanoseconds(calls)
    num_threads = len(calls["tid"].cat.categories)
    track = (
        calls["pid"].cat.codes.to_numpy(np.int64) * num_threads + calls["tid"].cat.codes.to_numpy()
    )
    order = np.lexsort((starts - ends, starts, track))
    starts, ends, track = starts[order], ends[order], track[order]
    parents, depths, own = _sweep(track.tolist(), starts.tolist(), ends.tolist())
    values = (calls.index.to_numpy()[order], parents, depths, starts, ends, own)
    return _declared(dict(zip(NEST_COLUMNS, values, strict=True)), NEST_COLUMNS)


def _sweep(
    track: list[int], starts: list[int], ends: list[int]
) -> tuple[list[int], list[int], list[int]]:
    parents, depths = [-1] * len(track), [0] * len(track)
    own = [end - start for start, end in zip(starts, ends, strict=True)]
    stack: list[int] = []
    for call, (here, start, end) in enumerate(zip(track, starts, ends, strict=True)):
        while stack and (track[stack[-1]] != here or ends[stack[-1]] <= start):
            stack.pop()
        if stack:
            parents[call], depths[call] = stack[-1], len(stack)
            taken = start
            for enclosing in reversed(stack):
                until = min(end, ends[enclosing])
                if until > taken:
                    own[enclosing] -= until - taken
                    taken = until
                if taken >= end:
                    break
        stack.append(call)
    return parents, depths, own


def phase_spans(events: pd.DataFrame) -> pd.DataFrame:
    """Find every span of a phase, by name whatever its category; :data:`SPAN_COLUMNS`."""
    ranges = events[
        events["name"].isin(PHASES) & events["dur_us"].notna() & ~events["cat"].isin(NOT_CALLS)
    ]
    starts, ends = _nanoseconds(ranges)
    columns = {"phase": ranges["name"].astype(object), "start_ns": starts, "end_ns": ends}
    return _declared(columns, SPAN_COLUMNS).sort_values("start_ns", kind="stable")


def phase_segments(spans: pd.DataFrame) -> pd.DataFrame:
    """Cut spans so that none overlap: each instant belongs to the phase that began last."""
    borders = np.unique(np.concatenate([spans["start_ns"], spans["end_ns"]]))
    listed = list(zip(spans["phase"], spans["start_ns"], spans["end_ns"], strict=True))
    segments: list[tuple[str, int, int]] = []
    active: list[tuple[str, int, int]] = []
    upcoming = 0
    for border, until in zip(borders[:-1], borders[1:], strict=True):
        while upcoming < len(listed) and listed[upcoming][1] <= border:
            active.append(listed[upcoming])
            upcoming += 1
        active = [span for span in active if span[2] > border]
        if active:
            segments.append((active[-1][0], int(border), int(until)))
    columns = dict(zip(SPAN_COLUMNS, zip(*segments, strict=True), strict=True)) if segments else {}
    return _declared({key: columns.get(key, []) for key in SPAN_COLUMNS}, SPAN_COLUMNS)


def phase_at(segments: pd.DataFrame, times_ns: np.ndarray) -> np.ndarray:
    """Return the phase at each time, :data:`OUTSIDE` where there is none."""
    if segments.empty:
        return np.full(len(times_ns), OUTSIDE, dtype=object)
    place = np.searchsorted(segments["start_ns"].to_numpy(), times_ns, side="right") - 1
    inside = (place >= 0) & (times_ns < segments["end_ns"].to_numpy()[place])
    return np.where(inside, segments["phase"].to_numpy()[place], OUTSIDE)


def device_work(events: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """Return kernels, copies and fills with the call that caused each; :data:`DEVICE_COLUMNS`.

    The launch is found by ``correlation``; without one, the operator by ``External id``; without
    either, the work is charged to the time at which it ran.
    """
    work = events[events["cat"].isin(DEVICE_CATS) & events["dur_us"].notna()]
    starts, ends = _nanoseconds(work)
    cause = np.full(len(work), -1, dtype=np.int64)
    host = events.loc[calls["row"]]
    is_launch = host["cat"].isin(LAUNCH_CATS).to_numpy()
    for key, usable in (("correlation", is_launch), ("external_id", ~is_launch)):
        ids = pd.Series(np.arange(len(calls)), index=host[key].to_numpy())[usable]
        ids = ids[ids.index.notna() & ~ids.index.duplicated()]
        found = work[key].map(ids).fillna(-1).to_numpy(dtype=np.int64)
        cause = np.where(cause >= 0, cause, found)
    caused = np.where(cause >= 0, calls["start_ns"].to_numpy()[cause] if len(calls) else 0, starts)
    values = (work.index.to_numpy(), starts, ends, cause, caused)
    return _declared(dict(zip(DEVICE_COLUMNS, values, strict=True)), DEVICE_COLUMNS)


def launch_delays_us(events: pd.DataFrame) -> pd.Series:
    """Return the time from a launch's start to its kernel's start, indexed by the kernel's row."""
    device = events[events["cat"].isin(DEVICE_CATS) & events["correlation"].notna()]
    launches = events[events["cat"].isin(LAUNCH_CATS) & events["correlation"].notna()]
    starts = launches.drop_duplicates("correlation").set_index("correlation")["ts_us"]
    return (device["ts_us"] - device["correlation"].map(starts)).dropna()


def union(starts: Iterable[int], ends: Iterable[int]) -> list[tuple[int, int]]:
    """Merge intervals where they touch or overlap, in order."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(zip(starts, ends, strict=True)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def covered_ns(starts: Iterable[int], ends: Iterable[int]) -> int:
    """Time covered by any of the intervals."""
    return sum(end - start for start, end in union(starts, ends))


def _nanoseconds(events: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    starts = np.rint(events["ts_us"].to_numpy() * 1000)
    ends = starts + np.rint(events["dur_us"].to_numpy() * 1000)
    return starts.astype(np.int64), ends.astype(np.int64)


def _declared(columns: dict[str, object], declared: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {key: pd.Series(np.asarray(columns[key]), dtype=kind) for key, kind in declared.items()}
    )
