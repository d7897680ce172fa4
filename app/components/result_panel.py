"""The right side of the Transcribe tab: the text, what is wrong in it, status, numbers, chart.

In: updates of a request, and what was really said where that is known. Out: what each component
shows, as Gradio updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.clip_actions import build_clip_actions
from app.components.events import PAGE_EVENT
from app.components.failures import Updates
from app.components.other_models import OtherModels, build_other_models
from app.service.deployment import Deployment
from app.service.service import TranscriptionService
from app.service.transcript_files import SAVE, File, transcript_file
from app.service.updates import RequestResult, Update
from app.wording import phrases, results
from app.wording import reference as reference_words
from app.wording.evaluation import NORMALIZERS
from app.wording.progress import ProgressLine
from app.wording.terms import term_html
from app.wording.words_html import paragraphs, words_html
from core.checkpoint.catalog import ASSETS
from core.text.export import EXPORTERS
from core.text.transcript import Transcript
from core.transcription.clip import OUTSIDE
from core.transcription.options import PartialText
from profiling.figures.phase_bars import phase_bars

FOLLOW = ASSETS / "words.js"


LONGEST = 200_000  # letters; a day of speech is about 700,000


@dataclass(frozen=True)
class ReferencePanel:
    """The components. result: the answer; said: the reference text."""

    result: gr.HTML
    said: gr.Textbox
    normalizer: gr.Radio

    @property
    def inputs(self) -> list[Any]:
        """List what :meth:`html` takes after the transcript."""
        return [self.said, self.normalizer]

    @staticmethod
    def html(made: Transcript | None, said: str | None, normalizer: str) -> str:
        """Format how the transcript, as it was made, agrees with the reference."""
        return reference_words.reference_html(
            said or "", None if made is None else made.text, normalizer
        )

    def wire(self, made: gr.State) -> None:
        """Answer anew when the reference or the normaliser changes."""
        inputs = [made, *self.inputs]
        typed = {**PAGE_EVENT, "trigger_mode": "always_last"}
        # Not `input`, which Gradio 6.31 sends for keys alone, not for what is pasted.
        gr.on([self.said.change, self.normalizer.input], self.html, inputs, [self.result], **typed)


def build_reference() -> ReferencePanel:
    """Lay the panel out inside the current column."""
    result = gr.HTML(elem_id="reference-result")
    with gr.Accordion("What was really said", open=False, elem_id="reference"):
        gr.HTML(phrases.aside_html(reference_words.NOTE))
        said = gr.Textbox(
            label="Reference text",
            lines=2,
            max_lines=8,
            max_length=LONGEST,
            placeholder="The words of the recording, exactly.",
            elem_id="reference-text",
        )
        normalizer = gr.Radio(
            [(NORMALIZERS[key], key) for key in NORMALIZERS],
            value="basic",
            label="Normaliser",
            info=reference_words.NORMALIZER_NOTE,
            elem_id="reference-normalizer",
        )
    return ReferencePanel(result, said, normalizer)


@dataclass(frozen=True)
class ResultPanel:
    """The components. cost holds what is only there once a transcript is; made is what was made.

    compare and profile: what to do next with the clip.
    """

    status: gr.HTML
    text: gr.Textbox
    words: gr.HTML
    notes: gr.HTML
    reference: ReferencePanel
    cost: gr.Column
    numbers: gr.HTML
    chart: gr.Plot
    details: gr.JSON
    made: gr.State
    others: OtherModels
    compare: gr.Button
    profile: gr.Button

    @property
    def outputs(self) -> list[Any]:
        """List everything the methods below may change."""
        return [
            *(self.status, self.text, self.words, self.notes, self.reference.result, self.cost),
            *(self.numbers, self.chart, self.details, self.made, self.others.group),
        ]

    def waiting(self) -> Updates:
        """Show that a request waits its turn."""
        return {
            self.status: phrases.status_html(phrases.WAITING),
            self.text: gr.update(value="", interactive=False),
            self.words: "",
            self.notes: "",
            self.reference.result: "",
            self.cost: gr.update(visible=False),
            self.made: None,
            self.others.group: gr.update(visible=False),
        }

    def failed(self, message: str) -> Updates:
        """Show why a request failed, until the next one."""
        return {self.status: phrases.status_html(message, "error")}

    def shown(self, update: Update, line: ProgressLine, *reference: str) -> Updates:
        """Show an update of a transcription.

        Args:
            update: of the request.
            line: its status line.
            reference: values of the reference panel; none where nothing is known of the recording.

        Returns:
            The changes.
        """
        if isinstance(update, RequestResult):
            agreement = self.reference.html(update.transcript, *reference) if reference else ""
            return self._finished(update) | {self.reference.result: agreement}
        said = line.html(update)
        changes: Updates = {} if said is None else {self.status: said}
        if isinstance(update, PartialText):
            changes[self.text] = update.text
        return changes or {self.status: gr.skip()}

    def _finished(self, outcome: RequestResult) -> Updates:
        transcript = outcome.transcript
        return {
            self.status: phrases.status_html(results.headline(outcome)),
            self.text: gr.update(value=paragraphs(transcript), interactive=True),
            self.words: words_html(transcript),
            self.notes: results.notes_html(outcome),
            self.cost: gr.update(visible=bool(transcript.text) or not transcript.stopped),
            self.numbers: results.figures_html(outcome),
            self.chart: phase_bars(transcript.phases, transcript.end_to_end_ms),
            self.details: transcript.to_dict(),
            self.made: transcript,
            self.others.group: gr.update(visible=OUTSIDE in transcript.warnings),
        }


def build_result(service: TranscriptionService, deployment: Deployment) -> ResultPanel:
    """Lay the panel out inside the current column."""
    text = gr.Textbox(
        label="Transcript",
        info=phrases.EDIT_NOTE,
        lines=4,
        max_lines=16,
        interactive=False,
        placeholder="The text appears here while the model writes it.",
        buttons=["copy"],
        elem_id="text",
    )
    status = gr.HTML(phrases.status_html(phrases.READY), elem_id="status")
    notes = gr.HTML(elem_id="notes")
    reference = build_reference()
    others = build_other_models(service)
    made = gr.State(None)
    reference.wire(made)
    with gr.Column(visible=False, elem_id="cost") as cost:
        actions = build_clip_actions(deployment)
        _build_downloads(made, text)
        words = gr.HTML(js_on_load=FOLLOW.read_text(encoding="utf-8"), elem_id="words")
        numbers = gr.HTML(elem_id="numbers")
        gr.HTML(f"<h2>Where the time went {term_html('prefill')}</h2>")
        chart = gr.Plot(label="Time by phase", show_label=False, elem_id="chart")
        with gr.Accordion("Everything measured, as JSON", open=False, elem_id="details"):
            details = gr.JSON(label="Transcript as JSON", show_label=False)
    cost_parts = (cost, numbers, chart, details, made)
    return ResultPanel(status, text, words, notes, reference, *cost_parts, others, *actions)


def _build_downloads(made: gr.State, text: gr.Textbox) -> None:
    """Build a button per format; each takes the text as it stands, corrections included."""
    file = gr.JSON(elem_classes="never-shown")
    with gr.Row(elem_id="downloads"):
        for kind in EXPORTERS:

            def write(transcript: Transcript | None, now: str, kind: str = kind) -> File:
                return {} if transcript is None else transcript_file(transcript, now, kind)

            save = gr.Button(f"Save {kind}", size="sm", min_width=80)
            wrote = save.click(write, [made, text], [file], **PAGE_EVENT)
            wrote.then(None, [file], None, js=SAVE, **PAGE_EVENT)
