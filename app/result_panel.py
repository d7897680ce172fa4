"""The right side of the Transcribe tab: the text, the status line, the numbers, the chart.

In: updates of a studio. Out: what each component shows, as Gradio updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import wording
from app.events import PAGE_EVENT, Updates
from app.studio import Outcome, Update
from core.export import EXPORTERS
from core.options import PartialText
from profiling.figures import phase_bars

# The browser makes the file itself: nothing of a transcript is written to this machine's disk.
_DOWNLOAD = """(files) => {{
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([files["{kind}"]], {{type: "text/plain"}}));
  link.download = files.name + ".{kind}";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}}"""


@dataclass(frozen=True)
class ResultPanel:
    """The components. cost holds what is only there once a transcript is."""

    status: gr.HTML
    text: gr.Textbox
    notes: gr.HTML
    cost: gr.Column
    numbers: gr.HTML
    chart: gr.Plot
    details: gr.JSON
    files: gr.JSON

    @property
    def outputs(self) -> list[Any]:
        """Everything the methods below may change."""
        return [
            *(self.status, self.text, self.notes, self.cost),
            *(self.numbers, self.chart, self.details, self.files),
        ]

    def waiting(self) -> Updates:
        """A request was made and waits its turn."""
        return {
            self.status: wording.status_html(wording.WAITING),
            self.text: "",
            self.notes: "",
            self.cost: gr.update(visible=False),
        }

    def failed(self, message: str) -> Updates:
        """A request ended in an error; the message stays until the next one."""
        return {self.status: wording.status_html(message, "error")}

    def shown(self, update: Update, *, engine: str, expected: str) -> Updates:
        """What an update changes on the page."""
        if isinstance(update, Outcome):
            return self._finished(update, expected)
        said = wording.doing(update, engine=engine)
        changes: Updates = {} if said is None else {self.status: wording.status_html(said)}
        if isinstance(update, PartialText):
            changes[self.text] = update.text
        return changes or {self.status: gr.skip()}

    def _finished(self, outcome: Outcome, expected: str) -> Updates:
        transcript = outcome.transcript
        files = {kind: write(transcript) for kind, write in EXPORTERS.items()}
        return {
            self.status: wording.status_html(wording.summary(outcome)),
            self.text: transcript.text,
            self.notes: wording.notes_html(outcome, expected),
            self.cost: gr.update(visible=True),
            self.numbers: wording.figures_html(outcome),
            self.chart: phase_bars(transcript.phases, transcript.end_to_end_ms),
            self.details: transcript.to_dict(),
            self.files: files | {"name": "transcript"},
        }


def build_result() -> ResultPanel:
    """Lay the panel out inside the current column."""
    text = gr.Textbox(
        label="Transcript",
        lines=4,
        max_lines=16,
        interactive=False,
        placeholder="The text appears here while the model writes it.",
        buttons=["copy"],
        elem_id="text",
    )
    status = gr.HTML(wording.status_html(wording.READY), elem_id="status")
    notes = gr.HTML(elem_id="notes")
    with gr.Column(visible=False, elem_id="cost") as cost:
        numbers = gr.HTML(elem_id="numbers")
        gr.HTML("<h2>Where the time went</h2>")
        chart = gr.Plot(label="Time by phase", show_label=False, elem_id="chart")
        files = gr.JSON(elem_classes="never-shown")
        with gr.Row(elem_id="downloads"):
            for kind in EXPORTERS:
                save = gr.Button(f"Save {kind}", size="sm", min_width=80)
                save.click(None, [files], None, js=_DOWNLOAD.format(kind=kind), **PAGE_EVENT)
        with gr.Accordion("Everything measured, as JSON", open=False, elem_id="details"):
            details = gr.JSON(label="Transcript as JSON", show_label=False)
    return ResultPanel(status, text, notes, cost, numbers, chart, details, files)
