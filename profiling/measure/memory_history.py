"""A memory snapshot of one run on a GPU: who allocated what, with the phases as ranges.

In: work to run on a CUDA device. Out: the bytes of
:data:`profiling.trace.memory_snapshot.SNAPSHOT_FILE`, which any reader of torch's snapshots can
take. Recording costs microseconds an allocation, so it is a run of its own, neither timed nor
traced; on other devices there is nothing to record.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import torch

from profiling.trace.source_places import without_folders

MOST_EVENTS = 100_000  # the latest are kept
KEPT = ("segments", "device_traces", "external_annotations")


def memory_history(device: torch.device, run: Callable[[], object]) -> bytes | None:
    """Run once with the allocator's history on.

    Args:
        device: where the work runs.
        run: the work; its phases are ranges of ``record_function``.

    Returns:
        The snapshot, JSON in gzip, without the folders of this machine; None without a GPU.
    """
    if device.type != "cuda":
        return None
    memory = torch.cuda.memory
    memory._record_memory_history(
        "all", context="alloc", stacks="python", max_entries=MOST_EVENTS, clear_history=True
    )
    try:
        run()
        found = memory._snapshot()
    finally:
        memory._record_memory_history(None)
    return packed_snapshot(found)


def packed_snapshot(snapshot: dict[str, Any]) -> bytes:
    """Return a snapshot as JSON in gzip: what its readers need, without folders."""
    plain = {key: snapshot.get(key) or [] for key in KEPT}
    short: dict[str, str] = {}
    for frame in _frames_of(plain):
        name = frame["filename"]
        if name not in short:
            short[name] = without_folders(name)
        frame["filename"] = short[name]
    return gzip.compress(json.dumps(plain).encode(), mtime=0)


def _frames_of(snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    """List every frame once; torch shares them between events."""
    holders = [event for trace in snapshot["device_traces"] for event in trace]
    for segment in snapshot["segments"]:
        holders += [segment, *segment["blocks"]]
    frames = (frame for one in holders for frame in one.get("frames") or ())
    return list({id(frame): frame for frame in frames}.values())
