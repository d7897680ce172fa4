"""Ask about the transcript: the second pass of the 3.x models, text only, LoRA off.

In: a question and the transcript. Out: the answer as it grows; only where the model has a
text mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gradio as gr

from app.components.events import MODEL_EVENT, session_of
from app.components.failures import Updates, plain_errors
from app.service.model_summary import ModelSummary
from app.service.service import TranscriptionService
from app.wording import phrases


@dataclass(frozen=True)
class AskPanel:
    """The components; group holds the others."""

    group: gr.Accordion
    question: gr.Textbox
    send: gr.Button
    answer: gr.Textbox

    def fit(self, summary: ModelSummary) -> Updates:
        """Show the panel where the model answers text."""
        return {self.group: gr.update(visible=summary.text_mode)}


def build_ask(
    service: TranscriptionService, model: gr.Dropdown, transcript: gr.Textbox
) -> AskPanel:
    """Lay the panel out inside the current column and wire it."""
    summary = service.summary(service.model)
    with gr.Accordion(
        "Ask about it", open=False, visible=summary.text_mode, elem_id="ask"
    ) as group:
        gr.HTML(phrases.aside_html(phrases.ASK_NOTE))
        question = gr.Textbox(
            label="Question",
            info=phrases.ASK_EXAMPLES,
            placeholder="write in digits",
            elem_id="question",
        )
        send = gr.Button("Ask", size="md", elem_id="send")
        answer = gr.Textbox(
            label="Answer", interactive=False, lines=2, buttons=["copy"], elem_id="answer"
        )
    panel = AskPanel(group, question, send, answer)

    def ask(request: gr.Request, name: str, asked: str, text: str) -> Iterator[str]:
        with plain_errors():
            service.summary(name or service.model).check_question(asked)
            yield from service.ask(session_of(request), name, phrases.question(asked, text))

    for start in (send.click, question.submit):
        start(
            ask,
            [model, question, transcript],
            [answer],
            show_progress="minimal",
            api_visibility="private",
            **MODEL_EVENT,
        )
    return panel
