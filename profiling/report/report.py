"""A run, or two and their comparison, as one self-contained HTML page.

In: runs and a comparison as their JSON states them, and traces where there are some. Out: the page
as text (:mod:`profiling.report.page`), which opens years later on a machine without torch. It holds
the same numbers as the JSON, which is embedded. The sections are :mod:`profiling.report.sections`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiling.figures.comparison import break_even_lines, comparison_bars, ratio_intervals
from profiling.figures.run_details import acceptance_bars, token_latency
from profiling.figures.style import END_TO_END
from profiling.measure.metrics import DEFINITIONS
from profiling.report import sections
from profiling.report.columns import COMPARISON_COLUMNS
from profiling.report.page import Page
from profiling.report.sections import Run, label_of
from profiling.statistics.text_agreement import agreement_said
from profiling.trace.events import Trace

EQUAL_RUNS = (
    "Ratios with their 95 % intervals, from resampling blocks of runs. A grey band is what equal "
    "runs gave: a difference inside it is none."
)


def run_report(run: Run, trace: Trace | None = None) -> str:
    """The page of one run.

    Args:
        run: the contents of ``run.json``.
        trace: the run's trace, if it has one.
    """
    run = sections.without_path(run)
    page = Page(f"Run {run.get('id', '')}: {label_of(run)}", {"run": run})
    page.heading(label_of(run), level=1)
    page.note(f"Run {run.get('id', '')}, measured {run.get('created', 'at an unknown time')}.")
    sections.warnings(page, run.get("warnings") or ())
    page.tiles(sections.metrics(run))
    sections.transcript(page, run)
    sections.phases(page, run)
    page.heading("Time per token", DEFINITIONS["inter_token_ms"][2])
    page.figure(token_latency(run.get("tokens") or ()), "Milliseconds per new token")
    sections.memory(page, run, trace)
    if trace is not None:
        sections.traced(page, run, trace)
    sections.compiling(page, run)
    if run.get("roofline"):
        sections.roofline(page, run)
    if run.get("draft"):
        page.heading("Drafts", DEFINITIONS["acceptance"][2])
        page.figure(acceptance_bars({"drafts": run["draft"]}), "Drafted tokens kept")
    sections.circumstances(page, {"": run})
    return page.html()


def comparison_report(a: Run, b: Run, comparison: Mapping[str, Any]) -> str:
    """The page of a comparison.

    Args:
        a: the baseline's ``run.json``.
        b: the other's.
        comparison: of :func:`profiling.statistics.compare.compare`, as JSON.
    """
    a, b = sections.without_path(a), sections.without_path(b)
    page = Page(f"{label_of(b)} against {label_of(a)}", {"comparison": comparison, "a": a, "b": b})
    page.heading(page.title, level=1)
    page.note(f"B is run {comparison['b']}; A, the baseline, is run {comparison['a']}.")
    verdict = f"End to end: {comparison['end_to_end']['verdict']}"
    page.add("paragraph", verdict, "verdict")
    if comparison.get("break_even"):
        sentence = str(comparison["break_even"])
        page.add("paragraph", f"{sentence[:1].upper()}{sentence[1:]}.", "")
    page.add("paragraph", agreement_said(comparison), "")
    sections.warnings(page, comparison.get("warnings") or ())
    page.heading("Time per phase", DEFINITIONS["phase_ms"][2])
    page.figure(comparison_bars(comparison), "Phases of A and B")
    page.heading("How sure that is", EQUAL_RUNS)
    page.figure(ratio_intervals(comparison), "Ratio of times per phase with its interval")
    whole = {"name": END_TO_END, **comparison["end_to_end"]}
    page.table([*comparison["phases"], whole], COMPARISON_COLUMNS)
    if comparison.get("compile_seconds"):
        page.heading("When compiling pays off", "Seconds after so many clips like this one.")
        page.figure(break_even_lines(comparison), "Seconds spent over the number of clips")
    drafts = {at: run["draft"] for at, run in (("A", a), ("B", b)) if run.get("draft")}
    if drafts:
        page.heading("Drafts", DEFINITIONS["acceptance"][2])
        page.figure(acceptance_bars(drafts), "Drafted tokens kept")
    for at, run in (("A", a), ("B", b)):
        page.heading(f"{at}: {label_of(run)}")
        page.tiles(sections.metrics(run))
        sections.transcript(page, run)
    sections.circumstances(page, {"A": a, "B": b})
    return page.html()
