"""The encoder alone: a picture of its log-mel input, and the letters its CTC head reads.

In: the recording and settings of the Transcribe tab. Out: a picture, made when somebody opens the
panel: it costs a pass of the encoder, which nobody should pay who does not look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.events import MODEL_EVENT
from app.components.failures import plain_errors
from app.components.settings_panel import SettingsPanel
from app.service.service import TranscriptionService
from app.wording import phrases
from profiling.figures.encoder_view import heard_figure


@dataclass(frozen=True)
class EncoderPanel:
    """The components."""

    group: gr.Accordion
    picture: gr.Plot
    read: gr.HTML


def build_encoder_panel(
    service: TranscriptionService, recording: gr.Audio, settings: SettingsPanel
) -> EncoderPanel:
    """Lay the panel out inside the current column and wire it."""
    with gr.Accordion("What the encoder heard", open=False, elem_id="heard") as group:
        gr.HTML(phrases.aside_html(phrases.ENCODER_VIEW_NOTE))
        again = gr.Button("Draw", size="sm", elem_id="draw-heard")
        picture = gr.Plot(label="Sound and letters", show_label=False, elem_id="heard-picture")
        read = gr.HTML(elem_id="heard-text")

    def draw(path: str | None, *values: Any) -> tuple[Any, str]:
        with plain_errors():
            view = service.encoder_view(path, settings.read(values))
        return heard_figure(view), phrases.encoder_view_html(view)

    again.click(
        draw,
        [recording, *settings.inputs],
        [picture, read],
        api_visibility="private",
        **MODEL_EVENT,
    )
    return EncoderPanel(group, picture, read)
