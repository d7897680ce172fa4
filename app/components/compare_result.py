"""The right side of the Compare tab: progress, the answer, both texts, the figures.

In: reports of a measurement. Out: what each component shows, as Gradio updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.downloads import FETCH_FILE, build_fetched, write_file
from app.components.events import PAGE_EVENT, TELLING_EVENT, session_of
from app.components.failures import Updates, plain_errors
from app.service.measurement import MeasurementService
from app.service.measurement_job import MeasurementProgress, MeasurementResult, MeasurementUpdate
from app.service.updates import QueuePlace
from app.wording import comparison as words
from app.wording import phrases
from app.wording.progress import waiting_html
from app.wording.terms import term_html
from core.errors import UserError
from profiling.figures.comparison import (
    break_even_lines,
    comparison_bars,
    memory_comparison,
    memory_held,
    ratio_intervals,
)
from profiling.figures.memory_curves import memory_of_both
from profiling.report.report import comparison_report
from profiling.report.sections import MEMORY_HELD, MEMORY_OVER_TIME, MEMORY_PER_PHASE
from profiling.statistics.compare import compare


@dataclass(frozen=True)
class CompareResult:
    """The components.

    found and figures hold what is only there once something was measured; pays, once something was
    compiled.
    """

    status: gr.HTML
    found: gr.Column
    answer: gr.HTML
    texts: gr.HTML
    figures: gr.Column
    phases: gr.Plot
    table: gr.HTML
    ratios: gr.Plot
    memory: gr.Plot
    sizes: gr.HTML
    memory_over_time: gr.Plot
    memory_held: gr.Plot
    pays: gr.Column
    break_even: gr.Plot
    kept: gr.HTML
    keys: gr.State

    @property
    def outputs(self) -> list[Any]:
        """List everything the methods below may change."""
        return [
            *(self.status, self.found, self.answer, self.texts, self.figures),
            *(self.phases, self.table, self.ratios),
            *(self.memory, self.sizes, self.memory_over_time, self.memory_held),
            *(self.pays, self.break_even, self.kept, self.keys),
        ]

    def waiting(self) -> Updates:
        """Show that a request waits its turn."""
        return {
            self.status: phrases.status_html(words.WAITING),
            self.found: gr.update(visible=False),
            self.figures: gr.update(visible=False),
        }

    def failed(self, message: str) -> Updates:
        """Show why a request failed, until the next one."""
        return {self.status: phrases.status_html(message, "error")}

    def shown(self, report: MeasurementUpdate) -> Updates:
        """Show an update of a measurement."""
        if isinstance(report, MeasurementResult):
            return self._finished(report)
        if isinstance(report, MeasurementProgress):
            return {self.status: words.measuring_html(report)}
        if isinstance(report, QueuePlace):
            return {self.status: waiting_html(report)}
        return {self.status: phrases.status_html(words.NOT_BEGUN)}

    def _finished(self, measured: MeasurementResult) -> Updates:
        found = measured.comparison or {}
        labels = words.names(*measured.runs)
        titles = (f"A: {labels[0]}", f"B: {labels[1]}")
        said = "Stopped; this is what there was." if measured.stopped else "Done."
        compiled = found.get("compile_seconds") is not None
        return {
            self.status: phrases.status_html(said),
            self.found: gr.update(visible=True),
            self.figures: gr.update(visible=True),
            self.answer: words.answer_html(measured),
            self.texts: words.texts_html(measured),
            self.phases: comparison_bars(found, titles),
            self.ratios: ratio_intervals(found),
            self.memory: memory_comparison(found, titles),
            self.sizes: words.memory_html(found),
            self.memory_over_time: memory_of_both(
                [run.get("memory_curve") for run in measured.runs], titles
            ),
            self.memory_held: memory_held(found, titles),
            self.pays: gr.update(visible=compiled),
            self.break_even: break_even_lines(found) if compiled else None,
            self.table: words.table_html(found),
            self.kept: phrases.aside_html(words.KEPT),
            self.keys: list(measured.keys),
        }


def build_compare_result(
    measuring: MeasurementService, beside: gr.Column, below: gr.Column
) -> CompareResult:
    """Lay the panel out and wire its download.

    Args:
        measuring: whose runs are shown.
        beside: the form: takes progress, the answer and both texts.
        below: the whole width: takes charts, each beside its table or another chart.

    Returns:
        The components.
    """
    with beside:
        status = gr.HTML(
            phrases.status_html(f"{words.READY} {words.EMPTY}"), elem_id="compare-status"
        )
        with gr.Column(visible=False, elem_id="compare-found") as found:
            answer = gr.HTML(elem_id="compare-answer", elem_classes="report")
            texts = gr.HTML(elem_id="compare-texts")
        with gr.Accordion("How this is measured", open=False):
            gr.HTML(phrases.aside_html(words.NOTE))
    with below, gr.Column(visible=False, elem_id="compare-figures") as figures:
        with gr.Row(elem_classes="pair"):
            phases = _titled_plot("Time of each phase", "", "compare-phases")
            table = _titled_table("Verdicts", "compare-table")
        with gr.Row(elem_classes="pair"):
            ratios = _titled_plot(
                f"How sure that is {term_html('aa')}", words.RATIOS, "compare-ratios"
            )
            with gr.Column(visible=False, min_width=0) as pays:
                line = _titled_plot("When compiling pays off", "", "compare-break-even")
        with gr.Row(elem_classes="pair"):
            memory = _titled_plot("Memory of each phase", MEMORY_PER_PHASE, "compare-memory")
            sizes = _titled_table("In numbers", "compare-memory-table")
        with gr.Row(elem_classes="pair"):
            over_time = _titled_plot("Memory over time", MEMORY_OVER_TIME, "compare-memory-time")
            held = _titled_plot("What memory held", MEMORY_HELD, "compare-memory-held")
        kept = gr.HTML()
        report = gr.Button("Save the report (HTML)", size="sm", elem_id="compare-report")
    keys, fetched = gr.State([]), build_fetched()

    def write(request: gr.Request, names: list[str]) -> str:
        with plain_errors(), measuring.quiet.reading():
            library, session = measuring.library, session_of(request)
            a, b = (library.chosen(session, key).run for key in names)
            if a is None or b is None:
                raise UserError("these runs are gone; compare again")
            found = compare(a, b, reference=a.get("reference_text")).to_json()
            return write_file(
                library.scratch(session), "comparison.html", comparison_report(a, b, found).encode()
            )

    made = report.click(write, [keys], [fetched], **TELLING_EVENT)
    made.then(None, [fetched], None, js=FETCH_FILE, **PAGE_EVENT)
    shown = (status, found, answer, texts, figures, phases, table, ratios)
    held_in = (memory, sizes, over_time, held)
    return CompareResult(*shown, *held_in, pays, line, kept, keys)


def _titled_plot(title: str, note: str, name: str) -> gr.Plot:
    with gr.Column(min_width=0):
        gr.HTML(f"<h2>{title}</h2>{phrases.aside_html(note) if note else ''}")
        return gr.Plot(label=title.partition(" <")[0], show_label=False, elem_id=name)


def _titled_table(title: str, name: str) -> gr.HTML:
    with gr.Column(min_width=0):
        gr.HTML(f"<h2>{title}</h2>")
        return gr.HTML(elem_id=name, elem_classes="report")
