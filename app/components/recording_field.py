"""The field for a recording, and the examples under it: the same on every tab that has one.

In: an upload, the microphone, or a press on an example. Out: components; the value of ``audio`` is
a path that a browser can play, which :meth:`app.service.limits.Limits.check_recording` turns back
into the file that was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from app.components.events import PAGE_EVENT
from app.service.examples import FIRST, Example, read_examples
from app.service.seekable_audio import seekable_copy


@dataclass(frozen=True)
class RecordingField:
    """The components. examples: what the buttons of ``chips`` stand for, in order."""

    audio: gr.Audio
    chips: gr.Dataset
    examples: list[Example]

    def example(self, number: int) -> tuple[str, str]:
        """Return the file of a pressed example, ready to play, and its text."""
        chosen = self.examples[number]
        copied = save_file_to_cache(chosen.path, cache_dir=get_upload_folder())
        return seekable_copy(copied), chosen.text

    def fill_from_examples(self) -> None:
        """Put a pressed example into the field."""
        self.chips.click(lambda i: self.example(i)[0], [self.chips], [self.audio], **PAGE_EVENT)


def build_recording(prefix: str, offer: str) -> RecordingField:
    """Lay the field out inside the current column.

    Args:
        prefix: of the ids, such as "compare-"; may be empty.
        offer: the words over the examples.

    Returns:
        The components.
    """
    audio = gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label="Recording",
        buttons=[],
        elem_id=f"{prefix}recording",
    )
    examples = read_examples()
    with gr.Column(elem_classes="example-field", visible=bool(examples)):
        chips = gr.Dataset(
            components=[gr.Textbox(visible=False)],
            samples=[[example.text] for example in examples],
            type="index",
            label=offer,
            samples_per_page=30,
            elem_id=f"{prefix}examples",
            elem_classes="chips",
        )
        more = gr.Button(
            "More",
            size="sm",
            visible=len(examples) > len(FIRST),
            elem_id=f"{prefix}more-examples",
            elem_classes="more-examples",
        )
    unfold = f"() => {{ document.getElementById('{prefix}examples').classList.add('all-shown'); }}"
    more.click(None, None, None, js=unfold, **PAGE_EVENT)

    def play(path: str | None) -> Any:
        played = seekable_copy(path) if path else path
        return gr.skip() if played == path else played

    audio.upload(play, [audio], [audio], **PAGE_EVENT)
    return RecordingField(audio, chips, examples)
