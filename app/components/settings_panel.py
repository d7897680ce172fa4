"""The part of the form that says how to transcribe: model, engine, LoRA, task, decoding.

In: the service, for what each model can do. Out: :class:`SettingsPanel`, whose ``inputs``
:meth:`SettingsPanel.read` takes in the same order. Only what the chosen model can do is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from app.components.events import PAGE_EVENT
from app.components.failures import Updates
from app.components.loading_fields import LoadingFields, build_loading_fields
from app.components.lora_fields import OWN, LoraFields, chosen_adapter
from app.components.switches import Switches
from app.components.task_fields import build_task_fields, languages_of, targets_of, tasks_of
from app.service.model_summary import ModelSummary
from app.service.service import TranscriptionService
from app.service.settings import AUTOMATIC, Settings
from app.wording import models, phrases

MAX_BEAMS, MAX_NEW_TOKENS = 8, 1000
# Names of the inputs, in the order of :attr:`SettingsPanel.inputs`.
FIELDS = (
    *("model", "engine", "lora", "adapter", "task", "language", "target", "keywords"),
    *(
        "instruction",
        "decoding",
        "beams",
        "temperature",
        "max_tokens",
        "device",
        "dtype",
        "quantize",
    ),
)


@dataclass(frozen=True)
class SettingsPanel:
    """The components, in the order that :meth:`read` takes their values."""

    model: gr.Dropdown
    engine: gr.Radio
    adapters: LoraFields
    task: gr.Radio
    language: gr.Dropdown
    target: gr.Dropdown
    keywords: gr.Textbox
    instruction: gr.Textbox
    decoding: gr.Dropdown
    beams: gr.Slider
    temperature: gr.Slider
    max_tokens: gr.Slider
    loading: LoadingFields
    summary: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        """List what a handler passes on to :meth:`read`."""
        return [self.field(name) for name in FIELDS]

    def field(self, name: str) -> Any:
        """Return the component of one of :data:`FIELDS`."""
        parts = (self.loading, self.adapters, self)
        return next(getattr(part, name) for part in parts if hasattr(part, name))

    @property
    def outputs(self) -> list[Any]:
        """List everything :meth:`fit` may change."""
        return [*self.inputs, self.summary, self.adapters.note]

    @staticmethod
    def read(values: tuple[Any, ...]) -> Settings:
        """Read the values of ``inputs`` by name. LoRA on means: where there is an adapter."""
        model, engine, lora, adapter, task, language, target, words, instruction, *rest = values
        decoding, beams, temperature, max_tokens, device, dtype, quantize = rest
        lora, adapter = chosen_adapter(lora, adapter)
        return Settings(
            model=model or "",
            engine=engine,
            lora=lora,
            adapter=adapter,
            task=task,
            language=language,
            target_language=target,
            keywords=words or "",
            instruction=instruction or "",
            decoding=decoding,
            num_beams=beams,
            temperature=temperature,
            max_new_tokens=max_tokens,
            device=device or "",
            dtype=dtype or "",
            quantize=quantize or "",
        )

    def fit(self, summary: ModelSummary, task: str) -> Updates:
        """Show what another model can do; a task it lacks becomes its first one."""
        task = task if task in summary.tasks else summary.tasks[0]
        target = summary.target_languages[0] if summary.target_languages else None
        values = {self.task: task, self.language: AUTOMATIC, self.target: target}
        changes = self.refresh(summary, task)
        for field, value in values.items():
            changes[field] = changes[field] | {"value": value}
        return changes

    def refresh(self, summary: ModelSummary, task: str, adapter: str | None = OWN) -> Updates:
        """Show what the same model turned out to be able to do, once loaded; choices stay."""
        shown = self.fields_of(summary, task)
        return {
            self.summary: models.model_html(summary),
            **self.adapters.fit(summary, adapter),
            self.task: gr.update(choices=tasks_of(summary), visible=len(summary.tasks) > 1),
            self.language: gr.update(choices=languages_of(summary), visible=shown[self.language]),
            self.target: gr.update(choices=targets_of(summary), visible=shown[self.target]),
            self.keywords: gr.update(visible=shown[self.keywords]),
            self.instruction: gr.update(visible=shown[self.instruction]),
        }

    def fit_task(self, summary: ModelSummary, task: str) -> Updates:
        """Show the fields of a task."""
        shown = self.fields_of(summary, task)
        return {field: gr.update(visible=visible) for field, visible in shown.items()}

    def fit_decoding(self, decoding: str) -> Updates:
        """Show the fields of a way of decoding."""
        return {
            self.beams: gr.update(visible=decoding == "beam"),
            self.temperature: gr.update(visible=decoding == "sample"),
        }

    def fields_of(self, summary: ModelSummary, task: str) -> dict[Any, bool]:
        """Return which fields a task of this model has."""
        spoken = task in ("transcribe", "translate")
        return {
            self.language: spoken and len(summary.languages) > 1,
            self.target: task == "translate",
            self.keywords: spoken and summary.keywords,
            self.instruction: task == "instruct",
        }


def build_settings(service: TranscriptionService, switches: Switches) -> SettingsPanel:
    """Lay out what ``switches`` leave open, in the current drawer; wire what depends on them."""
    summary = service.summary(service.model)
    about = gr.HTML(models.model_html(summary), elem_id="model-summary")
    note = gr.HTML(phrases.aside_html(models.lora_note(summary)), elem_id="lora-note")
    task = gr.Radio(tasks_of(summary), value="transcribe", label="Task", elem_id="task")
    language, target, keywords, instruction = build_task_fields(summary)
    beams, temperature, max_tokens = _decoding_fields()
    loading = build_loading_fields()
    gr.HTML(phrases.switches_html(any_model=service.limits.only is None))
    panel = SettingsPanel(
        model=switches.model,
        engine=switches.engine,
        adapters=replace(switches.adapters, note=note),
        task=task,
        language=language,
        target=target,
        keywords=keywords,
        instruction=instruction,
        decoding=switches.decoding,
        beams=beams,
        temperature=temperature,
        max_tokens=max_tokens,
        loading=loading,
        summary=about,
    )
    _wire(service, panel)
    return panel


def _decoding_fields() -> tuple[gr.Slider, gr.Slider, gr.Slider]:
    beams = gr.Slider(2, MAX_BEAMS, 4, step=1, label="Beams", visible=False, elem_id="beams")
    heat = gr.Slider(
        0.1, 2.0, 0.7, step=0.1, label="Temperature", visible=False, elem_id="temperature"
    )
    longest = gr.Slider(
        10, MAX_NEW_TOKENS, 200, step=10, label="Maximum new tokens", elem_id="max-tokens"
    )
    return beams, heat, longest


def _wire(service: TranscriptionService, panel: SettingsPanel) -> None:
    def fit_model(name: str | None, task: str) -> Updates:
        return panel.fit(service.summary(name or service.model), task)

    def fit_task(name: str | None, task: str) -> Updates:
        return panel.fit_task(service.summary(name or service.model), task)

    chosen = [panel.model, panel.task]
    # Not `change`: values put back when the page is loaded are fitted already.
    panel.model.input(fit_model, chosen, panel.outputs, **PAGE_EVENT)
    panel.task.input(fit_task, chosen, panel.outputs, **PAGE_EVENT)
    panel.decoding.input(panel.fit_decoding, [panel.decoding], panel.outputs, **PAGE_EVENT)
