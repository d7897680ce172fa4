"""Several recordings at once: one table that fills, and everything in one file.

In: sound files, perhaps their texts beside them, and the settings of the Transcribe tab. Out: a row
each, in order, with its error rate where the text is known; a file that cannot be read gets a
sentence in its row and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app.components.events import PAGE_EVENT, PageJob, wire_job
from app.components.failures import Updates
from app.components.settings_panel import SettingsPanel
from app.service.examples import TEXT, Labelled, with_texts
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.transcript_files import SAVE, File, archive
from app.service.updates import CancelledBeforeStart, QueuePlace, RequestResult
from app.service.user_errors import user_message
from app.wording import phrases, reference
from app.wording.progress import progress_html
from core.text.transcript import Transcript
from core.transcription.options import PartialText
from core.units import counted


class FileState(Enum):
    """The state of one file; the value is the word on the page."""

    WAITS = "waits"
    RUNS = "listening…"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


WITH_TEXTS = (
    "A .txt of the same name beside a recording is taken as what was really said in it, and gives "
    "its word error rate, under the normaliser of “What was really said”."
)
OVER = (FileState.DONE, FileState.FAILED, FileState.STOPPED)


@dataclass(frozen=True)
class FileRow:
    """One file. text: what was heard so far, or what went wrong; said: what was really said."""

    name: str
    state: FileState = FileState.WAITS
    text: str = ""
    transcript: Transcript | None = field(default=None, repr=False)
    said: str | None = None

    @property
    def pair(self) -> tuple[str, str] | None:
        """Return the text as it should be and as it is, where both are whole."""
        if self.state is not FileState.DONE or self.said is None or self.transcript is None:
            return None
        return self.said, self.transcript.text


def build_batch(
    service: TranscriptionService, settings: SettingsPanel, normalizer: gr.Radio
) -> None:
    """Lay the panel out inside the current column and wire it; ``normalizer`` stands elsewhere."""
    with gr.Accordion("Several files at once", open=False, elem_id="batch"):
        files = gr.File(
            label="Sound files",
            file_count="multiple",
            file_types=["audio", "video", TEXT],
            height=140,
            elem_id="batch-files",
        )
        gr.HTML(phrases.aside_html(WITH_TEXTS))
        with gr.Row():
            go = gr.Button("Transcribe all", variant="primary", min_width=120, elem_id="batch-go")
            stop = gr.Button("Stop all", interactive=False, min_width=120, elem_id="batch-stop")
        status = gr.HTML(elem_id="batch-status")
        table = gr.HTML(elem_id="batch-table")
        save = gr.Button("Download all (zip)", visible=False, size="sm", elem_id="batch-save")
    done, file = gr.State([]), gr.JSON(elem_classes="never-shown")

    def run(session: str, paths: list[str] | None, rule: str, *values: Any) -> Iterator[Updates]:
        begun = time.monotonic()
        recordings, warnings = with_texts(paths or [])
        asides = "".join(phrases.aside_html(phrases.sentence(text)) for text in warnings)
        for rows in transcribed(service, session, recordings, settings.read(values)):
            made = [row.transcript for row in rows if row.transcript is not None]
            yield {
                status: finished_html(rows, time.monotonic() - begun) + asides,
                table: rows_html(rows, rule),
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
        inputs=[files, normalizer, *settings.inputs],
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
    service: TranscriptionService, session: str, files: Sequence[Labelled], settings: Settings
) -> Iterator[list[FileRow]]:
    """Transcribe the files in order; a stop ends the current one and leaves out the rest.

    Args:
        service: whose models.
        session: of the visitor.
        files: in order.
        settings: of all of them.

    Yields:
        The rows, whenever one changed.
    """
    rows = [FileRow(Path(one.path).name, said=one.said) for one in files]
    yield rows
    for number, one in enumerate(files):
        try:
            for update in service.stream(session, one.path, settings):
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


def rows_html(rows: list[FileRow], normalizer: str = "basic") -> str:
    """Format the table, with errors marked where texts are known; names and texts are escaped."""
    if not rows:
        return ""
    pairs = [row.pair for row in rows if row.pair is not None]
    titles = ("File", "Text", *(["WER"] if pairs else []), "State")
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    body = "".join(_row_html(row, normalizer, rated=bool(pairs)) for row in rows)
    table = f"<table class='batch'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    said = phrases.status_html(reference.together(pairs, normalizer)) if pairs else ""
    legend = phrases.aside_html(reference.LEGEND) if pairs else ""
    return f"{said}<div class='scroll'>{table}</div>{legend}"


def _row_html(row: FileRow, normalizer: str, *, rated: bool) -> str:
    text, rate = escape(row.text), ""
    if row.pair is not None:
        text = reference.differences_html(*row.pair, normalizer)
        rate = reference.wer_text(*row.pair, normalizer)
    cells = [text, *([rate] if rated else []), _cost(row)]
    return (
        f"<tr><th scope='row'>{phrases.breakable(row.name)}</th>"
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    )


def _cost(row: FileRow) -> str:
    if row.transcript is None:
        return escape(row.state.value)
    t = row.transcript
    spent = phrases.seconds(t.end_to_end_ms / 1000)
    return escape(
        f"stopped after {spent}" if t.stopped else f"{phrases.clock(t.audio_s)} in {spent}"
    )
