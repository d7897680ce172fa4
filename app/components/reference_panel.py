"""What was really said: a text to set the transcript against, under a normaliser.

In: the transcript, as it was made. Out: components; error rates and marked differences under the
text, the fields in a drawer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.events import PAGE_EVENT
from app.wording import phrases
from app.wording import reference as words
from app.wording.evaluation import NORMALIZERS
from core.text.transcript import Transcript

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
        return words.reference_html(said or "", None if made is None else made.text, normalizer)

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
        gr.HTML(phrases.aside_html(words.NOTE))
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
            info=words.NORMALIZER_NOTE,
            elem_id="reference-normalizer",
        )
    return ReferencePanel(result, said, normalizer)
