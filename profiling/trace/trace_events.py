"""The JSON of a trace -> its timed events, whoever recorded them, and notes of what was mended.

In: the list under "traceEvents". Out: complete and instant events in the terms of today's
torch.profiler. What cannot be placed in time is left out and counted; a trace that is mostly so is
one :class:`TraceError`.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

from profiling.trace.trace_columns import DEVICE_CATS, Event, number, numbers
from profiling.trace.trace_file import TraceError

MAX_SPAN_US = 24 * 3600 * 1e6  # longer than any profile: two clocks, or a record that was lost
LOST_BEFORE_US = 60e6  # a time of 0 so long before all others is that of a lost record
MOST_BAD_SHARE = 0.05
# Processes that other recorders name after a device; their events have no category.
DEVICE_PROCESS = re.compile(r"/device:|Ascend Hardware|CUDA functions")


def timed_events(raw: list[Any], title: str) -> tuple[list[Event], list[str]]:
    """Return complete (X) and instant (i) events, and notes; pairs (B, E) become complete ones.

    Args:
        raw: everything under "traceEvents".
        title: what to call the trace in a message.

    Raises:
        TraceError: no event with a time, or too many with an impossible one.
    """
    listed = [event for event in raw if isinstance(event, dict)]
    if len(raw) - len(listed) > MOST_BAD_SHARE * len(raw):
        raise TraceError(
            f"{title} is JSON but no Chrome trace: expected a list of events under "
            "'traceEvents'; export it with torch.profiler's export_chrome_trace"
        )
    kinds = Counter(str(event.get("ph")) for event in listed)
    events = [event for event in listed if event.get("ph") in ("X", "i", "I")]
    notes = []
    if kinds["B"] or kinds["E"]:
        joined, left_over = _joined(listed)
        events += joined
        if left_over:
            notes.append(f"{left_over:,} begin or end events have no partner and were skipped")
    if skipped := kinds["C"] + kinds["b"] + kinds["e"]:
        notes.append(f"{skipped:,} counter and asynchronous events were skipped")
    if not events:
        raise TraceError(
            f"{title} has {len(raw):,} events and none with a time; "
            "record it while the model runs, with at least ProfilerActivity.CPU"
        )
    good, said = _possible(events, title)
    return _on_devices(good, listed), notes + said


def _joined(raw: list[Event]) -> tuple[list[Event], int]:
    """Join begin and end events in order of time, which need not be the file's."""
    timed = [(number(event.get("ts")), event) for event in raw if event.get("ph") in ("B", "E")]
    in_order = sorted((pair for pair in timed if pair[0] == pair[0]), key=lambda pair: pair[0])
    joined, lost = list[Event](), len(timed) - len(in_order)
    open_events: dict[tuple[str, str], list[tuple[float, Event]]] = {}
    for at, event in in_order:
        stack = open_events.setdefault((str(event.get("pid")), str(event.get("tid"))), [])
        if event["ph"] == "B":
            stack.append((at, event))
        elif stack:
            begun, first = stack.pop()
            joined.append({**first, "ph": "X", "dur": at - begun})
        else:
            lost += 1
    return joined, lost + sum(len(stack) for stack in open_events.values())


def _possible(events: list[Event], title: str) -> tuple[list[Event], list[str]]:
    """Leave out events whose times cannot be, if they are few."""
    ts = numbers([event.get("ts") for event in events])
    complete = np.array([event["ph"] == "X" for event in events])
    dur = np.where(complete, numbers([event.get("dur") for event in events]), 0.0)
    finite = np.isfinite(ts)
    middle = float(np.median(ts[finite])) if finite.any() else 0.0
    later = ts[finite & (ts > 0)]
    start = float(later.min()) if len(later) else 0.0
    with np.errstate(invalid="ignore"):
        faults = {
            "expected finite microseconds": ~finite | ~np.isfinite(dur),
            "negative durations; expected 0 or more: record it again": dur < 0,
            "its times come from more than one clock: record it again": (
                (np.abs(ts - middle) > MAX_SPAN_US)
                | (dur > MAX_SPAN_US)
                | ((ts == 0) & (start > LOST_BEFORE_US))
            ),
        }
    bad = np.logical_or.reduce(list(faults.values()))
    if not bad.any():
        return events, []
    first = events[int(np.argmax(bad))]
    said = f"(first: {first.get('name')!r}, ts {first.get('ts')!r}, dur {first.get('dur')!r})"
    if bad.sum() > MOST_BAD_SHARE * len(events):
        why = next(words for words, wrong in faults.items() if wrong[np.argmax(bad)])
        raise TraceError(f"{title} has {bad.sum():,} events with impossible times {said}: {why}")
    good = [event for event, wrong in zip(events, bad.tolist(), strict=True) if not wrong]
    num = int(bad.sum())
    return good, [f"{num:,} event{'s' if num > 1 else ''} with an impossible time left out {said}"]


def _on_devices(events: list[Event], raw: list[Event]) -> list[Event]:
    """Give work on a device's tracks its category, where the recorder gave it none."""
    named = [event for event in raw if event.get("ph") == "M" and event.get("args")]
    devices = {
        str(event.get("pid"))
        for event in (*named, *events)
        if DEVICE_PROCESS.search(f"{_name_in(event, 'process_name')} {event.get('pid')}")
    }
    if not devices or any(event.get("cat") in DEVICE_CATS for event in events):
        return events
    # Of XLA's tracks only streams hold kernels; the others say again what ran, by module and step.
    streams = {
        (str(event.get("pid")), str(event.get("tid")))
        for event in named
        if _name_in(event, "thread_name").startswith("Stream")
    }
    with_streams = {pid for pid, _ in streams}

    def is_work(event: Event) -> bool:
        pid, tid = str(event.get("pid")), str(event.get("tid"))
        return (
            pid in devices
            and not event.get("cat")
            and (pid not in with_streams or (pid, tid) in streams)
        )

    return [{**event, "cat": "kernel"} if is_work(event) else event for event in events]


def _name_in(event: Event, kind: str) -> str:
    args = event.get("args")
    return str(args.get("name", "")) if event.get("name") == kind and isinstance(args, dict) else ""
