"""Events -> the lanes of a timeline, with what is too short to see drawn together.

In: the :class:`profiling.trace.trace_index.TraceIndex` of a trace. Out: :class:`Lane` columns, and
:class:`Rectangle` lists whose length is bounded by the width of the picture, not by the number of
events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.phases import PHASES
from profiling.trace.trace_index import TraceIndex

MAX_STREAMS = 3


@dataclass(frozen=True)
class Lane:
    """One row of the timeline, in order of time; times in ns, of which none overlap much."""

    title: str
    starts: np.ndarray
    ends: np.ndarray
    names: np.ndarray
    phases: np.ndarray
    is_phases: bool = False


@dataclass(frozen=True)
class Rectangle:
    """One call, or ``count`` neighbouring ones of which most time is ``name``'s. Times in ns."""

    start: int
    end: int
    busy: int
    name: str
    phase: str
    count: int


def lanes_of(index: TraceIndex) -> list[Lane]:
    """Lay out phases, the outermost calls in them, those inside, and the busiest device streams."""
    calls, segments, work = index.calls, index.segments, index.device_work
    lanes = []
    if len(segments):
        phase = segments["phase"].to_numpy()
        starts, ends = segments["start_ns"].to_numpy(), segments["end_ns"].to_numpy()
        lanes.append(Lane("phases", starts, ends, phase, phase, is_phases=True))
    is_phase = np.isin(index.call_names, PHASES)
    level = _levels(calls["parent"].to_numpy(), is_phase)
    for depth, title in ((0, "calls"), (1, "inside")):
        found = calls[(level == depth) & ~is_phase].sort_values("start_ns", kind="stable")
        lanes += _lane(title, found, index, found["start_ns"])
    stream = index.events["tid"].astype(object).to_numpy()[work["row"]]
    for tid in pd.Series(stream).value_counts().index[:MAX_STREAMS]:
        found = work[stream == tid].sort_values("start_ns", kind="stable")
        lanes += _lane(f"stream {tid}", found, index, found["caused_ns"])
    return lanes


def _lane(title: str, rows: pd.DataFrame, index: TraceIndex, at: pd.Series) -> list[Lane]:
    if rows.empty:
        return []
    phases = index.phase_at(at.to_numpy())
    starts, ends = rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy()
    return [Lane(title, starts, ends, index.event_names[rows["row"]], phases)]


def _levels(parents: np.ndarray, is_phase: np.ndarray) -> np.ndarray:
    """Return depth below the enclosing phase; below the top where there is none."""
    level = np.zeros(len(parents), dtype=np.int64)
    for call, parent in enumerate(parents.tolist()):  # parents come before their calls
        if parent >= 0 and not is_phase[call]:
            level[call] = 0 if is_phase[parent] else level[parent] + 1
    return level


def merged(lane: Lane, least: int) -> list[Rectangle]:
    """Return boxes of a lane: calls shorter than ``least`` ns join neighbours closer than that.

    A group ends when it is wide enough to see, so there are at most about two rectangles for every
    ``least`` ns of the lane.
    """
    boxes: list[Rectangle] = []
    group: list[int] = []
    starts, ends = lane.starts.tolist(), lane.ends.tolist()

    def close() -> None:
        if group:
            boxes.append(_rectangle(lane, starts, ends, group))
            group.clear()

    for call, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end - start >= least:
            close()
            boxes.append(_rectangle(lane, starts, ends, [call]))
            continue
        if group and (start - ends[group[-1]] >= least or end - starts[group[0]] >= least):
            close()
        group.append(call)
    close()
    return boxes


def _rectangle(lane: Lane, starts: list[int], ends: list[int], group: list[int]) -> Rectangle:
    if len(group) == 1:
        (call,) = group
        lasts = ends[call] - starts[call]
        name, phase = lane.names[call], lane.phases[call]
        return Rectangle(starts[call], ends[call], lasts, name, phase, 1)
    spent: dict[tuple[str, str], int] = {}
    for call in group:
        key = (lane.names[call], lane.phases[call])
        spent[key] = spent.get(key, 0) + ends[call] - starts[call]
    name, phase = max(spent, key=lambda key: spent[key])
    last = max(ends[call] for call in group)
    return Rectangle(starts[group[0]], last, sum(spent.values()), name, phase, len(group))
