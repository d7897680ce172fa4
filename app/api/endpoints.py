"""Endpoints for programs: ``/transcribe`` and ``/models``.

In: a recording and options by name, all but the recording with defaults. Out: the JSON object of
``python -m core transcribe``, or a list of models. The components below are never on the page; they
give the API its types, its documentation, and Gradio's checks of uploaded files.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import api

from app.components.events import MODEL_EVENT, callers_token
from app.components.failures import plain_errors
from app.components.settings_panel import MAX_BEAMS, MAX_NEW_TOKENS
from app.service.service import TranscriptionService
from app.service.settings import LORA_CHOICES, Settings, lora_choice
from app.wording import phrases
from core.text.prompts import TASKS
from core.transcription.options import CHANNELS, MOST_EDIT_ROUNDS


def build_endpoints(service: TranscriptionService) -> None:
    """Add the API names to the current Blocks."""

    def transcribe(
        audio: str | None,
        model: str,
        engine: str,
        lora: str,
        decoding: str,
        task: str,
        language: str,
        target_language: str,
        keywords: str,
        instruction: str,
        num_beams: int,
        temperature: float,
        max_new_tokens: int,
        adapter: str,
        prefix_text: str,
        edit_rounds: int,
        channels: str,
    ) -> dict[str, Any]:
        """Transcribe or translate one recording; returns text, words, phases, times and memory."""
        with plain_errors(on_page=False):
            settings = Settings(
                model=model,
                engine=engine,
                lora=lora_choice(lora),
                task=task,
                language=language,
                target_language=target_language,
                keywords=keywords,
                instruction=instruction,
                decoding=decoding,
                num_beams=num_beams,
                temperature=temperature,
                max_new_tokens=max_new_tokens,
                adapter=(adapter or "").strip(),
                prefix_text=prefix_text or "",
                edit_rounds=int(edit_rounds),
                channels=channels,
            )
            return service.transcribe(audio, settings, callers_token()).to_dict()

    def models() -> list[dict[str, Any]]:
        """List the models this app knows: abilities, licence, size, and which are loaded."""
        return [summary.to_dict() for summary in service.summaries()]

    with gr.Column(visible=False):
        out = gr.JSON(label="Transcript")
        gr.Button().click(transcribe, _inputs(service), [out], api_name="transcribe", **MODEL_EVENT)
    api(models, api_name="models", queue=False)


def _inputs(service: TranscriptionService) -> list[Any]:
    """Return the parameters of ``/transcribe`` in order; labels and infos are its documentation."""
    return [
        gr.Audio(type="filepath", label="audio: the recording, any common format"),
        gr.Textbox(service.model, label="model: a catalog name, repository id or folder"),
        gr.Radio(list(phrases.ENGINES), value="eager", label="engine"),
        gr.Radio(list(LORA_CHOICES), value="auto", label="lora"),
        gr.Radio(list(phrases.DECODINGS), value="greedy", label="decoding"),
        gr.Radio(list(TASKS), value="transcribe", label="task"),
        gr.Textbox("", label="language: a code such as en, or empty"),
        gr.Textbox("", label="target_language: a code, for task translate"),
        gr.Textbox("", label="keywords, parted by commas"),
        gr.Textbox("", label="instruction, for task instruct"),
        gr.Slider(2, MAX_BEAMS, 4, step=1, label="num_beams, for decoding beam"),
        gr.Slider(0.1, 2.0, 0.7, step=0.1, label="temperature, for decoding sample"),
        gr.Slider(1, MAX_NEW_TOKENS, 200, step=1, label="max_new_tokens"),
        gr.Textbox("", label="adapter: one that was added on the Models page, or empty"),
        gr.Textbox("", label="prefix_text: how it begins, for models that continue a text"),
        gr.Slider(
            0, MOST_EDIT_ROUNDS, 1, step=1, label="edit_rounds, for models that edit a draft"
        ),
        gr.Radio(list(CHANNELS), value="mixed", label="channels: speakers for a speaker on each"),
    ]
