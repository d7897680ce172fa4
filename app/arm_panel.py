"""How one arm of a measurement runs: model, engine, LoRA, decoding, number format, weights.

In: a studio and what this deployment allows. Out: :class:`ArmPanel`, whose ``inputs`` are read by
:meth:`ArmPanel.read` in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import wording
from app.deployment import Deployment
from app.events import PAGE_EVENT, Updates
from app.settings import Settings
from app.studio import Studio
from core.choices import dtypes, quantisers

AS_STARTED = "as the app started"
WEIGHTS = {
    "": "as they are",
    "int8": "int8, products in integers",
    "int8-weight-only": "int8, products in floating point",
}


@dataclass(frozen=True)
class ArmPanel:
    """The components, in the order that :meth:`read` takes their values."""

    model: gr.Dropdown
    engine: gr.Radio
    lora: gr.Checkbox
    decoding: gr.Dropdown
    dtype: gr.Dropdown
    quantize: gr.Dropdown

    @property
    def inputs(self) -> list[Any]:
        """What a handler passes on to :meth:`read`."""
        return [self.model, self.engine, self.lora, self.decoding, self.dtype, self.quantize]

    @staticmethod
    def read(values: tuple[Any, ...], max_new_tokens: int) -> Settings:
        """The values of ``inputs``, by name. LoRA on means: where there is an adapter."""
        model, engine, lora, decoding, dtype, quantize = values
        return Settings(
            model=model or "",
            engine=engine,
            lora=None if lora else False,
            decoding=decoding,
            dtype=dtype or "",
            quantize=quantize or "",
            max_new_tokens=int(max_new_tokens),
        )

    def set(self, **values: Any) -> Updates:
        """The panel with these values, and the usual ones where none is given."""
        usual = {"engine": "eager", "lora": True, "decoding": "greedy", "dtype": "", "quantize": ""}
        return {getattr(self, name): value for name, value in {**usual, **values}.items()}


def build_arm(studio: Studio, deployment: Deployment, name: str, **chosen: Any) -> ArmPanel:
    """Lay the panel out inside the current column; ``name`` begins the ids of its parts."""
    card = studio.card(studio.model)
    model = gr.Dropdown(
        [(c.title, c.name) for c in studio.cards()],
        value=card.name,
        label="Model",
        allow_custom_value=studio.limits.only is None,
        elem_id=f"{name}-model",
    )
    engine = gr.Radio(
        [(wording.ENGINES[key], key) for key in studio.limits.engines],
        value=chosen.get("engine", "eager"),
        label="Engine",
        info=deployment.no_compile,
        elem_id=f"{name}-engine",
    )
    lora = gr.Checkbox(
        chosen.get("lora", True),
        label="LoRA adapter",
        visible=card.has_adapter is not False,
        elem_id=f"{name}-lora",
    )
    decoding = gr.Dropdown(
        [(title, key) for key, title in wording.DECODINGS.items()],
        value=chosen.get("decoding", "greedy"),
        label="Decoding",
        elem_id=f"{name}-decoding",
    )
    dtype = gr.Dropdown(
        [(AS_STARTED, ""), *((kind, kind) for kind in dtypes(deployment.device))],
        value="",
        label="Number format",
        elem_id=f"{name}-dtype",
    )
    modes = ("", *quantisers(deployment.device))
    quantize = gr.Dropdown(
        [(WEIGHTS.get(mode, mode), mode) for mode in modes],
        value="",
        label="Decoder's weights",
        elem_id=f"{name}-quantize",
    )

    def fit(name: str | None) -> Updates:
        known = studio.card(name or studio.model)
        return {lora: gr.update(visible=known.has_adapter is not False)}

    model.change(fit, [model], [lora], **PAGE_EVENT)
    return ArmPanel(model, engine, lora, decoding, dtype, quantize)
