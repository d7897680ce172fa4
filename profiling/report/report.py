"""A run, or two and their comparison, as one self-contained HTML page.

In: runs and a comparison as their JSON states them, and traces where there are some. Out: the page
as text (:mod:`profiling.report.page`), which opens years later on a machine without torch. It holds
the same numbers as the JSON, which is embedded. The sections are :mod:`profiling.report.sections`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiling.figures.comparison import break_even_lines, comparison_bars, ratio_intervals
from profiling.measure.compiled_code import GeneratedCode
from profiling.measure.metrics import DEFINITIONS
from profiling.report import sections
from profiling.report.columns import COMPARISON_COLUMNS
from profiling.report.compile_section import compiling
from profiling.report.page import Page
from profiling.report.sections import Run, label_of
from profiling.report.sentences import capital, end_to_end_said, verdict_rows
from profiling.report.snapshot_section import memory_snapshot
from profiling.statistics.text_agreement import agreement_said
from profiling.trace.events import Trace
from profiling.trace.memory_snapshot import MemorySnapshot

NOISE = (
    "Ratios with their 95 % intervals, from resampling blocks of runs. Running A twice shows the "
    "noise, a grey band: differences inside it are noise."
)


def run_report(
    run: Run,
    trace: Trace | None = None,
    codes: Sequence[GeneratedCode] = (),
    snapshot: MemorySnapshot | None = None,
) -> str:
    """Return the page of one run.

    Args:
        run: the contents of ``run.json``.
        trace: the run's trace, if it has one.
        codes: its generated code, if that was kept.
        snapshot: of the GPU's memory, if there is one.
    """
    run = sections.without_path(run)
    page = Page(f"Run {run.get('id', '')}: {label_of(run)}", {"run": run})
    page.heading(label_of(run), level=1)
    page.note(f"Run {run.get('id', '')}, measured {run.get('created', 'at an unknown time')}.")
    sections.warnings(page, run.get("warnings") or ())
    page.tiles(sections.metrics(run))
    sections.transcript(page, run)
    sections.phases(page, run)
    sections.token_times(page, run)
    sections.memory(page, run, trace)
    if snapshot is not None:
        memory_snapshot(page, snapshot)
    if trace is not None:
        sections.traced(page, run, trace)
    compiling(page, run, codes)
    if run.get("roofline"):
        sections.roofline(page, run)
    sections.drafts(page, {"drafts": run})
    sections.circumstances(page, {"": run})
    return page.html()


def snapshot_report(title: str, snapshot: MemorySnapshot) -> str:
    """Return the page of a memory snapshot without a run."""
    page = Page(title, {})
    page.heading(title, level=1)
    memory_snapshot(page, snapshot)
    return page.html()


def comparison_report(
    a: Run,
    b: Run,
    comparison: Mapping[str, Any],
    traces: tuple[Trace | None, Trace | None] = (None, None),
) -> str:
    """Return the page of a comparison.

    Args:
        a: the baseline's ``run.json``.
        b: the other's.
        comparison: of :func:`profiling.statistics.compare.compare`, as JSON.
        traces: of both runs, where they have some.
    """
    a, b = sections.without_path(a), sections.without_path(b)
    page = Page(f"{label_of(b)} against {label_of(a)}", {"comparison": comparison, "a": a, "b": b})
    page.heading(page.title, level=1)
    page.note(f"B is run {comparison['b']}; A, the baseline, is run {comparison['a']}.")
    page.add("paragraph", end_to_end_said(comparison), "verdict")
    page.tiles(sections.headline(comparison, ("A", "B")))
    if comparison.get("break_even"):
        page.add("paragraph", f"{capital(comparison['break_even'])}.", "")
    page.add("paragraph", agreement_said(comparison), "")
    sections.warnings(page, comparison.get("warnings") or ())
    page.heading("Time per phase", DEFINITIONS["phase_ms"][2])
    page.figure(comparison_bars(comparison), "Phases of A and B")
    page.heading("How sure that is", NOISE)
    page.figure(ratio_intervals(comparison), "Ratio of times per phase with its interval")
    page.table(verdict_rows(comparison), COMPARISON_COLUMNS)
    sections.memory_of_both(page, comparison, (a, b), ("A", "B"))
    if comparison.get("compile_seconds"):
        page.heading("When compiling pays off", "Seconds after so many clips like this one.")
        page.figure(break_even_lines(comparison), "Seconds spent over the number of clips")
    one, two = traces
    if one is not None and two is not None:
        sections.difference(page, one, two)
    sections.drafts(page, {"A": a, "B": b})
    for at, run in (("A", a), ("B", b)):
        page.heading(f"{at}: {label_of(run)}")
        page.tiles(sections.metrics(run))
        sections.transcript(page, run)
    sections.circumstances(page, {"A": a, "B": b})
    return page.html()
