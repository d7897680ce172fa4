"""Which columns the tables of a report show, what they are called, and how values are written.

In: nothing. Out: key -> :class:`Column`, one table each; keys are those of the frames and JSON.
"""

from __future__ import annotations

from typing import Any

from core.units import format_bytes
from profiling.figures.history import versions_said
from profiling.figures.style import shortened, title_of
from profiling.report.page import Column, Formatter, words


def _number(digits: int) -> Formatter:
    return lambda value: f"{float(value):,.{digits}f}"


def _percent(value: Any) -> str:
    return f"{100 * float(value):.1f} %"


PHASE_COLUMNS: dict[str, Column] = {
    "name": Column("phase", title_of),
    "n": Column("n", str),
    "median_ms": Column("median ms", _number(2)),
    "p90_ms": Column("p90 ms", _number(2)),
    "iqr_ms": Column("IQR ms", _number(2)),
    "share": Column("share", _percent),
}
COMPARISON_COLUMNS: dict[str, Column] = {  # the verdict first: on a phone the rest is scrolled to
    "name": Column("phase", title_of),
    "verdict": Column("verdict", words, True),
    "a_ms": Column("A ms", _number(2)),
    "b_ms": Column("B ms", _number(2)),
    "ratio": Column("B / A", _number(3)),
    "low": Column("from", _number(3)),
    "high": Column("to", _number(3)),
}
MEMORY_COLUMNS: dict[str, Column] = {
    "name": Column("phase", title_of),
    "a_bytes": Column("A", format_bytes),
    "b_bytes": Column("B", format_bytes),
    "ratio": Column("B / A", _number(2)),
}
TRACE_COLUMNS: dict[str, Column] = {
    "phase": Column("phase", title_of),
    "num_spans": Column("spans", str),
    "wall_ms": Column("wall ms", _number(2)),
    "self_ms": Column("outside operators ms", _number(2)),
    "device_ms": Column("device ms", _number(2)),
    "num_launches": Column("launches", "{:,}".format),
    "launched": Column("of", str),
    "share": Column("share", _percent),
}
OPERATOR_COLUMNS: dict[str, Column] = {
    "name": Column("operator", lambda name: shortened(str(name), 60), True),
    "phase": Column("phase", title_of),
    "num_calls": Column("calls", "{:,}".format),
    "self_ms": Column("self ms", _number(3)),
    "total_ms": Column("total ms", _number(3)),
    "device_ms": Column("device ms", _number(3)),
    "share": Column("share", _percent),
}
DIFFERENCE_COLUMNS: dict[str, Column] = {
    "path": Column("path", str, True),
    "a_ms": Column("A ms", _number(3)),
    "b_ms": Column("B ms", _number(3)),
    "difference_ms": Column("B - A ms", _number(3)),
    "only_in": Column("only in", str),
}
GAP_COLUMNS: dict[str, Column] = {
    "phase": Column("phase", title_of),
    "where": Column("idle", lambda where: f"on the {where}"),
    "busy_ms": Column("busy ms", _number(2)),
    "idle_ms": Column("idle ms", _number(2)),
    "idle_share": Column("idle share", _percent),
    "num_gaps": Column("gaps", "{:,}".format),
    "longest_gap_us": Column("longest us", _number(1)),
    "launch_delay_us": Column("launch to start us", _number(1)),
}
OVERHEAD_COLUMNS: dict[str, Column] = {
    "phase": Column("phase", title_of),
    "stage": Column("stage", str),
    "num_calls": Column("calls", "{:,}".format),
    "self_ms": Column("ms", _number(3)),
    "us_per_call": Column("us a call", _number(1)),
}
RECOMPILE_COLUMNS: dict[str, Column] = {
    "stage": Column("stage", title_of),
    "recompile_reason": Column("guard that failed", str, True),
    "source": Column("source", str, True),
    "seconds": Column("s", _number(2)),
}
BREAK_COLUMNS: dict[str, Column] = {
    "reason": Column("reason", str, True),
    "source": Column("source", str, True),
    "count": Column("n", str),
}
BLOCK_COLUMNS: dict[str, Column] = {
    "phase": Column("phase", title_of),
    "place": Column("allocated by", str, True),
    "num_blocks": Column("blocks", "{:,}".format),
    "bytes": Column("bytes", format_bytes),
    "share": Column("share", _percent),
}
CACHE_COLUMNS: dict[str, Column] = {
    "what": Column("cache", str),
    "hits": Column("hits", str),
    "misses": Column("misses", str),
    "bypassed": Column("bypassed", str),
}
ROOFLINE_COLUMNS: dict[str, Column] = {
    "name": Column("phase", title_of),
    "measured_ms": Column("measured ms", _number(2)),
    "floor_ms": Column("least possible ms", _number(2)),
    "share": Column("achieved", _percent),
    "bound": Column("bound by", str),
    "expected_ms": Column("expected compiled ms", _number(2)),
    "most_gain": Column("possible speed-up", lambda value: f"{float(value):.1f}x"),
}
RUN_COLUMNS: dict[str, Column] = {
    "created": Column("when", lambda when: str(when)[:16].replace("T", " ")),
    "verdict": Column("against the first", words, True),
    "end_to_end_ms": Column("end to end ms", _number(2)),
    "low_ms": Column("from", _number(2)),
    "high_ms": Column("to", _number(2)),
    "rtf": Column("RTF", _number(4)),
    "encoder_ms": Column("encoder ms", _number(2)),
    "encoder_bytes": Column("encoder memory", format_bytes),
    "decoder_ms": Column("decoder ms", _number(2)),
    "decoder_bytes": Column("decoder memory", format_bytes),
    "clip": Column("clip", str),
    "seconds": Column("s", _number(1)),
    "model": Column("model", lambda name: shortened(str(name))),
    "engine": Column("engine", str),
    "lora": Column("LoRA", str),
    "decoding": Column("decoding", str),
    "format": Column("format", str),
    "batch": Column("batch", str),
    "machine": Column("machine", str),
    "versions": Column("versions", versions_said),
    "id": Column("id", str),
}
POINT_COLUMNS: dict[str, Column] = {
    "created": RUN_COLUMNS["created"],
    **{key: RUN_COLUMNS[key] for key in ("end_to_end_ms", "low_ms", "high_ms")},
    "counted": Column("counted", str),
    "versions": RUN_COLUMNS["versions"],
    "id": RUN_COLUMNS["id"],
}
STEP_COLUMNS: dict[str, Column] = {
    "created": RUN_COLUMNS["created"],
    "phase": Column("phase", title_of),
    "verdict": Column("verdict", words, True),
    "ratio": Column("after / before", _number(3)),
    "low": Column("from", _number(3)),
    "high": Column("to", _number(3)),
    "versions": Column("new", words, True),
}
