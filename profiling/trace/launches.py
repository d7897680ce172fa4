"""Launches of work, and where nothing runs between them.

In: the :class:`profiling.trace.trace_index.TraceIndex` of a trace. Out: :func:`launch_times` and
:func:`launch_gaps`. A phase that is mostly gaps is bound by launching, not by arithmetic: that is
what compiling cures.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.phases import PHASES
from profiling.trace.call_tree import launch_delays_us, union
from profiling.trace.compile_marks import fused_kernels_hidden, is_mark
from profiling.trace.trace_columns import LAUNCH_CATS
from profiling.trace.trace_index import TraceIndex

# In the names of the runtimes' functions.
LAUNCHING = "LaunchKernel|GraphLaunch|LaunchCooperativeKernel|EnqueueKernelLaunch"

GAP_COLUMNS = {
    "phase": "object",
    "where": "object",  # "device": no kernel ran; "host": no operator ran
    "busy_ms": "float64",
    "idle_ms": "float64",
    "idle_share": "float64",  # of the phase
    "num_gaps": "int64",
    "longest_gap_us": "float64",
    "launch_delay_us": "float64",  # median from launch to kernel; NaN without a device
    "trusted": "bool",  # False: fused CPU kernels were not recorded, and look like gaps
}


def launch_times(index: TraceIndex) -> np.ndarray:
    """Return launch times in ns of kernels and graphs; on a CPU, of operators that call no other.

    A fused CPU kernel counts as an operator; it is in the trace only if it was compiled with
    ``enable_kernel_profile``. The marks of the compiled call itself are no work.
    """
    events, calls = index.events, index.calls
    names, cats = events["name"].cat, events["cat"].astype(object)
    titles = pd.Series(names.categories.astype(object))
    if index.has_device:
        wanted = titles[titles.str.contains(LAUNCHING)]
        launching = cats.isin(LAUNCH_CATS) & events["name"].isin(wanted)
        return calls["start_ns"][launching.to_numpy()[calls["row"]]].to_numpy()
    no_work = titles[is_mark(titles) | titles.isin(PHASES)]
    operator = (cats == "cpu_op") & ~events["name"].isin(no_work)
    calls_another = np.zeros(len(calls), dtype=bool)
    calls_another[calls["parent"][calls["parent"] >= 0]] = True
    return calls["start_ns"][operator.to_numpy()[calls["row"]] & ~calls_another].to_numpy()


def launch_gaps(index: TraceIndex) -> pd.DataFrame:
    """Return busy and idle time by phase, columns :data:`GAP_COLUMNS`; empty without phases.

    With a device: time in which none of its kernels ran. Without: time in which the phase's thread
    was in no operator, that is in Python or waiting.
    """
    calls, spans, on_device = index.calls, index.spans, index.has_device
    if on_device:
        work, delays = index.device_work, launch_delays_us(index.events)
    else:
        in_phase = np.isin(index.call_names, PHASES)
        parents = calls["parent"].to_numpy()
        work = calls[(parents >= 0) & in_phase[parents]]
    work = work.sort_values("start_ns", kind="stable")
    starts, ends = work["start_ns"].to_numpy(), work["end_ns"].to_numpy()
    latest = np.maximum.accumulate(ends)
    rows = []
    for phase in [name for name in PHASES if name in set(spans["phase"])]:
        gaps: list[int] = []
        busy = wall = 0
        inside_any = np.zeros(len(work), dtype=bool)
        for _, begin, end in spans[spans["phase"] == phase].itertuples(index=False):
            near = slice(latest.searchsorted(begin, "right"), starts.searchsorted(end))
            inside = ends[near] > begin
            inside_any[near] |= inside
            merged = union(
                starts[near][inside].clip(begin, end), ends[near][inside].clip(begin, end)
            )
            borders = [begin, *(time for interval in merged for time in interval), end]
            idle = [b - a for a, b in zip(borders[::2], borders[1::2], strict=True) if b > a]
            gaps += idle
            busy += int(end - begin) - sum(idle)
            wall += int(end - begin)
        late = delays.reindex(work["row"][inside_any]).dropna() if on_device else pd.Series([])
        rows.append(
            {
                "phase": phase,
                "where": "device" if on_device else "host",
                "busy_ms": busy / 1e6,
                "idle_ms": sum(gaps) / 1e6,
                "idle_share": sum(gaps) / wall if wall else np.nan,
                "num_gaps": len(gaps),
                "longest_gap_us": max(gaps, default=0) / 1e3,
                "launch_delay_us": float(late.median()) if len(late) else np.nan,
                "trusted": not fused_kernels_hidden(index),
            }
        )
    return pd.DataFrame(rows, columns=list(GAP_COLUMNS)).astype(GAP_COLUMNS)
