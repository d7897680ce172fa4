"""``python -m profiling snapshot`` and ``code``: the memory of a GPU, and what compiling generated.

In: parsed arguments. Out: a :class:`CommandResult`. Nothing is printed here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.units import format_bytes
from profiling.commands import ALL_WELL, CommandResult, Say, file_of
from profiling.measure.compiled_code import CODE_FILE, named_sources, read_code
from profiling.report.report import snapshot_report
from profiling.report.snapshot_section import TOP_ROWS, peak_said
from profiling.trace.memory_snapshot import read_snapshot
from profiling.trace.snapshot_peak import blocks_by_phase, blocks_by_place, highest


def add_code(add: Callable[..., Any]) -> None:
    """Add the arguments of the command."""
    add("folder_or_id", metavar="RUN", help="id or folder of a compiled run")
    add("--out", type=Path, default=Path("runs"), help="folder of the runs")
    add("--save", type=Path, metavar="FOLDER", help="write the files")


def run_code(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """List the code that was generated for each graph, and write it out.

    Returns:
        The files by graph.

    Raises:
        UserError: the run has none.
    """
    file = file_of(parsed.folder_or_id, parsed.out, CODE_FILE)
    if file is None:
        raise UserError(
            f"{parsed.folder_or_id} has no generated code; expected a run with --engine compile"
        )
    codes = read_code(file)
    rows = [
        {"graph": one.graph, "part": one.part, "lines": one.num_lines, "file": one.file_name}
        for one in codes
    ]
    lines = [f"{row['graph']:<18}{row['part']:<10}{row['lines']:>7,} lines" for row in rows]
    if parsed.save is not None:
        parsed.save.mkdir(parents=True, exist_ok=True)
        for name, source in named_sources(codes).items():
            (parsed.save / name).write_text(source, encoding="utf-8")
        lines.append(f"written to {parsed.save}")
    return CommandResult(ALL_WELL, rows, "\n".join(lines))


def add_snapshot(add: Callable[..., Any]) -> None:
    """Add the arguments of the command."""
    add("snapshot", type=Path, help="of torch.cuda.memory._dump_snapshot (pickle), or as JSON")
    add("--html", type=Path, help="write a page with the figures")


def run_snapshot(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Tabulate the blocks at the peak, by phase and by who allocated them."""
    snapshot = read_snapshot(parsed.snapshot)
    peak = highest(snapshot)
    phases, places = blocks_by_phase(peak), blocks_by_place(peak)
    data = {
        "device": peak.device,
        "peak_bytes": peak.bytes,
        "peak_us": peak.peak_us,
        "reserved_bytes": peak.reserved_bytes,
        "phases": phases.to_dict("records"),
        "places": places.to_dict("records"),
    }
    lines = [f"{parsed.snapshot.name}: {peak_said(peak, len(snapshot.devices))}"]
    for row in phases.itertuples():
        lines.append(f"  {row.phase:<14}{format_bytes(row.bytes):>12}  {row.num_blocks:,} blocks")
    lines.append("  allocated by")
    for row in places.head(TOP_ROWS).itertuples():
        lines.append(
            f"  {format_bytes(row.bytes):>12}  {row.num_blocks:>6,}  {row.place} ({row.phase})"
        )
    if parsed.html is not None:
        page = snapshot_report(parsed.snapshot.name, snapshot)
        parsed.html.write_text(page, encoding="utf-8")
        lines.append(f"  {parsed.html} ({format_bytes(parsed.html.stat().st_size)})")
    return CommandResult(ALL_WELL, data, "\n".join(lines))
