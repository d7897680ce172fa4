"""Every run in one table, and histories, in words.

In: rows of :mod:`profiling.statistics.run_table`, a history as JSON. Out: HTML, everything from
outside escaped. No Gradio, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiling.figures.history import changed_phases
from profiling.figures.style import END_TO_END, title_of
from profiling.report.columns import POINT_COLUMNS, RUN_COLUMNS
from profiling.report.many_runs import point_rows
from profiling.report.page import Page
from profiling.report.sentences import capital, changes_said
from profiling.statistics.run_table import machine_name, number_format

TITLE = "All runs: one table, one chart, and their history"
EMPTY = "There is no run yet. Record one above, or drop one in."
READING = "Reading the runs…"
BUSY = "Something is being timed; the runs are read once that is done, so as not to disturb it."


def table_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format a row a run."""
    page = Page("", {})
    page.table(rows, RUN_COLUMNS)
    return "".join(page.parts)


def changes_html(history: Mapping[str, Any]) -> str:
    """Format what changed in a history, or why none can be told."""
    page = Page("", {})
    for line in changes_said(history):
        page.add("paragraph", f"{line}.", "verdict")
    return "".join(page.parts)


def points_html(history: Mapping[str, Any]) -> str:
    """Format the runs of a history, with the versions of each."""
    page = Page("", {})
    page.table(point_rows(history), POINT_COLUMNS)
    return "".join(page.parts)


def workload_title(history: Mapping[str, Any]) -> str:
    """Name a workload and how many runs it has."""
    work = history["workload"]
    parts = (work.get("label"), work["model"], work["clip"]["name"], number_format(work))
    known = [str(part) for part in (*parts, machine_name(history["machine"])) if part]
    return f"{', '.join(known)}: {len(history['points'])} runs"


def phases_of(history: Mapping[str, Any]) -> list[str]:
    """List the phases of a history: those that changed, the whole, then the others."""
    names = [name for point in history["points"] for name in point["medians"]]
    return list(dict.fromkeys((*changed_phases(history), END_TO_END, *names)))


def phase_title(phase: str) -> str:
    """Name a phase as a choice."""
    return capital(title_of(phase))
