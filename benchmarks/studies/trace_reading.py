"""Time from a large trace's file to its figures: ``python -m benchmarks trace-reading``.

In: a number of events. Out: seconds for reading, tabulating and drawing, the median over several
runs, beside the bar of 2 s for 200,000 events. The trace is made up, in the shape that
torch.profiler writes: phases around nested operators, with allocations between them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from profiling.figures.memory_curves import memory_over_time
from profiling.figures.trace_views import operator_icicle, timeline, top_operators
from profiling.trace.breakdown import operator_paths, operator_table, phase_table
from profiling.trace.events import read_trace
from profiling.trace.memory_events import memory_curve, memory_peaks

BAR_S = 2.0
OPERATORS = ("aten::linear", "aten::layer_norm", "aten::scaled_dot_product_attention", "aten::silu")
PER_PHASE = 900


def made_up_trace(num_events: int) -> bytes:
    """Make a gzipped Chrome trace of ``num_events`` events: prefill, then decode passes."""
    events = list(_events(num_events))
    return gzip.compress(json.dumps({"traceEvents": events}).encode(), compresslevel=1)


def _events(num_events: int) -> Iterator[dict[str, Any]]:
    """Phases of operators, each with two children and an allocation after it."""
    made, now, in_use = 0, 0.0, 0
    while made < num_events:
        phase = "prefill" if made == 0 else "decode"
        size = min(PER_PHASE, num_events - made)
        yield _span("user_annotation", phase, now, 10.0 * size)
        made += 1
        for number in range((size - 1) // 4):
            begin = now + 1.0 + 39.0 * number
            name = OPERATORS[number % len(OPERATORS)]
            yield _span("cpu_op", name, begin, 30.0)
            yield _span("cpu_op", "aten::addmm", begin + 2.0, 12.0)
            yield _span("cpu_op", "aten::copy_", begin + 16.0, 8.0)
            in_use += 4096 if number % 2 == 0 else -4096
            yield _allocation(begin + 31.0, in_use, 4096 if number % 2 == 0 else -4096)
            made += 4
        made += max(0, (size - 1) % 4)
        now += 10.0 * size + 5.0


def _span(category: str, name: str, begin: float, length: float) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": 1,
        "tid": 1,
        "ts": begin,
        "dur": length,
        "args": {"External id": 1},
    }


def _allocation(at: float, in_use: int, size: int) -> dict[str, Any]:
    numbers = {"Device Type": 0, "Device Id": -1, "Bytes": size, "Total Allocated": in_use}
    return {
        "ph": "i",
        "s": "t",
        "cat": "cpu_instant_event",
        "name": "[memory]",
        "pid": 1,
        "tid": 1,
        "ts": at,
        "args": numbers | {"Addr": 1, "Total Reserved": 0},
    }


def measure(source: bytes) -> dict[str, float]:
    """Time the three steps, once, in seconds."""
    began = time.perf_counter()
    trace = read_trace(source)
    read = time.perf_counter()
    index = trace.index
    phase_table(index)
    operators, paths = operator_table(index), operator_paths(index)
    curve = memory_curve(index)
    memory_peaks(index)
    tabulated = time.perf_counter()
    drawings: list[Callable[[], Any]] = [
        lambda: timeline(index),
        lambda: operator_icicle(paths),
        lambda: top_operators(operators),
        lambda: memory_over_time(curve, index),
    ]
    for draw in drawings:
        draw().to_json()
    drawn = time.perf_counter()
    return {
        "events": float(len(trace.events)),
        "read_s": read - began,
        "tables_s": tabulated - read,
        "figures_s": drawn - tabulated,
        "total_s": drawn - began,
    }


def main(arguments: Sequence[str]) -> int:
    """Print the medians; 1 where the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks trace-reading", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parsed = parser.parse_args(arguments)
    source = made_up_trace(parsed.events)
    runs = [measure(source) for _ in range(parsed.runs)]
    middle = {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}
    met = middle["total_s"] < BAR_S
    print(json.dumps(middle))
    print(f"bar: {BAR_S} s for 200,000 events: {'met' if met else 'missed'}")
    return 0 if met else 1
