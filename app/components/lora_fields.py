"""Which adapter a request runs with: LoRA on or off, and which one where several are there.

In: a model's summary. Out: a switch and a choice, the same wherever a request is set up. The choice
is only there once an adapter was added to the model (:mod:`app.components.adapters_panel`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.failures import Updates
from app.service.model_summary import ModelSummary
from app.wording import models, phrases

OWN = ""  # the adapter a checkpoint comes with, or none where it has none
NOTE = "Used only when LoRA is on."


@dataclass(frozen=True)
class LoraFields:
    """The components. note: what the switch does, where there is room for it."""

    lora: gr.Checkbox
    adapter: gr.Dropdown
    note: gr.HTML | None = None

    @property
    def outputs(self) -> list[Any]:
        """List everything :meth:`fit` changes."""
        return [self.lora, self.adapter, *([self.note] if self.note else [])]

    def fit(self, summary: ModelSummary, chosen: str | None = OWN) -> Updates:
        """Offer what this model has; an adapter it lacks becomes its own."""
        value = chosen if chosen in summary.adapters else OWN
        choices = adapter_choices(summary)
        changes: Updates = {
            self.lora: gr.update(visible=summary.has_switch),
            self.adapter: gr.update(choices=choices, value=value, visible=bool(summary.adapters)),
        }
        if self.note is not None:
            changes[self.note] = phrases.aside_html(models.lora_note(summary))
        return changes


def build_lora(summary: ModelSummary, prefix: str = "", *, on: bool = True) -> LoraFields:
    """Lay the fields out in the current row; ``prefix`` begins their ids, such as "a-"."""
    lora = gr.Checkbox(
        on, label="LoRA", visible=summary.has_switch, min_width=0, elem_id=f"{prefix}lora"
    )
    adapter = gr.Dropdown(
        adapter_choices(summary),
        value=OWN,
        label="Which adapter",
        info=NOTE,
        filterable=False,
        visible=bool(summary.adapters),
        min_width=0,
        elem_id=f"{prefix}adapter",
    )
    return LoraFields(lora, adapter)


def adapter_choices(summary: ModelSummary) -> list[tuple[str, str]]:
    """List (title, name) of the adapters of a model, its own first."""
    own = "None: the model as it is" if summary.has_adapter is False else "The model's own"
    return [(own, OWN), *((name, name) for name in summary.adapters)]


def chosen_adapter(lora: bool, adapter: str | None) -> tuple[bool | None, str]:
    """Return LoRA on (None: where there is an adapter) or off, and the adapter's name."""
    return (None, adapter or OWN) if lora else (False, OWN)
