"""Every run of the list in one table and one chart, and the history of a workload.

In: the reader of runs. Out: a drawer, filled when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.components.downloads import FETCH_FILE, build_fetched, write_file
from app.components.events import PAGE_EVENT, TELLING_EVENT, session_of
from app.components.failures import Updates, plain_errors
from app.service.profiles.reader import ManyRuns, ProfileReader
from app.service.user_errors import user_message
from app.wording import many_runs as words
from app.wording import phrases
from core.errors import UserError
from profiling.figures.history import history_line
from profiling.figures.many_runs import runs_chart
from profiling.report.many_runs import HISTORY_LEAD, RUNS_LEAD, history_report, runs_report


def build_many_runs(viewer: ProfileReader) -> None:
    """Lay the drawer out inside the current column and wire it."""
    with gr.Accordion(words.TITLE, open=False, elem_id="many-runs") as drawer:
        status = gr.HTML()
        with gr.Column(visible=False) as found:
            gr.HTML(phrases.aside_html(RUNS_LEAD))
            chart = gr.Plot(label="Every run", show_label=False, elem_id="many-runs-chart")
            table = gr.HTML(elem_id="many-runs-table", elem_classes="report")
            save_runs = gr.Button("Save this page (HTML)", size="sm")
        with gr.Column(visible=False) as over_time:
            gr.HTML(f"<h2>History</h2>{phrases.aside_html(HISTORY_LEAD)}")
            with gr.Row():
                workload = gr.Dropdown([], label="Workload", elem_id="history-workload")
                phase = gr.Dropdown([], label="Phase", elem_id="history-phase")
            said = gr.HTML(elem_id="history-said", elem_classes="report")
            line = gr.Plot(label="History", show_label=False, elem_id="history-line")
            points = gr.HTML(elem_id="history-points", elem_classes="report")
            save_history = gr.Button("Save this history (HTML)", size="sm")
    kept, fetched = gr.State(None), build_fetched()

    def fill(request: gr.Request) -> Iterator[Updates]:
        yield {status: phrases.status_html(words.BUSY if viewer.busy else words.READING)}
        try:
            many = viewer.many(session_of(request))
        except Exception as error:
            yield {status: phrases.status_html(user_message(error), "error")}
            return
        yield {
            status: "" if many.rows else phrases.status_html(words.EMPTY),
            found: gr.update(visible=bool(many.rows)),
            over_time: gr.update(visible=bool(many.histories)),
            table: words.table_html(many.rows),
            chart: runs_chart(many.rows),
            kept: many,
        } | (choose(many, 0) if many.histories else {})

    def choose(many: ManyRuns, number: int) -> Updates:
        one = many.histories[number]
        names = words.phases_of(one)
        named = [(words.phase_title(name), name) for name in names]
        labels = [(words.workload_title(each), n) for n, each in enumerate(many.histories)]
        return {
            workload: gr.update(choices=labels, value=number),
            phase: gr.update(choices=named, value=names[0]),
            said: words.changes_html(one),
            line: history_line(one, names[0]),
            points: words.points_html(one),
        }

    def draw(many: ManyRuns, number: int, name: str) -> Any:
        return history_line(many.histories[number], name)

    def save(request: gr.Request, name: str, page: str) -> str:
        return write_file(viewer.library.scratch(session_of(request)), name, page.encode())

    def write_runs(request: gr.Request, many: ManyRuns | None) -> str:
        with plain_errors():
            if many is None:
                raise UserError(words.EMPTY)
            return save(request, "runs.html", runs_report(many.rows))

    def write_history(request: gr.Request, many: ManyRuns | None, number: int) -> str:
        with plain_errors():
            if many is None:
                raise UserError(words.EMPTY)
            return save(request, "history.html", history_report(many.histories[number]))

    outputs = [status, found, over_time, table, chart, kept, workload, phase, said, line, points]
    drawer.expand(fill, None, outputs, **TELLING_EVENT)
    chosen = [workload, phase, said, line, points]
    workload.input(choose, [kept, workload], chosen, **TELLING_EVENT)
    phase.input(draw, [kept, workload, phase], [line], **TELLING_EVENT)
    for button, write, given in (
        (save_runs, write_runs, [kept]),
        (save_history, write_history, [kept, workload]),
    ):
        made = button.click(write, given, [fetched], **TELLING_EVENT)
        made.then(None, [fetched], None, js=FETCH_FILE, **PAGE_EVENT)
