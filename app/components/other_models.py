"""Models to try where a recording is outside what the chosen one knows.

In: the service's models. Out: a button for each of the smallest, with the size of its download;
hidden until a transcript says that it cannot be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.events import PAGE_EVENT
from app.components.settings_panel import SettingsPanel
from app.service.service import TranscriptionService
from app.wording import phrases
from app.wording.models import with_size

MOST = 4
NOTE = (
    "The bundled model knows voice menus only. These know ordinary speech; a press chooses one, "
    "and Transcribe then downloads it once:"
)


@dataclass(frozen=True)
class OtherModels:
    """The components. buttons: by the name of their model."""

    group: gr.Column
    buttons: dict[str, gr.Button]

    def wire(self, service: TranscriptionService, settings: SettingsPanel) -> None:
        """Make each button choose its model."""
        for name, button in self.buttons.items():

            def choose(_: str | None, task: str, decoding: str, name: str = name) -> Any:
                changes = settings.fit(service.summary(name), task, decoding)
                return changes | {settings.model: gr.update(value=name)}

            button.click(choose, settings.chosen, settings.outputs, **PAGE_EVENT)


def build_other_models(service: TranscriptionService) -> OtherModels:
    """Lay them out inside the current column."""
    sized = [
        one
        for one in service.summaries()
        if one.size_bytes and not one.loaded and one.commercial_use
    ]
    offered = sorted(sized, key=lambda one: one.size_bytes or 0)
    offered = [one for one in offered if one.source.startswith("ibm-granite/")][:MOST]
    with gr.Column(visible=False, elem_id="other-models") as group:
        gr.HTML(phrases.aside_html(NOTE))
        with gr.Row():
            buttons = {
                one.name: gr.Button(with_size(one), size="sm", min_width=180) for one in offered
            }
    return OtherModels(group, buttons)
