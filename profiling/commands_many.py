"""What the commands about many runs do: ``runs``, ``sweep``, ``history``.

In: parsed arguments and somebody to tell the progress. Out: a :class:`CommandResult`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from profiling.commands import ALL_WELL, WORTH_A_LOOK, CommandResult, Say, stored_run
from profiling.plain_text import runs_text
from profiling.report.many_runs import runs_report
from profiling.runs.run_file import RunError
from profiling.runs.store import RunStore
from profiling.statistics.run_table import run_table


def runs(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Tabulate stored runs: those named, or all, the earliest first."""
    found, notes = _read(parsed.ids, parsed.out)
    rows = run_table(found)
    text = [runs_text(rows), *(f"  not read: {note}" for note in notes)]
    text += _written(parsed.html, runs_report(rows, notes)) if parsed.html else []
    status = WORTH_A_LOOK if notes else ALL_WELL
    return CommandResult(status, {"runs": rows, "not_read": notes}, "\n".join(text))


def _read(ids: Sequence[str], root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the runs named, in that order, or all by time; and what could not be read."""
    if ids:
        return [stored_run(name, root) for name in ids], []
    store, found, notes = RunStore(root), [], []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        try:
            found.append(store.read(folder.name))
        except RunError as error:
            notes.append(f"{folder.name}: {error}")
    if not found:
        raise RunError(f"there are no runs in {root}; expected some made by `python -m profiling`")
    return sorted(found, key=_by_time), notes


def _by_time(run: Mapping[str, Any]) -> tuple[str, bool]:
    return str(run.get("created", "")), not run.get("baseline")


def _written(file: Path, page: str) -> list[str]:
    file.write_text(page, encoding="utf-8")
    return [f"  page: {file}"]
