"""The Evaluate tab: variants of a model over recordings whose text is known.

In: the evaluation service. Out: components, wired. Handlers pass values on to
:class:`app.service.evaluation.EvaluationService` and words to the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from app.components.downloads import FETCH_FILE, build_fetched, write_file
from app.components.events import (
    MEASURE_EVENT,
    PAGE_EVENT,
    TELLING_EVENT,
    PageJob,
    session_of,
    wire_job,
)
from app.components.failures import Updates, plain_errors
from app.service.evaluation import EvaluationService, EvaluationUpdate
from app.service.updates import QueuePlace
from app.wording import evaluation as words
from app.wording import phrases
from app.wording.progress import waiting_html
from core.bulk.inputs import MANIFESTS
from core.errors import UserError
from core.text.normalizers import NORMALIZERS
from profiling.evaluate.page import evaluation_page
from profiling.evaluate.results import RESULTS
from profiling.evaluate.table import frontier
from profiling.evaluate.variants import Variant, parse_variants
from profiling.figures.quality import error_against_speed

SAVES = {"jsonl": "every recording (jsonl)", "csv": "all figures (csv)", "html": "the page (HTML)"}


def build_evaluate_tab(evaluation: EvaluationService) -> None:
    """Lay the tab out; where nothing can be timed, the page says so instead."""
    if evaluation.refusal is not None:
        gr.HTML(phrases.status_html(evaluation.refusal), elem_id="evaluate-status")
        return
    with gr.Row(elem_id="evaluate", elem_classes="two-columns"):
        with gr.Column():
            fields = _build_choice(evaluation)
            with gr.Row():
                go = gr.Button("Evaluate", variant="primary", min_width=120, elem_id="evaluate-go")
                stop = gr.Button("Stop", interactive=False, min_width=120, elem_id="evaluate-stop")
        with gr.Column():
            status = gr.HTML(phrases.status_html(words.READY), elem_id="evaluate-status")
            picture = gr.Plot(
                label="Errors", show_label=False, visible=False, elem_id="evaluate-picture"
            )
            with gr.Accordion("How this is measured", open=False):
                gr.HTML(phrases.aside_html(words.NOTE))
    table = gr.HTML(elem_id="evaluate-table", elem_classes="report")
    with gr.Row(visible=False) as found:
        save = {
            kind: gr.Button(f"Save {title}", size="sm", elem_id=f"evaluate-{kind}")
            for kind, title in SAVES.items()
        }
    last, fetched = gr.State(None), build_fetched()
    outputs = [status, table, found, picture, last]

    def run(session: str, files: list[str] | None, *values: Any) -> Iterator[Updates]:
        variants, normalizer = chosen_variants(*values[:3]), values[3]
        for update in evaluation.evaluate(session, files or [], variants, normalizer):
            if isinstance(update, QueuePlace):
                yield {status: waiting_html(update)}
            elif not isinstance(update, EvaluationUpdate):
                yield {status: phrases.status_html(words.NOT_BEGUN)}
            else:
                yield {
                    status: words.state_html(update),
                    table: words.table_html(update),
                    found: gr.update(visible=update.over),
                    picture: gr.update(value=_figure(update), visible=True)
                    if update.over
                    else gr.skip(),
                    last: (update, normalizer),
                }

    job = PageJob(
        begin=evaluation.begin,
        run=run,
        stop=evaluation.stop,
        stopping=words.STOPPING,
        waiting=lambda: {status: phrases.status_html(phrases.WAITING), table: ""},
        failed=lambda message: {status: phrases.status_html(message, "error")},
        inputs=fields,
        outputs=outputs,
        status=status,
        stop_button=stop,
        event=MEASURE_EVENT,
    )
    wire_job(job, go.click)
    for kind, button in save.items():

        def write(request: gr.Request, kept: Any, kind: str = kind) -> str:
            with plain_errors():
                return saved(evaluation.folder(session_of(request)), kind, kept)

        made = button.click(write, [last], [fetched], **TELLING_EVENT)
        made.then(None, [fetched], None, js=FETCH_FILE, **PAGE_EVENT)


def _build_choice(evaluation: EvaluationService) -> list[Any]:
    """Build what is evaluated: files, model, presets, more variants, normaliser."""
    service = evaluation.service
    presets = {
        title: key
        for key, title in words.PRESETS.items()
        if key != "engine=compile" or "compile" in service.limits.engines
    }
    files = gr.File(
        label="Recordings and texts",
        file_count="multiple",
        file_types=["audio", "video", ".txt", *MANIFESTS],
        height=120,
        elem_id="evaluate-files",
    )
    gr.HTML(phrases.aside_html(words.FILES))
    with gr.Row():
        model = gr.Dropdown(
            [(one.title, one.name) for one in service.summaries()],
            value=service.summary(service.model).name,
            label="Model",
            allow_custom_value=service.limits.only is None,
            min_width=120,
            scale=4,
            elem_id="evaluate-model",
        )
        normalizer = gr.Radio(
            [(words.NORMALIZERS[key], key) for key in NORMALIZERS],
            value="basic",
            label="Normaliser",
            min_width=280,
            scale=5,
            elem_id="evaluate-normalizer",
        )
    ways = gr.CheckboxGroup(
        list(presets.items()),
        value=["", "lora=off"],
        label="Variants",
        elem_id="evaluate-variants",
    )
    with gr.Accordion("More variants", open=False, elem_id="evaluate-more"):
        more = gr.Textbox(
            label="One a line",
            info="MODEL,key=value,… with engine, lora, adapter, decoding, dtype, quantize, batch, "
            "max_new_tokens; + between several values.",
            lines=3,
            elem_id="evaluate-own",
        )
    return [files, model, ways, more, normalizer]


def chosen_variants(model: str | None, ways: list[str], more: str | None) -> list[Variant]:
    """Return what the fields name: the model in each of the ways, and more lines."""
    named = [f"{model},{way}".rstrip(",") for way in ways] if model else []
    return parse_variants([*named, *(more or "").split("\n")])


def _figure(update: EvaluationUpdate) -> Any:
    best = [row.variant for row in frontier(update.rows)]
    return error_against_speed([row.to_json() for row in update.rows], best)


def saved(folder: Path, kind: str, kept: tuple[EvaluationUpdate, str] | None) -> str:
    """Write what is there as a file to fetch.

    Args:
        folder: of the visitor's evaluation.
        kind: "jsonl", every recording; "csv", a row a variant; "html", the page.
        kept: the last update and its normaliser.

    Returns:
        Path of the file.

    Raises:
        UserError: nothing was evaluated yet, or it is gone.
    """
    if kept is None or not (folder / RESULTS).is_file():
        raise UserError("there are no results; press Evaluate first")
    update, normalizer = kept
    if kind == "jsonl":
        return write_file(folder, "evaluation.jsonl", (folder / RESULTS).read_bytes())
    if kind == "csv":
        rows = pd.DataFrame([row.to_json() for row in update.rows])
        return write_file(folder, "evaluation.csv", rows.to_csv(index=False).encode())
    page = evaluation_page(
        update.rows, data="own recordings", normalizer=normalizer, warnings=update.warnings
    )
    return write_file(folder, "evaluation.html", page.encode())
