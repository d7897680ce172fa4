"""Two runs -> a verdict on each phase: the ratio of times, its interval, and what that shows.

In: two runs as their ``run.json`` states them, with samples by phase (milliseconds, one a block).
Out: :class:`PhaseVerdict` by phase. Runs of one session are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from core import phases
from core.errors import UserError
from profiling.measure.timing import END_TO_END, OTHER
from profiling.statistics.intervals import (
    Ratio,
    is_shown,
    noise_floor,
    paired_ratio,
    reason,
    unpaired_ratio,
    verdict,
)

ABSENT = "not in both runs"
AFTER_PREFILL = "after_prefill"  # decode, or draft and verify: whatever makes the tokens

Run = Mapping[str, Any]
Floors = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class PhaseVerdict:
    """One phase. ratio, low, high: b's time over a's; None where a run lacks the phase.

    shown: whether the runs are enough to call it a difference. reason: why the row looks at odds
    with itself, None where it does not.
    """

    name: str
    a_ms: float | None
    b_ms: float | None
    ratio: float | None
    low: float | None
    high: float | None
    shown: bool
    verdict: str
    reason: str | None = None


def phase_verdicts(
    a: Run, b: Run, *, seed: int = 0
) -> tuple[dict[str, PhaseVerdict], Floors, bool]:
    """Return verdicts by phase with the whole's last, the noise by phase, and whether paired.

    Args:
        a: ``run.json`` of the baseline.
        b: of the other.
        seed: of the resampling.

    Raises:
        UserError: a run lacks what a comparison needs.
    """
    here, there = (_with_generation(timed_samples(run)) for run in (a, b))
    paired = _is_paired(a, b)
    floors = _floors(a, b)
    if (phases.DECODE in here) != (phases.DECODE in there):  # drafts against single steps
        floors[AFTER_PREFILL] = floors.get(phases.DECODE, noise_floor(None))
    else:
        here.pop(AFTER_PREFILL, None)
        there.pop(AFTER_PREFILL, None)
    names = [n for n in (*phases.PHASES, AFTER_PREFILL, OTHER) if n in here or n in there]
    rows = {
        name: _judge(name, here.get(name), there.get(name), floors, paired=paired, seed=seed)
        for name in (*names, END_TO_END)
    }
    return rows, floors, paired


def end_to_end_verdict(a: Run, b: Run) -> PhaseVerdict:
    """Return the verdict on the whole alone, which is quick enough for many runs.

    Raises:
        UserError: a run lacks what a comparison needs.
    """
    here, there = (timed_samples(run)[END_TO_END] for run in (a, b))
    return _judge(END_TO_END, here, there, _floors(a, b), paired=_is_paired(a, b), seed=0)


def _is_paired(a: Run, b: Run) -> bool:
    same = a.get("session") is not None and a.get("session") == b.get("session")
    return same and len(a["samples"][END_TO_END]) == len(b["samples"][END_TO_END])


def _floors(a: Run, b: Run) -> Floors:
    again = aa_ratios(a) or aa_ratios(b)
    return {name: noise_floor(ratio) for name, ratio in again.items()}


def timed_samples(run: Run) -> Mapping[str, Sequence[float]]:
    """Return milliseconds of every block, by phase.

    Raises:
        UserError: the run was not timed.
    """
    table = run.get("samples")
    if not isinstance(table, Mapping) or not table.get(END_TO_END):
        raise UserError(
            f"run {run.get('id')!r} has no timed samples; expected a run made by "
            "`python -m profiling run`"
        )
    return table


def _with_generation(table: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Add everything that makes tokens after the prefill's, summed by block."""
    parts = [table[n] for n in (phases.DRAFT, phases.VERIFY, phases.DECODE) if n in table]
    extra = {AFTER_PREFILL: [sum(block) for block in zip(*parts, strict=True)]} if parts else {}
    return {**table, **extra}


def aa_ratios(run: Run) -> dict[str, Ratio]:
    """Return the session's A/A ratios by phase, empty where none was measured."""
    rows = run.get("noise") or ()
    return {row["name"]: Ratio(row["ratio"], row["low"], row["high"], row["n"]) for row in rows}


def _judge(
    name: str,
    a_ms: Sequence[float] | None,
    b_ms: Sequence[float] | None,
    floors: Mapping[str, tuple[float, float]],
    *,
    paired: bool,
    seed: int,
) -> PhaseVerdict:
    middle_a, middle_b = (median(values) if values else None for values in (a_ms, b_ms))
    if not a_ms or not b_ms or min(*a_ms, *b_ms) <= 0:
        return PhaseVerdict(name, middle_a, middle_b, None, None, None, False, ABSENT)
    found = (paired_ratio if paired else unpaired_ratio)(a_ms, b_ms, seed=seed)
    floor = floors.get(name, noise_floor(None))
    bounds = (found.ratio, found.low, found.high)
    return PhaseVerdict(
        name,
        middle_a,
        middle_b,
        *bounds,
        shown=is_shown(found, floor),
        verdict=verdict(found, floor),
        reason=reason(found, floor, median(b_ms) / median(a_ms)),
    )
