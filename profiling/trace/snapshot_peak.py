"""A device's allocations -> how much was held when, and what was held at the highest moment.

In: :class:`profiling.trace.memory_snapshot.DeviceMemory`. Out: :class:`Peak`; its blocks by phase
and by stack, as tables and as a tree. A block belongs to the phase in which it was allocated; what
was there before the first event (weights, for one) is :data:`BEFORE`.

A free counts when it completed: until then another stream may still use the block. The history is
the latest so many events, so a free without an allocation is of a block that was there before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.phases import PHASES
from profiling.trace.breakdown import pruned
from profiling.trace.call_tree import OUTSIDE
from profiling.trace.memory_snapshot import DeviceMemory, Frame, MemorySnapshot, Stack

BEFORE = "there before"
UNKNOWN = "no stack was recorded"
LIBRARIES = ("torch/", "<", "contextlib.py", "threading.py", "runpy.py")
BLOCK_COLUMNS = {
    "phase": "object",
    "place": "object",  # the innermost call that is not of torch or of Python's own
    "num_blocks": "int64",
    "bytes": "int64",
    "share": "float64",  # of the peak
}


@dataclass(frozen=True)
class PeakBlock:
    """A block that was held at the peak."""

    phase: str
    size: int
    stack: Stack


@dataclass(frozen=True)
class Peak:
    """The highest moment of one device.

    times_us and levels: [events + 1] bytes held from each moment on, the first before any event.
    peak_us: when it was; 0 is the first event. phases: (phase, start, end) likewise.
    """

    device: int
    bytes: int
    peak_us: float
    times_us: np.ndarray
    levels: np.ndarray
    blocks: tuple[PeakBlock, ...]
    phases: tuple[tuple[str, float, float], ...]
    reserved_bytes: int


def highest(snapshot: MemorySnapshot) -> Peak:
    """Return the peak of the device that held the most."""
    return max(map(peak_of, snapshot.devices), key=lambda peak: peak.bytes)


def peak_of(memory: DeviceMemory) -> Peak:
    """Find the highest moment of a device, and what was held then."""
    life = _Lives(memory)
    start = sum(size for size, _, _ in life.before)
    levels = np.concatenate([[start], start + np.cumsum(np.array(life.changes, dtype=np.int64))])
    top = int(levels.argmax())  # after so many events
    num = len(memory.events)
    first = memory.events[0].time_us if num else 0
    times = np.array([0, *(event.time_us - first for event in memory.events)], dtype=float)
    made = [
        number
        for number, event in enumerate(memory.events[:top])
        if event.size >= 0 and life.ends.get(number, num) >= top
    ]
    phases = _phases_at(memory.phases, [memory.events[number].time_us for number in made])
    blocks = [PeakBlock(BEFORE, size, stack) for size, stack, end in life.before if end >= top]
    blocks += [
        PeakBlock(phase, memory.events[number].size, memory.events[number].stack)
        for phase, number in zip(phases, made, strict=True)
    ]
    return Peak(
        device=memory.device,
        bytes=int(levels[top]),
        peak_us=float(times[top]),
        times_us=times,
        levels=levels,
        blocks=tuple(blocks),
        phases=tuple((name, begin - first, end - first) for name, begin, end in memory.phases),
        reserved_bytes=memory.reserved_bytes,
    )


class _Lives:
    """When each block began and ended.

    ends: event that allocated -> event that freed. before: size, stack and the event that freed it
    (their number, where none did), of each block that was there before. changes: bytes by event.
    """

    def __init__(self, memory: DeviceMemory) -> None:
        self.ends: dict[int, int] = {}
        self.before: list[tuple[int, Stack, int]] = []
        self.changes: list[int] = []
        live: dict[int, int] = {}  # address -> event that allocated it
        for number, event in enumerate(memory.events):
            known = live.pop(event.address, None)
            held = 0 if known is None else memory.events[known].size
            if known is not None:
                self.ends[known] = number
            if event.size >= 0:
                live[event.address] = number
                self.changes.append(event.size - held)  # held: its end was not recorded
            else:
                if known is None:
                    self.before.append((-event.size, (), number))
                self.changes.append(-(held or -event.size))
        num = len(memory.events)
        self.before += [
            (one.size, one.stack, num) for one in memory.held if one.address not in live
        ]


def _phases_at(phases: Sequence[tuple[str, int, int]], times_us: Sequence[int]) -> list[str]:
    """Return the phase at each time: phases follow one another, and none encloses another."""
    ordered = sorted(phases, key=lambda one: one[1])
    begins = [begin for _, begin, _ in ordered]
    found = []
    for time in times_us:
        place = bisect_right(begins, time) - 1
        inside = place >= 0 and time <= ordered[place][2]
        found.append(ordered[place][0] if inside else OUTSIDE)
    return found


def own_frames(stack: Stack) -> list[Frame]:
    """Return the calls of a stack that are somebody's model, outermost first.

    Those of torch and of Python itself are left out, unless there are no others.
    """
    own = [frame for frame in stack if not frame.file.startswith(LIBRARIES)]
    return (own or list(stack[:1]))[::-1]


def blocks_by_phase(peak: Peak) -> pd.DataFrame:
    """Sum what was held at the peak by phase, in their order; :data:`BLOCK_COLUMNS`, no place."""
    table = _grouped(peak, lambda block: (block.phase, None)).drop(columns="place")
    order = {name: number for number, name in enumerate((BEFORE, *PHASES, OUTSIDE))}
    return table.sort_values("phase", key=lambda names: names.map(order)).reset_index(drop=True)


def blocks_by_place(peak: Peak) -> pd.DataFrame:
    """Sum what was held at the peak by phase and place, the most bytes first."""
    return _grouped(peak, lambda block: (block.phase, _place(block.stack)))


def _place(stack: Stack) -> str:
    frames = own_frames(stack)
    return str(frames[-1]) if frames else UNKNOWN


def _grouped(peak: Peak, key: Callable[[PeakBlock], tuple[str, str | None]]) -> pd.DataFrame:
    sums: dict[tuple[str, str | None], list[int]] = defaultdict(lambda: [0, 0])
    for block in peak.blocks:
        one = sums[key(block)]
        one[0] += 1
        one[1] += block.size
    rows = [
        (phase, place, count, size, size / peak.bytes if peak.bytes else np.nan)
        for (phase, place), (count, size) in sums.items()
    ]
    rows.sort(key=lambda row: -row[3])
    return pd.DataFrame(rows, columns=list(BLOCK_COLUMNS)).astype(BLOCK_COLUMNS)


def stack_tree(peak: Peak, *, max_depth: int = 12, least_share: float = 0.002) -> pd.DataFrame:
    """Return the tree phase > call > call inside it of what was held at the peak.

    Args:
        peak: of a device.
        max_depth: calls below the phase.
        least_share: smaller parts count in what encloses them.

    Returns:
        Columns :data:`profiling.trace.breakdown.PATH_COLUMNS`; ``own`` in bytes, ``num_calls``
        the blocks.
    """
    nodes: dict[tuple[int, str], int] = {}
    info: list[tuple[int, str, str, int]] = []
    own: dict[int, float] = defaultdict(float)
    count: dict[int, int] = defaultdict(int)

    def node_of(parent: int, label: str, phase: str) -> int:
        if (parent, label) not in nodes:
            nodes[parent, label] = len(info)
            info.append((parent, label, phase, 0 if parent < 0 else info[parent][3] + 1))
        return nodes[parent, label]

    for block in peak.blocks:
        place = node_of(-1, block.phase, block.phase)
        count[place] += 1
        for frame in own_frames(block.stack)[-max_depth:]:
            place = node_of(place, str(frame), block.phase)
            count[place] += 1
        own[place] += block.size
    return pruned(info, own, count, least_share)
