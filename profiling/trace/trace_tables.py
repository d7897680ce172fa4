"""All tables of one trace: for programs as JSON, for people as files.

In: a :class:`profiling.trace.events.Trace`. Out: frames by name, or plain JSON types.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from profiling.trace.breakdown import operator_table, phase_table
from profiling.trace.call_tree import nest
from profiling.trace.compile_marks import compile_overhead
from profiling.trace.events import Trace
from profiling.trace.launches import launch_gaps
from profiling.trace.memory_events import memory_curve, memory_peaks

TOP_OPERATORS = 20


def trace_tables(trace: Trace) -> dict[str, pd.DataFrame]:
    """Every table, whole; columns are declared where each is made. Empty ones are left out."""
    events, calls = trace.events, nest(trace.events)
    tables = {
        "phases": phase_table(events, calls=calls),
        "operators": operator_table(events, calls=calls),
        "gaps": launch_gaps(events, calls=calls),
        "memory": memory_peaks(events),
        "memory_over_time": memory_curve(events),
        "compiled_calls": compile_overhead(events, calls=calls),
    }
    return {name: table for name, table in tables.items() if len(table)}


def trace_json(trace: Trace) -> dict[str, Any]:
    """What programs get: the dearest operators, the other tables whole, and what is missing."""
    events, calls = trace.events, nest(trace.events)
    tables = {
        "phases": phase_table(events, calls=calls),
        "operators": operator_table(events, calls=calls).head(TOP_OPERATORS),
        "gaps": launch_gaps(events, calls=calls),
        "memory": memory_peaks(events),
    }
    # Through pandas' own writer, for it knows its missing values: they become null.
    data = {name: json.loads(frame.to_json(orient="records")) for name, frame in tables.items()}
    rest = {"num_events": len(events), "lacks": list(trace.lacks), "notes": list(trace.notes)}
    return {**data, **rest}
