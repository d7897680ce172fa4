"""The row of switches of a request: model, engine, LoRA, decoding; the same on every tab.

In: the service, for what is offered here. Out: :class:`Switches`, components in one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.failures import Updates
from app.components.lora_fields import LoraFields, build_lora
from app.service.model_summary import ModelSummary
from app.service.service import TranscriptionService
from app.wording import models, phrases


@dataclass(frozen=True)
class Switches:
    """The components, in the order of the row. licence: shown where it forbids something."""

    model: gr.Dropdown
    engine: gr.Radio
    adapters: LoraFields
    decoding: gr.Dropdown
    licence: gr.HTML

    def fit(self, summary: ModelSummary, task: str, decoding: str) -> Updates:
        """Offer the decodings of a task; one that the model lacks becomes its first."""
        offered = summary.decodings_of(task)
        return {
            self.decoding: gr.update(
                choices=decoding_choices(summary, task),
                value=decoding if decoding in offered else offered[0],
                visible=len(offered) > 1,
            ),
            self.licence: gr.update(
                value=models.licence_html(summary), visible=not summary.commercial_use
            ),
        }


def decoding_choices(summary: ModelSummary, task: str = "transcribe") -> list[tuple[str, str]]:
    """List (title, decoding) of what a task of this model can be decoded with."""
    return [(phrases.DECODINGS[key], key) for key in summary.decodings_of(task)]


def build_switches(service: TranscriptionService, prefix: str = "", **chosen: Any) -> Switches:
    """Lay the row out inside the current column.

    Args:
        service: whose models and engines.
        prefix: of the ids, such as "a-"; may be empty.
        chosen: what is chosen at first: engine, lora or decoding.

    Returns:
        The components.
    """
    summary = service.summary(service.model)
    with gr.Row(elem_classes="switches", elem_id=f"{prefix}switches"):
        model = gr.Dropdown(
            [(c.title, c.name) for c in service.summaries()],
            value=summary.name,
            label="Model",
            allow_custom_value=service.limits.only is None,
            min_width=0,
            elem_id=f"{prefix}model",
        )
        engine = gr.Radio(
            [(phrases.ENGINES[key], key) for key in service.limits.engines],
            value=chosen.get("engine", "eager"),
            label="Engine",
            info=service.limits.no_compile,
            min_width=0,
            elem_id=f"{prefix}engine",
        )
        adapters = build_lora(summary, prefix, on=chosen.get("lora", True))
        decoding = gr.Dropdown(
            decoding_choices(summary),
            value=chosen.get("decoding", "greedy"),
            label="Decoding",
            filterable=False,
            visible=len(summary.decodings) > 1,
            min_width=0,
            elem_id=f"{prefix}decoding",
        )
    licence = gr.HTML(
        models.licence_html(summary),
        visible=not summary.commercial_use,
        elem_id=f"{prefix}licence",
    )
    return Switches(model, engine, adapters, decoding, licence)
