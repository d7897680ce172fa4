"""A trace file -> a frame of events, whoever recorded it.

In: Chrome JSON of ``torch.profiler`` (or any other program), plain or gzipped: a path, bytes or an
open file. Out: :class:`Trace`, whose ``events`` have the columns of :data:`EVENT_COLUMNS`, in
microseconds from the first event. What a trace lacks is NaN and listed in ``lacks``, never 0.
The source is only read; anything wrong with it is one :class:`TraceError`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from core.phases import PHASES
from profiling.trace.call_tree import launch_delays_us
from profiling.trace.trace_columns import DEVICE_CATS, MEMORY_EVENT, frame_of
from profiling.trace.trace_events import timed_events
from profiling.trace.trace_file import TraceError, TraceSource, load_json, title_of
from profiling.trace.trace_index import TraceIndex

MAX_JSON_BYTES = 400_000_000  # unpacked; the parsed objects need about six times as much memory
NO_DEVICE = "no device events: none of category kernel, gpu_memcpy or gpu_memset"
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
    raw, notes = load_json(source, max_json_bytes)
    metadata: dict[str, Any] = {}
    if isinstance(raw, dict):
        metadata = {key: value for key, value in raw.items() if key != "traceEvents"}
        raw = raw.get("traceEvents")
    timed, said = timed_events(raw if isinstance(raw, list) else [None], title)
    return frame_of(timed), metadata, notes + said


def _check_clocks(events: pd.DataFrame, title: str) -> None:
    """Check that host and device share a clock: no kernel starts before its launch."""
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
        NO_DEVICE: not cats & set(DEVICE_CATS),
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
