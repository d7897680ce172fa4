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

    found holds what is only there once something was measured; pays, once something was compiled.
    """

    status: gr.HTML
    found: gr.Column
    answer: gr.HTML
    texts: gr.HTML
    phases: gr.Plot
    ratios: gr.Plot
    memory: gr.Plot
    memory_over_time: gr.Plot
    memory_held: gr.Plot
    pays: gr.Column
    break_even: gr.Plot
    table: gr.HTML
    kept: gr.HTML
    keys: gr.State

    @property
    def outputs(self) -> list[Any]:
        """List everything the methods below may change."""
        return [
            *(self.status, self.found, self.answer, self.texts, self.phases, self.ratios),
            *(self.memory, self.memory_over_time, self.memory_held),
            *(self.pays, self.break_even, self.table, self.kept, self.keys),
        ]

    def waiting(self) -> Updates:
        """Show that a request waits its turn."""
        return {
            self.status: phrases.status_html(words.WAITING),
            self.found: gr.update(visible=False),
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
            self.answer: words.answer_html(measured),
            self.texts: words.texts_html(measured),
            self.phases: comparison_bars(found, titles),
            self.ratios: ratio_intervals(found),
            self.memory: memory_comparison(found, titles),
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


def build_compare_result(measuring: MeasurementService) -> CompareResult:
    """Lay the panel out inside the current column and wire its download."""
    status = gr.HTML(phrases.status_html(f"{words.READY} {words.EMPTY}"), elem_id="compare-status")
    with gr.Column(visible=False, elem_id="compare-found") as found:
        answer = gr.HTML(elem_id="compare-answer", elem_classes="report")
        texts = gr.HTML(elem_id="compare-texts")
        gr.HTML("<h2>Time of each phase</h2>")
        phases = gr.Plot(label="Time of each phase", show_label=False, elem_id="compare-phases")
        gr.HTML(f"<h2>How sure that is {term_html('aa')}</h2>")
        gr.HTML(
            phrases.aside_html(
                "B's time over A's with its 95 % interval: left of 1, B is faster. The grey band "
                "is A against itself: differences inside the band are noise."
            )
        )
        ratios = gr.Plot(label="Ratios", show_label=False, elem_id="compare-ratios")
        memory = _noted_plot("Memory of each phase", MEMORY_PER_PHASE, "compare-memory")
        over_time = _noted_plot("Memory over time", MEMORY_OVER_TIME, "compare-memory-time")
        held = _noted_plot("What memory held", MEMORY_HELD, "compare-memory-held")
        with gr.Column(visible=False) as pays:
            gr.HTML("<h2>When compiling pays off</h2>")
            line = gr.Plot(label="Break-even", show_label=False, elem_id="compare-break-even")
        table = gr.HTML(elem_id="compare-table", elem_classes="report")
        kept = gr.HTML()
        keys = gr.State([])
        fetched = build_fetched()
        report = gr.Button("Save the report (HTML)", size="sm", elem_id="compare-report")
    with gr.Accordion("How this is measured", open=False):
        gr.HTML(phrases.aside_html(words.NOTE))

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
    plots = (phases, ratios, memory, over_time, held)
    return CompareResult(status, found, answer, texts, *plots, pays, line, table, kept, keys)


def _noted_plot(title: str, note: str, name: str) -> gr.Plot:
    gr.HTML(f"<h2>{title}</h2>{phrases.aside_html(note)}")
    return gr.Plot(label=title, show_label=False, elem_id=name)
