"""Many runs, a sweep or a history as one self-contained HTML page.

In: rows of :mod:`profiling.statistics.run_table`. Out: the page as text. Runs are read from their
files, never from their traces, so that fifty of them are quick to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiling.figures.many_runs import heat_table, memory_chart, runs_chart, time_over_length
from profiling.report import sections
from profiling.report.columns import RUN_COLUMNS
from profiling.report.page import Page

RUNS_LEAD = (
    "Median time of each run; the diamond is the whole, with its 95 % interval. Runs of one "
    "session were interleaved and are compared in pairs; others were measured apart, and what "
    "changed on the machine in between is in no interval."
)


def runs_report(rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """Return the page of any number of runs.

    Args:
        rows: of :func:`profiling.statistics.run_table.run_table`.
        notes: what could not be read.
    """
    page = Page(f"{len(rows)} runs", {"runs": rows})
    page.heading(page.title, RUNS_LEAD, level=1)
    _runs(page, rows, notes)
    return page.html()


def sweep_report(rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """Return the page of a sweep.

    Args:
        rows: of :func:`profiling.statistics.run_table.run_table`.
        notes: what was not measured, and why.
    """
    page = Page("A sweep", {"runs": rows, "not_measured": notes})
    page.heading(page.title, level=1)
    page.heading("Time over length", "Median from end to end, with 95 % intervals.")
    page.figure(time_over_length(rows), "Time over the length of the recording")
    page.heading("Real-time factor", "Time over the recording's length: below 1 is faster.")
    page.figure(heat_table(rows), "Real-time factor by way of working and length")
    page.heading("Every run", RUNS_LEAD)
    _runs(page, rows, notes)
    return page.html()


def _runs(page: Page, rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> None:
    sections.warnings(page, notes)
    page.figure(runs_chart(rows), "Time of encoder, decoder and the whole, run by run")
    page.table(rows, RUN_COLUMNS)
    page.heading("Memory", "The most above what was there when the phase began.")
    page.figure(memory_chart(rows), "Peak memory of encoder and decoder, run by run")
