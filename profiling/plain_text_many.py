"""Many runs and histories as text for a terminal.

In: the JSON that :mod:`profiling.statistics.run_table` and ``history`` make. Out: strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiling.figures.history import versions_said
from profiling.figures.style import END_TO_END
from profiling.plain_text import NOT_KNOWN, known, ms, size
from profiling.report.sentences import changes_said


def runs_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a line a run: when, what, times and memory, and the verdict against the first."""
    lines = [
        f"{'when':<17}{'end to end':>12}{'RTF':>8}{'encoder':>12}{'decoder':>12}{'memory':>10}"
    ]
    for row in rows:
        peaks = [row[key] for key in ("encoder_bytes", "decoder_bytes") if row[key] is not None]
        known_ends = row["low_ms"] is not None
        around = f"95 %: {row['low_ms']:.1f} to {row['high_ms']:.1f} ms; " if known_ends else ""
        versions = versions_said(row["versions"])
        ways = [row["engine"], row["lora"] and f"LoRA {row['lora']}", row["decoding"]]
        ways += [row["format"], f"batch of {row['batch']}", row["machine"], versions]
        lines += [
            f"{str(row['created'] or NOT_KNOWN)[:16].replace('T', ' '):<17}"
            f"{ms(row['end_to_end_ms'])}{known(row['rtf'], '.4f'):>8}{ms(row['encoder_ms'])}"
            f"{ms(row['decoder_ms'])}{size(max(peaks, default=None)):>10}  {row['id']}",
            f"    {around}{row['verdict']}; {row['model']}, {row['clip']}, "
            f"{', '.join(str(part) for part in ways if part)}",
        ]
    return "\n".join(lines)


def history_text(history: Mapping[str, Any]) -> str:
    """Write one workload's history: its runs' medians, then its changes."""
    work = history["workload"]
    lines = [f"{work['label']}, {work['model']}, {work['clip']['name']}, {work['dtype']}"]
    for point in history["points"]:
        busy = ", busy machine" if point["busy"] else ""
        lines.append(
            f"  {point['created'][:16].replace('T', ' ')}{ms(point['medians'][END_TO_END][0])}"
            f"  {point['id']}, {versions_said(point['versions'])}{busy}"
        )
    return "\n".join([*lines, *(f"  {line}" for line in changes_said(history))])
