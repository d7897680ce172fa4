"""The fields of a task, and the choices a model offers for each.

In: a model's summary. Out: components, and (title, value) of every choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from app.components.failures import Updates
from app.service.model_summary import ModelSummary
from app.service.seekable_audio import is_stereo
from app.service.settings import AUTOMATIC
from app.wording import models, phrases
from core.transcription.options import MOST_EDIT_ROUNDS


@dataclass(frozen=True)
class TaskFields:
    """The components; each is shown where the model and the task have it."""

    language: gr.Dropdown
    target: gr.Dropdown
    keywords: gr.Textbox
    instruction: gr.Textbox
    prefix: gr.Textbox
    rounds: gr.Slider
    split: gr.Checkbox

    def fit_recording(self, path: str | None) -> Updates:
        """Offer to split a stereo recording; of any other nothing is split."""
        stereo = bool(path) and is_stereo(str(path))
        change = gr.update(visible=True) if stereo else gr.update(visible=False, value=False)
        return {self.split: change}


def build_task_fields(summary: ModelSummary) -> TaskFields:
    """Build the fields inside the current column."""
    language = gr.Dropdown(
        languages_of(summary),
        value=AUTOMATIC,
        label="Language spoken",
        visible=len(summary.languages) > 1,
        elem_id="language",
    )
    targets = targets_of(summary)
    target = gr.Dropdown(
        targets,
        value=targets[0][1] if targets else None,
        label="Translate into",
        visible=False,
        elem_id="target",
    )
    keywords = gr.Textbox(
        label="Keywords",
        info="Names and terms to expect, parted by commas.",
        visible=summary.keywords,
        elem_id="keywords",
    )
    instruction = gr.Textbox(
        label="Instruction",
        info="What the model should do with the recording.",
        lines=2,
        visible=False,
        elem_id="instruction",
    )
    prefix = gr.Textbox(
        label="How it begins",
        info="The words it begins with, where you know them; the result is what follows.",
        visible=summary.prefix_text,
        elem_id="prefix-text",
    )
    rounds = gr.Slider(
        0,
        MOST_EDIT_ROUNDS,
        1,
        step=1,
        label="Edit rounds",
        info="How often the draft is edited; 0 keeps it as it is.",
        visible=summary.edits,
        elem_id="edit-rounds",
    )
    split = gr.Checkbox(
        False,
        label="A speaker on each channel",
        info="Transcribes the channels of a stereo recording apart.",
        visible=False,
        elem_id="split",
    )
    return TaskFields(language, target, keywords, instruction, prefix, rounds, split)


def tasks_of(summary: ModelSummary) -> list[tuple[str, str]]:
    """List (title, task) of what the model can do."""
    return [(phrases.TASKS[task], task) for task in summary.tasks]


def targets_of(summary: ModelSummary) -> list[tuple[str, str]]:
    """List (title, code) of what the model translates into."""
    return [(models.language(code), code) for code in summary.target_languages]


def languages_of(summary: ModelSummary) -> list[tuple[str, str]]:
    """List (title, code) of the spoken languages, after the choice to detect it."""
    return [("Any", AUTOMATIC), *((models.language(code), code) for code in summary.languages)]
