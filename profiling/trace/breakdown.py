"""Events of a trace -> tables: phases, operators, and the tree of calls behind the icicle.

In: the :class:`profiling.trace.trace_index.TraceIndex` of a trace. Out: frames whose columns stand
beside the function that makes them, in milliseconds; NaN, never 0, for what the trace lacks. Times
of a trace include the profiler's own cost: they say where time goes,
:mod:`profiling.measure.timing` says how much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from core.phases import PHASES
from profiling.trace.call_tree import OUTSIDE, covered_ns
from profiling.trace.launches import launch_times
from profiling.trace.module_names import is_module, name_in_tree
from profiling.trace.trace_columns import LAUNCH_CATS
from profiling.trace.trace_index import TraceIndex

NS_PER_MS = 1e6

PHASE_COLUMNS = {
    "phase": "object",  # in the order of core.phases, then "other": time in no phase
    "num_spans": "Int64",
    "wall_ms": "float64",  # time inside the phase on the host
    "self_ms": "float64",  # of it, not inside any operator: Python and waiting
    "device_ms": "float64",  # time in which a device did the phase's work; NaN without a device
    "num_launches": "Int64",  # kernels launched; on a CPU, operators that call no other
    "launched": "object",  # "kernels" or "operators"
    "share": "float64",  # wall_ms over the time from the first phase's start to the last one's end
}
OPERATOR_COLUMNS = {
    "phase": "object",
    "name": "object",
    "num_calls": "int64",
    "total_ms": "float64",  # with the calls inside it
    "self_ms": "float64",  # without
    "device_ms": "float64",  # kernels that it launched itself; NaN without a device
    "share": "float64",  # of all self time
}
PATH_COLUMNS = {
    "id": "int64",
    "parent_id": "int64",  # -1 at the top
    "label": "object",
    "phase": "object",
    "own": "float64",  # milliseconds, or what was asked for; not shown in a child
    "total": "float64",
    "num_calls": "int64",
}


def phase_table(index: TraceIndex) -> pd.DataFrame:
    """Return what each phase took, columns :data:`PHASE_COLUMNS`; empty without phases.

    The row "other" is the time between the first phase's start and the last one's end that belongs
    to no phase, so that ``wall_ms`` adds up to that time wherever phases do not overlap.
    """
    spans = index.spans
    if spans.empty:
        return pd.DataFrame(columns=list(PHASE_COLUMNS)).astype(PHASE_COLUMNS)
    first, last = int(spans["start_ns"].min()), int(spans["end_ns"].max())
    launched_at = launch_times(index)
    in_window = launched_at[(launched_at >= first) & (launched_at < last)]
    launches = pd.Series(index.phase_at(in_window)).value_counts()
    work = index.device_work
    work = work[(work["caused_ns"] >= first) & (work["caused_ns"] < last)]
    work_phase = index.phase_at(work["caused_ns"].to_numpy())
    kind = "kernels" if index.has_device else "operators"
    rows = []
    for phase in [*(name for name in PHASES if name in set(spans["phase"])), OUTSIDE]:
        mine = spans[spans["phase"] == phase]
        own = float(index.calls["self_ns"][index.call_names == phase].sum())
        wall = covered_ns(mine["start_ns"], mine["end_ns"])
        if phase == OUTSIDE:
            wall = last - first - covered_ns(spans["start_ns"], spans["end_ns"])
        done = work[work_phase == phase]
        device = covered_ns(done["start_ns"], done["end_ns"])
        rows.append(
            {
                "phase": phase,
                "num_spans": pd.NA if phase == OUTSIDE else len(mine),
                "wall_ms": wall / NS_PER_MS,
                "self_ms": np.nan if phase == OUTSIDE else own / NS_PER_MS,
                "device_ms": device / NS_PER_MS if kind == "kernels" else np.nan,
                "num_launches": int(launches.get(phase, 0)),
                "launched": kind,
                "share": wall / (last - first) if last > first else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=list(PHASE_COLUMNS)).astype(PHASE_COLUMNS)


def operator_table(index: TraceIndex) -> pd.DataFrame:
    """Sum calls by phase and name, most self time first; columns :data:`OPERATOR_COLUMNS`."""
    calls, call_names = index.calls, index.call_names
    parents = calls["parent"].to_numpy()
    repeated = (parents >= 0) & (call_names[parents] == call_names)  # inside a call of its own name
    frame = pd.DataFrame(
        {
            "phase": index.call_phases,
            "name": call_names,
            "total_ms": np.where(repeated, 0, calls["end_ns"] - calls["start_ns"]) / NS_PER_MS,
            "self_ms": calls["self_ns"] / NS_PER_MS,
            "device_ms": _device_ms(index),
        }
    )
    frame = frame[~frame["name"].isin(PHASES) & ~frame["name"].str.startswith("ProfilerStep#")]
    groups = frame.groupby(["phase", "name"], sort=False)
    table = groups[["total_ms", "self_ms", "device_ms"]].sum(min_count=1)
    table.insert(0, "num_calls", groups.size())
    table["share"] = table["self_ms"] / table["self_ms"].sum()
    table = table.reset_index().sort_values("self_ms", ascending=False, kind="stable")
    return table[list(OPERATOR_COLUMNS)].reset_index(drop=True)


def _device_ms(index: TraceIndex) -> np.ndarray:
    """Return device time per host call: a launch's kernels are its caller's."""
    calls, work = index.calls, index.device_work
    if not index.has_device:
        return np.full(len(calls), np.nan)
    work = work[work["cause"] >= 0]
    cause = work["cause"].to_numpy()
    is_launch = index.events["cat"].isin(LAUNCH_CATS).to_numpy()[calls["row"]]
    parents = calls["parent"].to_numpy()
    charged = np.where(is_launch[cause] & (parents[cause] >= 0), parents[cause], cause)
    lasts = (work["end_ns"] - work["start_ns"]).to_numpy()
    return np.bincount(charged, weights=lasts, minlength=len(calls)) / NS_PER_MS


def operator_paths(
    index: TraceIndex,
    *,
    of_calls: np.ndarray | None = None,
    max_depth: int = 4,
    least_share: float = 0.002,
) -> pd.DataFrame:
    """Return the tree phase > module > operator > operator inside it, columns :data:`PATH_COLUMNS`.

    A module has one name in every layer, and is no level of its own. Calls below ``max_depth``
    levels, and paths with less than ``least_share`` of the whole, count in ``own`` of the call that
    encloses them: nothing is left out of the totals.

    Args:
        index: of the trace.
        of_calls: what each call has itself, [calls]; None for its own milliseconds.
        max_depth: levels of operators.
        least_share: of what is shown.
    """
    calls = index.calls
    if of_calls is None:
        of_calls = calls["self_ns"].to_numpy() / NS_PER_MS
    nodes: dict[tuple[int, str], int] = {}
    info: list[tuple[int, str, str, int]] = []  # parent node, label, phase, level
    own: dict[int, float] = defaultdict(float)
    count: dict[int, int] = defaultdict(int)

    def node_of(parent: int, label: str, phase: str) -> int:
        if (parent, label) not in nodes:
            nodes[parent, label] = len(info)
            level = 0 if parent < 0 else info[parent][3] + (not is_module(label))
            info.append((parent, label, phase, level))
        return nodes[parent, label]

    places: list[int] = []
    parents, values = calls["parent"].tolist(), of_calls.tolist()
    names = map(name_in_tree, index.call_names)
    rows = zip(parents, names, index.call_phases, values, strict=True)
    for parent, name, phase, spent in rows:
        above = node_of(-1, phase, phase) if parent < 0 or name in PHASES else places[parent]
        if name in PHASES:
            place = above
        else:
            place = node_of(above, name, phase) if info[above][3] < max_depth else above
        places.append(place)
        own[place] += spent
        count[place] += name in PHASES or place != above
    return pruned(info, own, count, least_share)


def pruned(
    info: Sequence[tuple[int, str, str, int]],
    own: dict[int, float],
    count: Mapping[int, int],
    least_share: float,
) -> pd.DataFrame:
    """Return a tree as a frame, columns :data:`PATH_COLUMNS`.

    Args:
        info: of each node its parent (an earlier one, or -1), label, phase and level.
        own: what each node has itself; changed.
        count: calls of each node.
        least_share: nodes with less of the whole count in what encloses them.
    """
    total = [own[node] for node in range(len(info))]
    for node in range(len(info) - 1, -1, -1):  # children come after their parents
        if info[node][0] >= 0:
            total[info[node][0]] += total[node]
    least = least_share * sum(total[node] for node in range(len(info)) if info[node][0] < 0)
    rows = []
    for node in range(len(info) - 1, -1, -1):
        parent, label, phase, _ = info[node]
        if total[node] < least and parent >= 0:
            own[parent] += own[node]
            continue
        rows.append((node, parent, label, phase, own[node], total[node], count[node]))
    return pd.DataFrame(rows[::-1], columns=list(PATH_COLUMNS)).astype(PATH_COLUMNS)
