"""Events -> which encloses which, and which phase each belongs to.

In: the events of :mod:`profiling.trace.events`. Out: frames and arrays in whole nanoseconds, so
that borders compare exactly: :func:`nest` for the host's calls, :func:`device_work` for kernels and
copies, :func:`phase_spans` and :func:`phase_segments` for the phases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import permutations

import numpy as np
import pandas as pd

from core.phases import PHASES
from profiling.trace.trace_columns import DEVICE_CATS, LAUNCH_CATS

MOST_RANKS = 6  # in one file, whose devices can be told by trying
OUTSIDE = "other"  # the phase of whatever happens in no phase

# Not calls: mirrors of host ranges on the device's tracks, the profiler's own bookkeeping, and
# frames of Python, which would hide the waiting inside them.
OWN_CATS = ("gpu_user_annotation", "Trace", "overhead", "cuda_sync", "python_function")
NOT_CALLS = (*DEVICE_CATS, *OWN_CATS)

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
    parents, depths, own = ([start] * len(track) for start in (-1, 0, 0))
    stack: list[int] = []
    clock = 0  # time up to which is counted

    def end_calls(until: float) -> None:
        nonlocal clock
        while stack and ends[stack[-1]] <= until:
            ended = stack.pop()
            own[ended] += max(0, ends[ended] - clock)
            clock = max(clock, ends[ended])

    for call, (here, start) in enumerate(zip(track, starts, strict=True)):
        end_calls(math.inf if stack and track[stack[-1]] != here else start)
        if stack:
            parents[call], depths[call] = stack[-1], len(stack)
            own[stack[-1]] += start - clock
        clock = start
        stack.append(call)
    end_calls(math.inf)
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
        while active and active[-1][2] <= border:
            active.pop()
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
    owner = owners(events)
    host, hosts_owner = events.loc[calls["row"]], owner[calls["row"]]
    is_launch = host["cat"].isin(LAUNCH_CATS).to_numpy()
    for key, usable in (("correlation", is_launch), ("external_id", ~is_launch)):
        left = pd.DataFrame({"owner": hosts_owner, key: host[key].to_numpy()})
        left = left.assign(call=np.arange(len(calls)))[usable].dropna()
        right = pd.DataFrame({"owner": owner[work.index], key: work[key].to_numpy()})
        both = right.merge(left.drop_duplicates(["owner", key]), "left", ["owner", key])
        found = both["call"].fillna(-1).to_numpy(dtype=np.int64)
        cause = np.where(cause >= 0, cause, found)
    caused = np.where(cause >= 0, calls["start_ns"].to_numpy()[cause] if len(calls) else 0, starts)
    values = (work.index.to_numpy(), starts, ends, cause, caused)
    return _declared(dict(zip(DEVICE_COLUMNS, values, strict=True)), DEVICE_COLUMNS)


def owners(events: pd.DataFrame) -> np.ndarray:
    """Return the process that each event belongs to, for ids that several processes count alike.

    A device's events have a process of their own. Where only one process launched, or none launched
    under the same ids as another, all events are the same owner's; in traces of several ranks each
    device belongs to the process whose launches came shortly before its kernels.
    """
    pids = events["pid"].cat.codes.to_numpy(np.int64)
    launches = events[events["cat"].isin(LAUNCH_CATS) & events["correlation"].notna()]
    kernels = events[events["cat"].isin(DEVICE_CATS) & events["correlation"].notna()]
    hosts, devices = (sorted(part["pid"].cat.codes.unique()) for part in (launches, kernels))
    several = len(hosts) > 1 and not launches["correlation"].is_unique
    if not several or len(hosts) != len(devices) or len(hosts) > MOST_RANKS:
        return np.zeros(len(events), dtype=np.int64)
    starts = {
        pid: part.drop_duplicates("correlation").set_index("correlation")["ts_us"]
        for part in (launches, kernels)
        for pid, part in part.groupby(part["pid"].cat.codes)
    }

    def delay(device: int, host: int) -> float:
        found = float((starts[device] - starts[host]).median())
        return found if found >= 0 else math.inf  # never before its launch, or nothing in common

    costs = {(device, host): delay(device, host) for device in devices for host in hosts}
    best = min(
        permutations(hosts),
        key=lambda order: (
            round(sum(costs[pair] for pair in zip(devices, order, strict=True)), 3)
            if all(math.isfinite(costs[pair]) for pair in zip(devices, order, strict=True))
            else math.inf
        ),
    )
    of_device = dict(zip(devices, best, strict=True))
    return np.array([of_device.get(pid, pid) for pid in range(pids.max() + 1)])[pids]


def launch_delays_us(events: pd.DataFrame) -> pd.Series:
    """Return the time from a launch's start to its kernel's start, indexed by the kernel's row."""
    timed = events[["correlation", "ts_us"]].assign(owner=owners(events), row=events.index)
    timed = timed[events["correlation"].notna()]
    cats = events["cat"][timed.index]
    device = timed[cats.isin(DEVICE_CATS)]
    launches = timed[cats.isin(LAUNCH_CATS)].drop_duplicates(["owner", "correlation"])
    both = device.merge(launches, on=["owner", "correlation"], suffixes=("", "_launched"))
    return pd.Series((both["ts_us"] - both["ts_us_launched"]).to_numpy(), index=both["row"])


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
