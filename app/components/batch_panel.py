"""Several recordings at once: one table that fills, and everything in one file.

In: sound files and the settings of the Transcribe tab. Out: a row each, in order; a file that
cannot be read gets a sentence in its row and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app.components.events import PAGE_EVENT, PageJob, wire_job
from app.components.failures import Updates
from app.components.settings_panel import SettingsPanel
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.transcript_files import SAVE, File, archive
from app.service.updates import CancelledBeforeStart, QueuePlace, RequestResult
from app.service.user_errors import user_message
from app.wording import phrases
from app.wording.progress import progress_html
from core.text.transcript import Transcript
from core.transcription.options import PartialText
from core.units import counted


class FileState(Enum):
    """What became of one file so far; the value is the word on the page."""

    WAITS = "waits"
    RUNS = "listening…"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


OVER = (FileState.DONE, FileState.FAILED, FileState.STOPPED)


@dataclass(frozen=True)
class FileRow:
    """One file. text: what was heard so far, or what went wrong."""

    name: str
    state: FileState = FileState.WAITS
    text: str = ""
    transcript: Transcript | None = field(default=None, repr=False)


def build_batch(service: TranscriptionService, settings: SettingsPanel) -> None:
    """Lay the panel out inside the current column and wire it."""
    with gr.Accordion("Several files at once", open=False, elem_id="batch"):
        files = gr.File(
            label="Sound files",
            file_count="multiple",
            file_types=["audio", "video"],
            height=140,
            elem_id="batch-files",
        )
        with gr.Row():
            go = gr.Button("Transcribe all", variant="primary", min_width=120, elem_id="batch-go")
            stop = gr.Button("Stop all", interactive=False, min_width=120, elem_id="batch-stop")
        status = gr.HTML(elem_id="batch-status")
        table = gr.HTML(elem_id="batch-table")
        save = gr.Button("Download all (zip)", visible=False, size="sm", elem_id="batch-save")
    done, file = gr.State([]), gr.JSON(elem_classes="never-shown")

    def run(session: str, paths: list[str] | None, *values: Any) -> Iterator[Updates]:
        begun = time.monotonic()
        for rows in transcribed(service, session, paths or [], settings.read(values)):
            made = [row.transcript for row in rows if row.transcript is not None]
            yield {
                status: finished_html(rows, time.monotonic() - begun),
                table: rows_html(rows),
                done: made,
                save: gr.update(visible=bool(made)),
            }

    job = PageJob(
        begin=service.begin,
        run=run,
        stop=service.stop,
        stopping=phrases.STOPPING,
        waiting=lambda: {status: phrases.status_html(phrases.WAITING), table: ""},
        failed=lambda message: {status: phrases.status_html(message, "error")},
        inputs=[files, *settings.inputs],
        outputs=[status, table, done, save],
        status=status,
        stop_button=stop,
    )
    wire_job(job, go.click)
    packed = save.click(pack, [done], [file], **PAGE_EVENT)
    packed.then(None, [file], None, js=SAVE, **PAGE_EVENT)


def pack(done: list[Transcript]) -> File:
    """Pack everything that is done into one zip."""
    return archive(done) if done else {}


def transcribed(
    service: TranscriptionService, session: str, paths: list[str], settings: Settings
) -> Iterator[list[FileRow]]:
    """Transcribe the files in order; a stop ends the current one and leaves out the rest.

    Args:
        service: whose models.
        session: of the visitor.
        paths: of the files.
        settings: of all of them.

    Yields:
        The rows, whenever one changed.
    """
    rows = [FileRow(Path(path).name) for path in paths]
    yield rows
    for number, path in enumerate(paths):
        try:
            for update in service.stream(session, path, settings):
                rows[number] = _after(rows[number], update)
                if isinstance(update, PartialText | RequestResult):
                    yield rows
        except Exception as error:
            rows[number] = replace(rows[number], state=FileState.FAILED, text=user_message(error))
            yield rows
        if rows[number].state == FileState.STOPPED:
            rows[number:] = [replace(row, state=FileState.STOPPED) for row in rows[number:]]
            break
    yield rows


def _after(row: FileRow, update: object) -> FileRow:
    if isinstance(update, PartialText):
        return replace(row, state=FileState.RUNS, text=update.text)
    if isinstance(update, CancelledBeforeStart):
        return replace(row, state=FileState.STOPPED)
    if isinstance(update, RequestResult):
        made = update.transcript
        if made.stopped and not made.text:  # nothing to save
            return replace(row, state=FileState.STOPPED)
        state = FileState.STOPPED if made.stopped else FileState.DONE
        told = made.text or phrases.sentence(made.warnings[0] if made.warnings else "no words")
        return replace(row, state=state, text=told, transcript=made)
    return row if isinstance(update, QueuePlace) else replace(row, state=FileState.RUNS)


def finished_html(rows: list[FileRow], spent_s: float) -> str:
    """Format how many files are finished, and how long the others take at that pace."""
    if not rows:
        return phrases.status_html("No files yet; choose some first.", "error")
    done = sum(row.state in OVER for row in rows)
    said = f"{done} of {counted(len(rows), 'file')} finished"
    if done == len(rows):
        return phrases.status_html(said)
    left_s = spent_s / done * (len(rows) - done) if done else None
    return progress_html(said, done / len(rows), left_s)


def rows_html(rows: list[FileRow]) -> str:
    """Format the table; file names and texts are escaped."""
    if not rows:
        return ""
    body = "".join(
        f"<tr><th scope='row'>{phrases.breakable(row.name)}</th><td>{escape(row.text)}</td>"
        f"<td>{_cost(row)}</td></tr>"
        for row in rows
    )
    head = "<tr><th scope='col'>File</th><th scope='col'>Text</th><th scope='col'>State</th></tr>"
    table = f"<table class='batch'><thead>{head}</thead><tbody>{body}</tbody></table>"
    return f"<div class='scroll'>{table}</div>"


def _cost(row: FileRow) -> str:
    if row.transcript is None:
        return escape(row.state.value)
    t = row.transcript
    spent = phrases.seconds(t.end_to_end_ms / 1000)
    return escape(
        f"stopped after {spent}" if t.stopped else f"{phrases.clock(t.audio_s)} in {spent}"
    )
