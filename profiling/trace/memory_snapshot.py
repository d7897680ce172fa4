"""A memory snapshot of CUDA's caching allocator -> its allocations and frees, and who made them.

In: what ``torch.cuda.memory._dump_snapshot`` writes (a pickle), or the same structure as JSON,
plain or gzipped; anybody's. Out: :class:`MemorySnapshot`. A pickle is read as plain values only, by
:mod:`profiling.trace.plain_pickle`; anything wrong is one :class:`SnapshotError`.

The structure is that of ``torch.cuda.memory._snapshot``: ``segments`` with ``blocks`` are what is
held now, ``device_traces`` what happened before (the latest so many events), and
``external_annotations`` the ranges of ``record_function`` by which phases are known.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from core.phases import PHASES
from profiling.trace.plain_pickle import RefusedPickle, load_plain
from profiling.trace.source_places import without_folders
from profiling.trace.trace_file import TraceError, TraceSource, load_json, title_of

SNAPSHOT_FILE = "memory_snapshot.json.gz"
MAX_PICKLE_BYTES = 100_000_000  # about 15 s of reading
MAX_ENTRIES = 2_000_000  # events and blocks, however often a file repeats one
MAX_DEVICES = 64
MOST_FRAMES, LONGEST_NAME = 64, 200
EXPECTED = "expected what torch.cuda.memory._dump_snapshot writes, or the same as JSON"
ACTIVE = ("active_allocated", "active_pending_free", "active_awaiting_free")


class SnapshotError(TraceError):
    """A memory snapshot that cannot be read: what came, what was expected, in one line."""


class Frame(NamedTuple):
    """One call of a stack."""

    file: str
    line: int
    name: str

    def __str__(self) -> str:
        """Write it as ``file:line name``."""
        return f"{self.file}:{self.line} {self.name}" if self.line else f"{self.file} {self.name}"


Stack = tuple[Frame, ...]  # the innermost call first


class MemoryEvent(NamedTuple):
    """An allocation (size above 0) or the end of one (below), in microseconds."""

    time_us: int
    address: int
    size: int
    stack: Stack


class HeldBlock(NamedTuple):
    """A block that was in use when the snapshot was taken."""

    address: int
    size: int
    stack: Stack


@dataclass(frozen=True)
class DeviceMemory:
    """One device. phases: (phase, start, end) in microseconds of the events' clock.

    events are in order of time; reserved_bytes: of all segments when the snapshot was taken.
    """

    device: int
    events: tuple[MemoryEvent, ...]
    held: tuple[HeldBlock, ...]
    phases: tuple[tuple[str, int, int], ...]
    reserved_bytes: int


@dataclass(frozen=True)
class MemorySnapshot:
    """Every device that has memory or events, in order."""

    devices: tuple[DeviceMemory, ...]


def is_snapshot(file: Path) -> bool:
    """Tell a memory snapshot from a trace by its first bytes; neither is read whole."""
    with file.open("rb") as opened:
        head = opened.read(1 << 12)
    if head[:2] == b"\x1f\x8b":
        head = _head_of_gzip(head)
    if head[:1] == b"\x80":
        return True
    keys = (b'"segments"', b'"device_traces"')
    return b'"traceEvents"' not in head and any(key in head for key in keys)


def _head_of_gzip(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, 1 << 12)
    except zlib.error:
        return b""


def read_snapshot(source: TraceSource, *, max_bytes: int = MAX_PICKLE_BYTES) -> MemorySnapshot:
    """Read a snapshot.

    Args:
        source: a path, the file's bytes, or a file open in binary mode.
        max_bytes: refuse anything larger once unpacked.

    Returns:
        The snapshot.

    Raises:
        SnapshotError: damaged, too large, or something else.
        TraceError: JSON that is damaged or too large.
    """
    title = title_of(source)
    head, source = _peeked(source, title)
    if head[:1] == b"\x80":
        raw = _unpickled(source, title, min(max_bytes, MAX_PICKLE_BYTES))
    else:
        raw, _ = load_json(source, max_bytes)
    _check_kind(raw, title)
    try:
        devices = _devices(raw)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SnapshotError(
            f"{title} is no whole memory snapshot ({type(error).__name__}: {str(error)[:80]}); "
            + EXPECTED
        ) from None
    if not any(one.events or one.held for one in devices):
        raise SnapshotError(f"{title} holds no blocks and no events; {EXPECTED}")
    return MemorySnapshot(devices)


def _peeked(source: TraceSource, title: str) -> tuple[bytes, TraceSource]:
    if isinstance(source, bytes):
        return source[:1], source
    if isinstance(source, str | os.PathLike):
        try:
            with open(source, "rb") as file:
                return file.read(1), source
        except OSError as error:
            raise SnapshotError(f"{title} cannot be read: {error.strerror or error}") from None
    content = source.read(MAX_PICKLE_BYTES + 1)
    return content[:1], content


def _unpickled(source: TraceSource, title: str, limit: int) -> Any:
    if isinstance(source, bytes):
        data = source
    else:
        with open(source, "rb") as file:  # type: ignore[arg-type]
            data = file.read(limit + 1)
    if len(data) > limit:
        raise SnapshotError(
            f"{title} holds more than {limit / 1e6:.0f} MB, the most that is read; record fewer "
            "events (max_entries) or no stacks (context=None)"
        )
    try:
        return load_plain(data)
    except RefusedPickle as error:
        raise SnapshotError(f"{title} is no memory snapshot: {error}; {EXPECTED}") from None


def _check_kind(raw: Any, title: str) -> None:
    """Refuse what is no snapshot, and one that repeats more than is read."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("segments"), list):
        raise SnapshotError(f"{title} has no list of segments; {EXPECTED}")
    traces = raw.get("device_traces") or []
    lists = [*traces, *(one.get("blocks") for one in raw["segments"] if isinstance(one, dict))]
    count = len(raw["segments"]) + sum(len(one) for one in lists if isinstance(one, list))
    if count > MAX_ENTRIES or len(traces) > MAX_DEVICES:
        raise SnapshotError(
            f"{title} holds {count:,} events and blocks on {len(traces)} devices; at most "
            f"{MAX_ENTRIES:,} on {MAX_DEVICES} are read: record fewer (max_entries)"
        )


