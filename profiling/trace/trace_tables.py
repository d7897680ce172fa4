"""All tables of one trace: for programs as JSON, for people as files.

In: a :class:`profiling.trace.events.Trace`. Out: frames by name, or plain JSON types.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from profiling.trace.breakdown import operator_table, phase_table
from profiling.trace.compile_marks import compile_overhead
from profiling.trace.events import Trace
from profiling.trace.launches import launch_gaps
from profiling.trace.memory_events import memory_curve, memory_peaks
from profiling.trace.trace_index import TraceIndex

TOP_OPERATORS = 20


def trace_tables(trace: Trace) -> dict[str, pd.DataFrame]:
    """Return every table, whole, but no empty ones; columns are declared where each is made."""
    index = trace.index
    tables = {
        **_main_tables(index),
        "memory_over_time": memory_curve(index),
        "compiled_calls": compile_overhead(index),
    }
    return {name: table for name, table in tables.items() if len(table)}


def trace_json(trace: Trace) -> dict[str, Any]:
    """Return what programs get: the most expensive operators, other tables, what is missing."""
    tables = _main_tables(trace.index)
    tables["operators"] = tables["operators"].head(TOP_OPERATORS)
    # Through pandas' own writer, for it knows its missing values: they become null.
    data = {name: json.loads(frame.to_json(orient="records")) for name, frame in tables.items()}
    rest = {"num_events": len(trace.events), "lacks": list(trace.lacks), "notes": list(trace.notes)}
    return {**data, **rest}


def _main_tables(index: TraceIndex) -> dict[str, pd.DataFrame]:
    return {
        "phases": phase_table(index),
        "operators": operator_table(index),
        "gaps": launch_gaps(index),
        "memory": memory_peaks(index),
    }
