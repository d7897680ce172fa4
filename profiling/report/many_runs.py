"""Many runs, a sweep or a history as one self-contained HTML page.

In: rows of :mod:`profiling.statistics.run_table`. Out: the page as text. Runs are read from their
files, never from their traces, so that fifty of them are quick to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiling.figures.history import changed_phases, history_line
from profiling.figures.many_runs import heat_table, memory_chart, runs_chart, time_over_length
from profiling.figures.style import END_TO_END, title_of
from profiling.report import sections
from profiling.report.columns import POINT_COLUMNS, RUN_COLUMNS, STEP_COLUMNS
from profiling.report.page import Page
from profiling.report.sentences import capital, changes_said
from profiling.statistics.run_table import machine_name, number_format

RUNS_LEAD = (
    "Median time of each run; the diamond is the whole, with its 95 % interval. Runs of one "
    "session were interleaved and are compared in pairs; others were measured apart, and what "
    "changed on the machine in between is in no interval."
)

TIME_OVER_LENGTH = "Median from end to end, of a batch of its whole pass, with 95 % intervals."
REAL_TIME_FACTOR = (
    "Time over the recording's length, of a batch over all its recordings': below 1 is faster."
)

HISTORY_LEAD = (
    "Medians with their 95 % intervals. A dashed line marks a lasting change that the spread from "
    "run to run does not explain. A phase's step is what is left of it once the pace of the other "
    "phases, which is the machine's, is taken off; the whole is judged as timed. Hollow points "
    "were measured while other programs kept the machine busy, and no change is read off them."
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
    page.heading("Time over length", TIME_OVER_LENGTH)
    page.figure(time_over_length(rows), "Time over the length of the recording")
    page.heading("Real-time factor", REAL_TIME_FACTOR)
    page.figure(heat_table(rows), "Real-time factor by way of working and length")
    page.heading("Every run", RUNS_LEAD)
    _runs(page, rows, notes)
    return page.html()


def history_report(history: Mapping[str, Any]) -> str:
    """Return the page of one workload's history, given as JSON."""
    work = history["workload"]
    page = Page(f"History: {sections.label_of({'workload': work})}", {"history": history})
    page.heading(page.title, HISTORY_LEAD, level=1)
    page.facts({"": {**machine_facts(history), "runs": len(history["points"])}})
    for line in changes_said(history):
        page.add("paragraph", f"{line}.", "verdict")
    for phase in (END_TO_END, *changed_phases(history)):
        page.heading(capital(title_of(phase)))
        page.figure(history_line(history, phase), f"{title_of(phase)} over time")
    steps = [
        {"created": change["created"], "versions": change["new_versions"], **step}
        for change in history["changes"]
        for step in change["steps"]
    ]
    if steps:
        page.heading("Changes")
        page.table(steps, STEP_COLUMNS)
    page.heading("Every run")
    page.table(point_rows(history), POINT_COLUMNS)
    return page.html()


def point_rows(history: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a run of a history, for :data:`POINT_COLUMNS`."""
    keys = ("end_to_end_ms", "low_ms", "high_ms")
    return [
        {
            **{key: point[key] for key in ("created", "versions", "id")},
            **dict(zip(keys, point["medians"][END_TO_END], strict=True)),
            "counted": "no, busy machine" if point["busy"] else "yes",
        }
        for point in history["points"]
    ]


def machine_facts(history: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a history's runs have in common."""
    work, machine = history["workload"], history["machine"]
    return {"model": work["model"], "format": number_format(work), "machine": machine_name(machine)}


def _runs(page: Page, rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> None:
    sections.warnings(page, notes)
    page.figure(runs_chart(rows), "Time of encoder, decoder and the whole, run by run")
    page.table(rows, RUN_COLUMNS)
    page.heading("Memory", "The most above what was there when the phase began.")
    page.figure(memory_chart(rows), "Peak memory of encoder and decoder, run by run")
