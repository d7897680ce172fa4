"""Two runs -> the two figures that come first, and memory by phase, A beside B.

In: two runs as their ``run.json`` states them. Out: rows as plain JSON types, in milliseconds and
bytes; what a run does not hold is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from core import phases

DECODER = "decoder"
BEFORE_DECODER = {
    *(phases.LOAD, phases.DECODE_AUDIO, phases.FEATURES, phases.ENCODER, phases.PROJECTOR),
    phases.DETOKENIZE,
}
Run = Mapping[str, Any]


def encoder_and_decoder(a: Run, b: Run) -> list[dict[str, Any]]:
    """Return two rows, ``name, a_ms, b_ms, a_bytes, b_bytes``: encoder, and all that makes tokens.

    The decoder is every phase after the projector, prefill and drafts included; its memory is that
    of the phase which needs the most.
    """
    names = [name for run in (a, b) for name in run.get("samples") or ()]
    decoder = [n for n in phases.PHASES if n in names and n not in BEFORE_DECODER]
    return [
        {
            "name": name,
            **{f"{arm}_ms": _median_ms(run, wanted) for arm, run in (("a", a), ("b", b))},
            **{f"{arm}_bytes": _peak(run, wanted) for arm, run in (("a", a), ("b", b))},
        }
        for name, wanted in ((phases.ENCODER, [phases.ENCODER]), (DECODER, decoder))
    ]


def _median_ms(run: Run, wanted: Sequence[str]) -> float | None:
    samples = run.get("samples") or {}
    parts = [samples[name] for name in wanted if name in samples]
    blocks = [sum(block) for block in zip(*parts, strict=True)]
    return median(blocks) if blocks else None


def _peak(run: Run, wanted: Sequence[str]) -> float | None:
    peaks = [row["peak_bytes"] for row in run.get("memory") or () if row["phase"] in wanted]
    return max(peaks, default=None)


def memory_by_phase(a: Run, b: Run) -> list[dict[str, Any]]:
    """Return a row a phase of either run: ``name``, and for each run its peak, least and most.

    Keys are ``a_bytes, a_low, a_high, b_bytes, b_low, b_high`` and ``ratio``, B over A.
    """
    found = {arm: _rows(run) for arm, run in (("a", a), ("b", b))}
    names = [n for n in phases.PHASES if n in found["a"] or n in found["b"]]
    table = []
    for name in names:
        row: dict[str, Any] = {"name": name}
        for arm, rows in found.items():
            one = rows.get(name, {})
            peak = one.get("peak_bytes")
            row[f"{arm}_bytes"] = peak
            row[f"{arm}_low"] = one.get("low_bytes", peak)
            row[f"{arm}_high"] = one.get("high_bytes", peak)
        both = row["a_bytes"] and row["b_bytes"] is not None
        row["ratio"] = row["b_bytes"] / row["a_bytes"] if both else None
        table.append(row)
    return table


def _rows(run: Run) -> dict[str, Mapping[str, Any]]:
    """Index memory by phase; of several devices the one that needed more counts."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in run.get("memory") or ():
        if row["peak_bytes"] >= found.get(row["phase"], {}).get("peak_bytes", 0):
            found[row["phase"]] = row
    return found