def _devices(raw: Mapping[str, Any]) -> tuple[DeviceMemory, ...]:
    segments, traces = raw["segments"], raw.get("device_traces") or []
    annotations = raw.get("external_annotations") or []
    numbers = {int(segment.get("device", 0)) for segment in segments}
    numbers |= {number for number, trace in enumerate(traces) if trace}
    if len(numbers) > MAX_DEVICES or min(numbers, default=0) < 0:
        raise ValueError(f"segments of {len(numbers)} devices")
    stacks = _Stacks()
    return tuple(
        DeviceMemory(
            device=number,
            events=tuple(_events(traces[number] if number < len(traces) else [], stacks)),
            held=tuple(_held(segments, number, stacks)),
            phases=_phases(annotations, number),
            reserved_bytes=sum(
                _size(one["total_size"]) for one in segments if int(one.get("device", 0)) == number
            ),
        )
        for number in sorted(numbers)
    )


def _events(trace: Sequence[Mapping[str, Any]], stacks: _Stacks) -> Iterator[MemoryEvent]:
    # Until a free has completed another stream may use the block; some recordings skip that event.
    actions = {str(entry["action"]) for entry in trace}
    freed = "free_completed" if "free_completed" in actions else "free_requested"
    for entry in trace:
        action = entry["action"]
        if action in ("alloc", freed):
            size = _size(entry["size"])
            stack = stacks.of(entry.get("frames")) if action == "alloc" else ()
            time = int(entry.get("time_us") or 0)
            yield MemoryEvent(time, int(entry["addr"]), size if action == "alloc" else -size, stack)


def _held(
    segments: Sequence[Mapping[str, Any]], device: int, stacks: _Stacks
) -> Iterator[HeldBlock]:
    for segment in segments:
        if int(segment.get("device", 0)) != device:
            continue
        address = int(segment["address"])
        for block in segment["blocks"]:
            address = int(block.get("address", address))
            if block["state"] in ACTIVE:
                size = block.get("requested_size") or block["size"]
                yield HeldBlock(address, _size(size), stacks.of(block.get("frames")))
            address += _size(block["size"])


def _phases(annotations: Any, device: int) -> tuple[tuple[str, int, int], ...]:
    """Pair the starts and ends of ranges that are named after a phase."""
    found: list[tuple[str, int, int]] = []
    open_at: dict[str, int] = {}
    for one in annotations[:MAX_ENTRIES]:
        name = one.get("name")
        if name not in PHASES or int(one.get("device", device)) != device:
            continue
        time = int(one["time_us"])
        if one.get("stage") == "START":
            open_at[name] = time
        elif name in open_at:
            found.append((name, open_at.pop(name), time))
    return tuple(found)


def _size(value: Any) -> int:
    size = int(value)
    if not 0 <= size < 1 << 50:
        raise ValueError(f"a size of {size}")
    return size


class _Stacks:
    """Stacks, each made once: snapshots repeat a few of them many times."""

    def __init__(self) -> None:
        self._known: dict[Stack, Stack] = {}
        self._by_list: dict[int, tuple[Any, Stack]] = {}
        self._frames: dict[tuple[Any, Any, Any], Frame] = {}

    def of(self, frames: Any) -> Stack:
        """Return the stack of a list of frames; empty where none was recorded."""
        if not frames:
            return ()
        kept = self._by_list.get(id(frames))
        if kept is None:
            stack = tuple(self._frame(one) for one in frames[:MOST_FRAMES])
            # The list is kept, so that no other can take over its id.
            kept = self._by_list[id(frames)] = (frames, self._known.setdefault(stack, stack))
        return kept[1]

    def _frame(self, frame: Mapping[str, Any]) -> Frame:
        key = (frame["filename"], frame["line"], frame["name"])
        if key not in self._frames:
            file = without_folders(str(key[0]))[-LONGEST_NAME:]
            self._frames[key] = Frame(file, int(key[1] or 0), str(key[2])[:LONGEST_NAME])
        return self._frames[key]
