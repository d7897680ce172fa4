"""What the encoder heard: a picture of the sound as the model sees it, and what it read in it.

In: the recording and settings of the Transcribe tab. Out: a picture, made when somebody opens the
panel: it costs a pass of the encoder, which nobody should pay who does not look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import wording
from app.events import MODEL_EVENT
from app.failures import plain_errors
from app.jobs import Job
from app.settings import Settings
from app.settings_panel import SettingsPanel
from app.studio import Studio
from core.hearing import Hearing, hear
from profiling.figures_heard import heard_figure


@dataclass(frozen=True)
class HeardPanel:
    """The components."""

    group: gr.Accordion
    picture: gr.Plot
    read: gr.HTML


def build_heard(studio: Studio, recording: gr.Audio, settings: SettingsPanel) -> HeardPanel:
    """Lay the panel out inside the current column and wire it."""
    with gr.Accordion("What the encoder heard", open=False, elem_id="heard") as group:
        gr.HTML(wording.aside_html(wording.HEARD_NOTE))
        again = gr.Button("Draw", size="sm", elem_id="draw-heard")
        picture = gr.Plot(label="Sound and letters", show_label=False, elem_id="heard-picture")
        read = gr.HTML(elem_id="heard-text")

    def draw(path: str | None, *values: Any) -> tuple[Any, str]:
        with plain_errors():
            hearing = listen(studio, path, settings.read(values))
        return heard_figure(hearing), wording.heard_html(hearing)

    again.click(
        draw,
        [recording, *settings.inputs],
        [picture, read],
        api_visibility="private",
        **MODEL_EVENT,
    )
    return HeardPanel(group, picture, read)


def listen(studio: Studio, recording: str | None, settings: Settings) -> Hearing:
    """One pass of the encoder, in its turn on the model's thread.

    Raises:
        ValueError: no readable recording, or no such model.
    """
    path = studio.limits.check_recording(recording)

    def work() -> Iterator[Hearing]:
        yield hear(studio.lab(settings), path, lora=settings.lora)

    (hearing,) = studio.worker.stream(Job(), work)
    return hearing
