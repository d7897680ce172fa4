"""What a request asks of a model: the task's own fields, and what a model offers for each.

In: a model's summary. Out: components, and (title, value) of every choice.
"""

from __future__ import annotations

import gradio as gr

from app.service.model_summary import ModelSummary
from app.service.settings import AUTOMATIC
from app.wording import models, phrases


def build_task_fields(
    summary: ModelSummary,
) -> tuple[gr.Dropdown, gr.Dropdown, gr.Textbox, gr.Textbox]:
    """Build language, target language, keywords and instruction inside the current column."""
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
    return language, target, keywords, instruction


def tasks_of(summary: ModelSummary) -> list[tuple[str, str]]:
    """List (title, task) of what the model can do."""
    return [(phrases.TASKS[task], task) for task in summary.tasks]


def targets_of(summary: ModelSummary) -> list[tuple[str, str]]:
    """List (title, code) of what the model translates into."""
    return [(models.language(code), code) for code in summary.target_languages]


def languages_of(summary: ModelSummary) -> list[tuple[str, str]]:
    """List (title, code) of the spoken languages, after the choice to detect it."""
    return [("Any", AUTOMATIC), *((models.language(code), code) for code in summary.languages)]
