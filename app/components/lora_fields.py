"""Which adapter a request runs with: LoRA on or off, and which one where several are there.

In: a model's card. Out: a switch and a choice, the same wherever a request is set up. The choice is
only there once an adapter was added to the model (:mod:`app.components.adapters_panel`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.events import Updates
from app.service.model_card import ModelCard
from app.wording import models, phrases

OWN = ""  # the adapter a checkpoint comes with, or none where it has none
NOTE = "Counts while LoRA is on."


@dataclass(frozen=True)
class LoraFields:
    """The components. note: what the switch does, where there is room for it."""

    lora: gr.Checkbox
    adapter: gr.Dropdown
    note: gr.HTML | None = None

    @property
    def outputs(self) -> list[Any]:
        """Everything :meth:`fit` changes."""
        return [self.lora, self.adapter, *([self.note] if self.note else [])]

    def fit(self, card: ModelCard, chosen: str | None = OWN) -> Updates:
        """Offer what this model has; an adapter it lacks becomes its own."""
        value = chosen if chosen in card.adapters else OWN
        choices = adapter_choices(card)
        changes: Updates = {
            self.lora: gr.update(visible=has_switch(card)),
            self.adapter: gr.update(choices=choices, value=value, visible=bool(card.adapters)),
        }
        if self.note is not None:
            changes[self.note] = phrases.aside_html(models.lora_note(card))
        return changes


def build_lora(card: ModelCard, prefix: str = "", *, on: bool = True, noted: bool) -> LoraFields:
    """Lay the fields out inside the current column.

    Args:
        card: of the model that is chosen at first.
        prefix: of the ids, such as "a-"; may be empty.
        on: the switch at first.
        noted: whether to say under them what the switch does.
    """
    lora = gr.Checkbox(on, label="LoRA adapter", visible=has_switch(card), elem_id=f"{prefix}lora")
    adapter = gr.Dropdown(
        adapter_choices(card),
        value=OWN,
        label="Which adapter",
        info=NOTE,
        filterable=False,
        visible=bool(card.adapters),
        elem_id=f"{prefix}adapter",
    )
    said = phrases.aside_html(models.lora_note(card))
    note = gr.HTML(said, elem_id=f"{prefix}lora-note") if noted else None
    return LoraFields(lora, adapter, note)


def has_switch(card: ModelCard) -> bool:
    """Whether there may be something to switch."""
    return card.has_adapter is not False or bool(card.adapters)


def adapter_choices(card: ModelCard) -> list[tuple[str, str]]:
    """(title, name) of the adapters of a model, its own first."""
    own = "None: the model as it is" if card.has_adapter is False else "The model's own"
    return [(own, OWN), *((name, name) for name in card.adapters)]


def chosen_adapter(lora: bool, adapter: str | None) -> tuple[bool | None, str]:
    """What the fields say of a request: LoRA on (None: where there is one) or off, and which."""
    return (None, adapter or OWN) if lora else (False, OWN)
