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
from app.components.task_fields import (
    TaskFields,
    build_task_fields,
    languages_of,
    targets_of,
    tasks_of,
)
from app.service.model_summary import ModelSummary
from app.service.service import TranscriptionService
from app.service.settings import AUTOMATIC, Settings
from app.wording import models, phrases

MAX_BEAMS, MAX_NEW_TOKENS = 8, 1000
# Names of the inputs, in the order of :attr:`SettingsPanel.inputs`.
FIELDS = (
    *("model", "engine", "lora", "adapter", "task", "language", "target", "keywords"),
    *("instruction", "prefix", "rounds", "split", "decoding", "beams", "temperature", "max_tokens"),
    *("device", "dtype", "quantize"),
)


@dataclass(frozen=True)
class SettingsPanel:
    """The components, in the order that :meth:`read` takes their values."""

    service: TranscriptionService
    switches: Switches
    note: gr.HTML
    task: gr.Radio
    fields: TaskFields
    beams: gr.Slider
    temperature: gr.Slider
    max_tokens: gr.Slider
    loading: LoadingFields
    summary: gr.HTML

    @property
    def model(self) -> gr.Dropdown:
        """Return the choice of the model."""
        return self.switches.model

    @property
    def adapters(self) -> LoraFields:
        """Return the LoRA switch and the choice of the adapter, with their note."""
        return replace(self.switches.adapters, note=self.note)

    @property
    def inputs(self) -> list[Any]:
        """List what a handler passes on to :meth:`read`."""
        return [self.field(name) for name in FIELDS]

    def field(self, name: str) -> Any:
        """Return the component of one of :data:`FIELDS`."""
        parts = (self.loading, self.switches.adapters, self.switches, self.fields, self)
        return next(getattr(part, name) for part in parts if hasattr(part, name))

    @property
    def outputs(self) -> list[Any]:
        """List everything :meth:`fit` may change."""
        return [*self.inputs, self.summary, self.note, self.switches.licence]

    @property
    def chosen(self) -> list[Any]:
        """List what the other fields depend on: model, task and decoding."""
        return [self.model, self.task, self.switches.decoding]

    def summary_of(self, name: str | None) -> ModelSummary:
        """Describe the chosen model, or the start model where none is."""
        return self.service.summary(name or self.service.model)

    def read(self, values: tuple[Any, ...]) -> Settings:
        """Read ``inputs`` without what is hidden; LoRA on means: where there is an adapter."""
        model, engine, lora, adapter, task, language, target, words, instruction, *rest = values
        prefix, rounds, split, decoding, beams, temperature, max_tokens, device, dtype, quantize = (
            rest
        )
        lora, adapter = chosen_adapter(lora, adapter)
        chosen = Settings(
            model=model or "",
            engine=engine,
            lora=lora,
            adapter=adapter,
            task=task,
            language=language,
            target_language=target,
            keywords=words or "",
            instruction=instruction or "",
            prefix_text=prefix or "",
            edit_rounds=int(rounds),
            channels="speakers" if split else "mixed",
            decoding=decoding,
            num_beams=beams,
            temperature=temperature,
            max_new_tokens=max_tokens,
            device=device or "",
            dtype=dtype or "",
            quantize=quantize or "",
        )
        return self.summary_of(model).fit(chosen)

    def fit(self, summary: ModelSummary, task: str, decoding: str) -> Updates:
        """Show what another model can do; a task it lacks becomes its first one."""
        task = task if task in summary.tasks else summary.tasks[0]
        target = summary.target_languages[0] if summary.target_languages else None
        fields = self.fields
        values = {self.task: task, fields.language: AUTOMATIC, fields.target: target}
        changes = self.refresh(summary, task, decoding)
        for field, value in values.items():
            changes[field] = changes[field] | {"value": value}
        return changes

    def refresh(
        self, summary: ModelSummary, task: str, decoding: str, adapter: str | None = OWN
    ) -> Updates:
        """Show what the same model turned out to be able to do, once loaded; choices stay.

        Args:
            summary: of the model.
            task: what is chosen.
            decoding: the same.
            adapter: the same.

        Returns:
            The changes.
        """
        fields = self.fields
        changes = self.fit_choice(summary, task, decoding) | self.adapters.fit(summary, adapter)
        changes[fields.language] |= {"choices": languages_of(summary)}
        changes[fields.target] |= {"choices": targets_of(summary)}
        return changes | {
            self.summary: models.model_html(summary),
            self.task: gr.update(choices=tasks_of(summary), visible=len(summary.tasks) > 1),
            self.max_tokens: gr.update(visible=summary.autoregressive),
        }

    def fit_choice(self, summary: ModelSummary, task: str, decoding: str) -> Updates:
        """Show the fields of a task and a way of decoding."""
        changes = self.switches.fit(summary, task, decoding)
        shown = summary.shown(task, changes[self.switches.decoding]["value"])
        fields = {
            "language": self.fields.language,
            "target_language": self.fields.target,
            "keywords": self.fields.keywords,
            "instruction": self.fields.instruction,
            "prefix_text": self.fields.prefix,
            "edit_rounds": self.fields.rounds,
            "num_beams": self.beams,
            "temperature": self.temperature,
            "quantize": self.loading.quantize,
        }
        return changes | {field: gr.update(visible=name in shown) for name, field in fields.items()}


def build_settings(service: TranscriptionService, switches: Switches) -> SettingsPanel:
    """Lay out what ``switches`` leave open, in the current drawer; wire what depends on them."""
    summary = service.summary(service.model)
    about = gr.HTML(models.model_html(summary), elem_id="model-summary")
    note = gr.HTML(phrases.aside_html(models.lora_note(summary)), elem_id="lora-note")
    task = gr.Radio(tasks_of(summary), value="transcribe", label="Task", elem_id="task")
    fields = build_task_fields(summary)
    beams, temperature, max_tokens = _decoding_fields()
    loading = build_loading_fields()
    gr.HTML(phrases.switches_html(any_model=service.limits.only is None))
    panel = SettingsPanel(
        service, switches, note, task, fields, beams, temperature, max_tokens, loading, about
    )
    _wire(panel)
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


def _wire(panel: SettingsPanel) -> None:
    def fit_model(name: str | None, task: str, decoding: str) -> Updates:
        return panel.fit(panel.summary_of(name), task, decoding)

    def fit_choice(name: str | None, task: str, decoding: str) -> Updates:
        return panel.fit_choice(panel.summary_of(name), task, decoding)

    # Not `change`: values put back when the page is loaded are fitted already.
    panel.model.input(fit_model, panel.chosen, panel.outputs, **PAGE_EVENT)
    for field in (panel.task, panel.switches.decoding):
        field.input(fit_choice, panel.chosen, panel.outputs, **PAGE_EVENT)
