"""A memory snapshot as a section of a report: what a GPU held at its highest moment, and for whom.

In: a :class:`Page`, a snapshot. Out: nothing; the page grows.
"""

from __future__ import annotations

from core.units import counted, format_bytes, format_ms
from profiling.figures.memory_curves import snapshot_over_time
from profiling.figures.trace_views import operator_icicle
from profiling.report.columns import BLOCK_COLUMNS
from profiling.report.page import Page
from profiling.trace.memory_snapshot import MemorySnapshot
from profiling.trace.snapshot_peak import (
    BEFORE,
    Peak,
    blocks_by_phase,
    blocks_by_place,
    highest,
    stack_tree,
)

TOP_ROWS = 20
LEAD = (
    "The blocks that CUDA's caching allocator had in use at the highest moment of the recorded "
    "history. A block belongs to the phase in which it was allocated; weights were there before."
)
TREE = (
    "As wide as the bytes: the phase, then the calls that led to the allocation, without those of "
    "torch. Click to enter a call, click the top to leave it."
)
NO_PHASES = (
    "No phases are marked in this snapshot: it was recorded without ranges named after them."
)


def memory_snapshot(page: Page, snapshot: MemorySnapshot) -> None:
    """Draw what was in use over time, and the blocks at the peak by phase and by stack."""
    peak = highest(snapshot)
    page.heading("Blocks at the peak", LEAD)
    page.note(peak_said(peak, len(snapshot.devices)))
    if not peak.phases:
        page.note(NO_PHASES)
    page.figure(snapshot_over_time(peak), "Memory of the GPU over time")
    page.table(blocks_by_phase(peak).to_dict("records"), BLOCK_COLUMNS)
    page.heading("By stack", TREE, level=3)
    tree = stack_tree(peak)
    page.figure(operator_icicle(tree, write=format_bytes, of="blocks"), "Blocks at the peak")
    page.table(blocks_by_place(peak).head(TOP_ROWS).to_dict("records"), BLOCK_COLUMNS)


def peak_said(peak: Peak, num_devices: int) -> str:
    """Say how much was held when, on which device."""
    before = sum(block.size for block in peak.blocks if block.phase == BEFORE)
    where = f"cuda:{peak.device}" + (f", the fullest of {num_devices}" if num_devices > 1 else "")
    return (
        f"{where}: {format_bytes(peak.bytes)} in {counted(len(peak.blocks), 'block')}, "
        f"{format_ms(peak.peak_us / 1000)} after the first of "
        f"{counted(len(peak.levels) - 1, 'event')}; {format_bytes(before)} of it was there before. "
        f"{format_bytes(peak.reserved_bytes)} were reserved when the snapshot was taken."
    )
