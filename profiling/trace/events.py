"""A trace file -> a frame of events, whoever recorded it.

In: Chrome JSON of ``torch.profiler`` (or any other program), plain or gzipped: a path, bytes or an
open file. Out: :class:`Trace`, whose ``events`` have the columns of :data:`EVENT_COLUMNS`, in
microseconds from the first event. What a trace lacks is NaN and listed in ``lacks``, never 0.
The source is only read; anything wrong with it is one :class:`TraceError`.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from core.phases import PHASES
from profiling.trace.call_tree import launch_delays_us
from profiling.trace.trace_columns import DEVICE_CATS, MEMORY_EVENT, frame_of, number
from profiling.trace.trace_file import TraceError, TraceSource, load_json, title_of
from profiling.trace.trace_index import TraceIndex

MAX_JSON_BYTES = 400_000_000  # unpacked; the parsed objects need about six times as much memory
MAX_SPAN_US = 24 * 3600 * 1e6  # longer than any profile: two clocks in one file
MAX_LEAD_US = 1000.0  # a kernel cannot start before its launch; CUPTI is a few us off at times


@dataclass(frozen=True)
class Trace:
    """Events and whatever else the file said.

    metadata holds every top-level key but the events; notes what was mended or skipped; lacks what
    the recording does not contain, so that nobody takes its absence for a zero.
    """

    events: pd.DataFrame
    metadata: dict[str, Any]
    lacks: tuple[str, ...]
    notes: tuple[str, ...]

    @cached_property
    def index(self) -> TraceIndex:
        """Return what the trace's tables and figures share."""
        return TraceIndex(self.events)


def read_trace(source: TraceSource, *, max_json_bytes: int = MAX_JSON_BYTES) -> Trace:
    """Return a Chrome trace, ``.json`` or ``.json.gz`` by content.

    Args:
        source: a path, the file's bytes, or a file open in binary mode.
        max_json_bytes: refuse anything larger once unpacked.

    Raises:
        TraceError: truncated, not JSON, not a trace, too large, negative durations, mixed clocks.
    """
    title = title_of(source)
    with _collector_paused():  # collecting 200,000 fresh dicts over and over triples the time
        events, metadata, notes = _read(source, max_json_bytes, title)
    _check_clocks(events, title)
    return Trace(events, metadata, _missing(events), tuple(notes))


def _read(
    source: TraceSource, max_json_bytes: int, title: str
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Return events, metadata, notes. The parsed objects are gone when this returns."""
    raw = load_json(source, max_json_bytes)
    metadata: dict[str, Any] = {}
    if isinstance(raw, dict):
        metadata = {key: value for key, value in raw.items() if key != "traceEvents"}
        raw = raw.get("traceEvents")
    if not isinstance(raw, list) or not all(isinstance(event, dict) for event in raw):
        raise TraceError(
            f"{title} is JSON but no Chrome trace: expected a list of events under "
            "'traceEvents'; export it with torch.profiler's export_chrome_trace"
        )
    timed, notes = _timed_events(raw, title)
    return frame_of(timed, title), metadata, notes


def _timed_events(raw: list[dict[str, Any]], title: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Pick complete (X) and instant (i) events; pairs (B, E) are joined into complete ones."""
    kinds = Counter(str(event.get("ph")) for event in raw)
    events = [event for event in raw if event.get("ph") in ("X", "i", "I")]
    notes = []
    if kinds["B"] or kinds["E"]:
        joined, left_over = _joined(raw)
        events += joined
        if left_over:
            notes.append(f"{left_over:,} begin or end events have no partner and were skipped")
    counters = kinds["C"] + kinds["b"] + kinds["e"]
    if counters:
        notes.append(f"{counters:,} counter and asynchronous events were skipped")
    if not events:
        raise TraceError(
            f"{title} has {len(raw):,} events and none with a time; "
            "record it while the model runs, with at least ProfilerActivity.CPU"
        )
    return events, notes


def _joined(raw: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    open_events: dict[tuple[str, str], list[dict[str, Any]]] = {}
    joined, lost = [], 0
    for event in raw:
        stack = open_events.setdefault((str(event.get("pid")), str(event.get("tid"))), [])
        if event.get("ph") == "B":
            stack.append(event)
        elif event.get("ph") == "E" and not stack:
            lost += 1
        elif event.get("ph") == "E":
            begun = stack.pop()
            lasts = number(event.get("ts")) - number(begun.get("ts"))
            joined.append({**begun, "ph": "X", "dur": lasts})
    return joined, lost + sum(len(stack) for stack in open_events.values())


def _check_clocks(events: pd.DataFrame, title: str) -> None:
    """Check that all times come from one clock: within a day, no kernel before its launch."""
    ts = events["ts_us"].to_numpy()
    if ts[-1] > MAX_SPAN_US:
        far = int(np.argmax(np.abs(ts - np.median(ts))))
        raise TraceError(
            f"{title} spans {ts[-1] / 3.6e9:,.0f} hours (farthest: {events['name'][far]!r}); "
            "its times come from more than one clock: record it again"
        )
    lead = launch_delays_us(events)
    if len(lead) and -lead.median() > MAX_LEAD_US:
        raise TraceError(
            f"{title}: kernels start {-lead.median() / 1000:.1f} ms before they are launched; "
            "host and device clocks differ: record it again"
        )


def _missing(events: pd.DataFrame) -> tuple[str, ...]:
    """Say what the recording does not hold."""
    found = set(events["name"].cat.categories)
    cats = set(events["cat"].cat.categories)
    absent = {
        "no phases: none of its ranges is named after a phase": not found & set(PHASES),
        "no memory events: it was recorded without profile_memory": MEMORY_EVENT not in found,
        "no device events: it was recorded on a CPU": not cats & set(DEVICE_CATS),
        "no shapes: it was recorded without record_shapes": not events["input_dims"].notna().any(),
    }
    return tuple(words for words, is_missing in absent.items() if is_missing)


@contextmanager
def _collector_paused() -> Iterator[None]:
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
