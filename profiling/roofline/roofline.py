"""Costs and measured times -> how far from its ceiling each phase is, and what compiling can gain.

In: what the phases need (:mod:`profiling.roofline.counts`), what the machine can do
(:mod:`profiling.roofline.machine_peaks`), and, if there is one, a timed run. Out: one row per
phase: the least time physics allows, the share of it that was achieved, what bounds the phase.

The prediction rests on a shadow model (:mod:`profiling.measure.dispatch_overhead`): the same layers
and operators, so narrow that arithmetic is free. What a call of it takes is what Python and the
dispatcher take, and compiling leaves a part of that. Of the arithmetic it changes one thing: on a
CPU the product of a row and a matrix becomes a loop that reads as fast as the machine can
(:mod:`core.model.linear`). So a compiled decode step is foretold from its bytes, every other phase
from its eager time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from core import phases
from profiling.roofline.counts import Cost
from profiling.roofline.machine_peaks import Ceilings

CHOOSING = "choosing"
# What compiling leaves of the shadow model's time, measured on a CPU with two shapes of model:
# `python -m benchmarks.prediction`, numbers in docs/findings.md.
LEFT_AFTER_COMPILING = {
    phases.ENCODER: 0.48,
    phases.PROJECTOR: 0.64,
    phases.PREFILL: 0.65,
    phases.DECODE: 0.26,
}
OVERHEAD_SHARE = 0.5  # above this share of dispatch time a phase is bound by it
# Below this share of the floor, neither bytes nor FLOPs explain the time.
UNEXPLAINED_SHARE = 0.1


@dataclass(frozen=True)
class RooflineRow:
    """One phase. floor_ms: the least this machine could take; share: floor over measured.

    bound: what the floor is made of, "memory" or "compute", or "overhead" where dispatching the
    operators takes most of the measured time, or the floor next to nothing of it. expected_ms:
    after compiling; gains are ratios.
    """

    name: str
    calls: int
    flops: float
    num_bytes: float
    floor_ms: float
    bound: str
    measured_ms: float | None
    share: float | None
    flops_per_s: float | None
    bytes_per_s: float | None
    overhead_ms: float | None
    expected_ms: float | None
    expected_gain: float | None
    most_gain: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def roofline(
    costs: Mapping[str, Cost],
    ceilings: Ceilings,
    dtype: str,
    *,
    measured_ms: Mapping[str, float] | None = None,
    overhead_ms: Mapping[str, float] | None = None,
    row_loops: bool = False,
) -> list[RooflineRow]:
    """Return one row per phase of ``costs``.

    Args:
        costs: what each phase needs.
        ceilings: of the machine, or of a GPU on paper.
        dtype: of the weights.
        measured_ms: phase -> milliseconds of an eager run, if one was timed.
        overhead_ms: phase -> milliseconds of dispatch in one call, from
            :func:`profiling.measure.dispatch_overhead.dispatch_overhead_ms`; ``CHOOSING`` -> of
            choosing a token after a step.
        row_loops: compiled products of one row will be loops of the compiler's own.
    """
    measured, overhead = measured_ms or {}, overhead_ms or {}
    rows = []
    for name, cost in costs.items():
        if cost.calls:
            row = _row(cost, ceilings, dtype, measured.get(name))
            if row.measured_ms and name in overhead:
                choosing = overhead.get(CHOOSING, 0.0) if name == phases.DECODE else 0.0
                row = _foretold(row, overhead[name], choosing, row_loops)
            rows.append(row)
    return rows


def _row(cost: Cost, ceilings: Ceilings, dtype: str, measured: float | None) -> RooflineRow:
    bandwidth = ceilings.bytes_per_s(dtype, cost.weight_bytes / cost.calls)
    moving = 1000 * cost.num_bytes / bandwidth
    computing = 1000 * cost.flops / ceilings.of(dtype).flops_per_s
    floor = max(moving, computing)
    bound = "memory" if moving >= computing else "compute"
    row = RooflineRow(cost.name, cost.calls, cost.flops, cost.num_bytes, floor, bound, *[None] * 8)
    if not measured:
        return row
    return replace(
        row,
        measured_ms=measured,
        share=floor / measured,
        bound="overhead" if floor < UNEXPLAINED_SHARE * measured else bound,
        flops_per_s=1000 * cost.flops / measured,
        bytes_per_s=1000 * cost.num_bytes / measured,
        most_gain=measured / floor,
    )


def _foretold(row: RooflineRow, call_ms: float, choosing_ms: float, row_loops: bool) -> RooflineRow:
    """Return the row with what it is expected to take once compiled."""
    assert row.measured_ms is not None
    measured, left = row.measured_ms, LEFT_AFTER_COMPILING[row.name]
    dispatch = min((call_ms + choosing_ms) * row.calls, measured)
    if row.name == phases.DECODE and row_loops:
        expected = (choosing_ms + left * call_ms) * row.calls + row.floor_ms
    else:
        expected = measured - min(call_ms * row.calls, measured) * (1 - left)
    expected = min(max(row.floor_ms, expected), measured)  # a busy machine's ceilings are too low
    return replace(
        row,
        overhead_ms=dispatch,
        bound="overhead" if dispatch > OVERHEAD_SHARE * measured else row.bound,
        expected_ms=expected,
        expected_gain=measured / expected,
    )


def expected_end_to_end_gain(rows: list[RooflineRow], end_to_end_ms: float) -> float | None:
    """Predict what compiling gains on the whole request; None without a prediction."""
    known = [(r.measured_ms, r.expected_ms) for r in rows if r.measured_ms and r.expected_ms]
    if not known or end_to_end_ms <= 0:
        return None
    saved = sum(before - after for before, after in known)
    return end_to_end_ms / (end_to_end_ms - saved)
