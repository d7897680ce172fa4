"""A sweep: what to combine, and one table and two charts of every combination.

In: the sweep service, and the recording and model of the tab around it. Out: components, wired.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.components.downloads import FETCH_FILE, build_fetched, write_file
from app.components.events import PAGE_EVENT, TELLING_EVENT, PageJob, session_of, wire_job
from app.components.failures import Updates, plain_errors
from app.service.measurement import MeasurementService
from app.service.measurement_job import MeasurementProgress
from app.service.profiles.sweep import SweepChoices, SweepReport, SweepService, SweepUpdate, numbers
from app.service.updates import QueuePlace
from app.wording import comparison, phrases
from app.wording import sweep as words
from app.wording.progress import waiting_html
from core.devices import dtypes, quantisers
from core.errors import UserError
from profiling.figures.many_runs import heat_table, time_over_length
from profiling.report.many_runs import REAL_TIME_FACTOR, TIME_OVER_LENGTH, sweep_report

BLOCKS, MOST_BLOCKS, TOKENS = 6, 40, 200
AS_STARTED = ("as started", "")


def build_sweep(
    measuring: MeasurementService, device: str | None, recording: gr.Audio, model: gr.Dropdown
) -> None:
    """Lay the panel out inside the current column and wire it.

    Args:
        measuring: whose models, store and quiet.
        device: where models run, for the number formats it knows.
        recording: the tab's.
        model: the tab's.
    """
    with gr.Accordion("Sweep: every combination of several choices", open=False, elem_id="sweep"):
        gr.HTML(phrases.aside_html(words.NOTE))
        fields = _build_fields(measuring, device)
        with gr.Row():
            go = gr.Button("Sweep", variant="primary", min_width=120, elem_id="sweep-go")
            stop = gr.Button("Stop", interactive=False, min_width=120, elem_id="sweep-stop")
        status = gr.HTML(phrases.status_html(words.READY), elem_id="sweep-status")
        with gr.Column(visible=False, elem_id="sweep-found") as found:
            table = gr.HTML(elem_id="sweep-table", elem_classes="report")
            with gr.Row(elem_classes="pair"):
                lines = _plot("Time over length", TIME_OVER_LENGTH, "sweep-lines")
                heat = _plot("Real-time factor", REAL_TIME_FACTOR, "sweep-heat")
            save = gr.Button("Save the page (HTML)", size="sm", elem_id="sweep-save")
    fetched, last = build_fetched(), gr.State(None)

    def shown(report: SweepReport) -> Updates:
        if isinstance(report, MeasurementProgress):
            return {status: comparison.measuring_html(report)}
        if isinstance(report, QueuePlace):
            return {status: waiting_html(report)}
        if not isinstance(report, SweepUpdate):
            return {status: phrases.status_html(comparison.NOT_BEGUN)}
        changes: Updates = {status: words.state_html(report)}
        if report.over and report.rows:
            changes |= {lines: time_over_length(report.rows), heat: heat_table(report.rows)}
            changes |= {last: report}
        if report.rows:
            changes |= {found: gr.update(visible=True), table: words.table_html(report)}
        return changes

    def run(session: str, sound: str | None, name: str | None, *values: Any) -> Iterator[Updates]:
        sweeps = SweepService(measuring)
        choices = chosen(name or measuring.service.model, *values)
        return map(shown, sweeps.sweep(session, sound, choices))

    job = PageJob(
        begin=measuring.begin,
        run=run,
        stop=measuring.stop,
        stopping=words.STOPPING,
        waiting=lambda: {status: phrases.status_html(phrases.WAITING)},
        failed=lambda message: {status: phrases.status_html(message, "error")},
        inputs=[recording, model, *fields],
        outputs=[status, found, table, lines, heat, last],
        status=status,
        stop_button=stop,
    )
    wire_job(job, go.click)

    def write(request: gr.Request, kept: SweepUpdate | None) -> str:
        with plain_errors():
            if kept is None:
                raise UserError("there is nothing to save yet; let a sweep come to its end")
            folder = measuring.library.scratch(session_of(request))
            return write_file(folder, "sweep.html", sweep_report(kept.rows, kept.notes).encode())

    made = save.click(write, [last], [fetched], **TELLING_EVENT)
    made.then(None, [fetched], None, js=FETCH_FILE, **PAGE_EVENT)


def chosen(
    model: str,
    engines: list[str],
    adapters: list[str],
    decodings: list[str],
    formats: list[str],
    *more: Any,
) -> SweepChoices:
    """Read the fields.

    Args:
        model: A's.
        engines: of the first row.
        adapters: "on" and "off".
        decodings: of the third row.
        formats: of the fourth row.
        more: lengths and batches as text, and the number of blocks.

    Returns:
        What to combine.

    Raises:
        UserError: lengths or batches are no numbers.
    """
    lengths, batches, blocks = more
    several = numbers(batches or "1", "batches")
    if any(one != int(one) for one in several):
        raise UserError(f"batches hold {batches!r}; expected whole numbers such as 1, 8")
    return SweepChoices(
        model=model,
        engines=engines,
        adapters=[words.LORA[one] for one in adapters],
        decodings=decodings,
        formats=formats,
        lengths_s=numbers(lengths or "", "lengths"),
        batches=[int(one) for one in several],
        max_new_tokens=TOKENS,
        blocks=int(blocks),
    )


def _build_fields(measuring: MeasurementService, device: str | None) -> list[Any]:
    limits = measuring.service.limits
    decodings = measuring.service.summary(measuring.service.model).decodings
    engines = [(phrases.ENGINES[key], key) for key in limits.engines]
    formats = [AS_STARTED, *((one, one) for one in (*dtypes(device), *quantisers(device)))]

    def several(label: str, choices: list[Any], value: list[str], name: str) -> gr.CheckboxGroup:
        return gr.CheckboxGroup(choices, value=value, label=label, elem_id=f"sweep-{name}")

    with gr.Row(elem_classes="choices"):
        engine = several("Engines", engines, [key for _, key in engines], "engines")
        lora = several("LoRA", ["on", "off"], ["on"], "lora")
        decoding = several(
            "Decodings",
            [(phrases.DECODINGS[key], key) for key in decodings],
            ["greedy"],
            "decodings",
        )
        number_format = several("Number formats", formats, [""], "formats")
        lengths = gr.Textbox(label="Lengths", info=words.LENGTHS, elem_id="sweep-lengths")
        batches = gr.Textbox("1", label="Batches", info=words.BATCHES, elem_id="sweep-batches")
        blocks = gr.Slider(
            1,
            MOST_BLOCKS,
            BLOCKS,
            step=1,
            label="Blocks",
            info="Two runs of each combination; six or more give verdicts.",
            elem_id="sweep-blocks",
        )
    return [engine, lora, decoding, number_format, lengths, batches, blocks]


def _plot(title: str, note: str, name: str) -> gr.Plot:
    with gr.Column(min_width=0):
        gr.HTML(f"<h2>{title}</h2>{phrases.aside_html(note)}")
        return gr.Plot(label=title, show_label=False, elem_id=name)
