"""One arm of a measurement: model, engine, LoRA, decoding, precision, weights.

In: the service and the deployment. Out: :class:`ArmPanel`, whose ``inputs`` :meth:`ArmPanel.read`
takes in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.events import PAGE_EVENT
from app.components.failures import Updates
from app.components.lora_fields import OWN, LoraFields, chosen_adapter
from app.components.switches import Switches, build_switches
from app.service.deployment import Deployment
from app.service.service import TranscriptionService
from app.service.settings import Settings
from core.devices import dtypes, quantise_note, quantisers

AS_STARTED = "as the app started"
WEIGHTS = {
    "": "as they are",
    "int8": "int8, integer matmuls",
    "int8-weight-only": "int8, floating-point matmuls",
}


@dataclass(frozen=True)
class ArmPanel:
    """The components, in the order that :meth:`read` takes their values."""

    service: TranscriptionService
    switches: Switches
    dtype: gr.Dropdown
    quantize: gr.Dropdown
    device: str | None  # of the app

    @property
    def model(self) -> gr.Dropdown:
        """Return the choice of the model."""
        return self.switches.model

    @property
    def adapters(self) -> LoraFields:
        """Return the LoRA switch and the choice of the adapter."""
        return self.switches.adapters

    @property
    def inputs(self) -> list[Any]:
        """List what a handler passes on to :meth:`read`."""
        switches, adapters = self.switches, self.adapters
        which = [switches.model, switches.engine, adapters.lora, adapters.adapter]
        return [*which, switches.decoding, self.dtype, self.quantize]

    @property
    def outputs(self) -> list[Any]:
        """List everything :meth:`fit` changes."""
        return [
            *self.adapters.outputs,
            self.switches.decoding,
            self.switches.licence,
            self.quantize,
        ]

    def fit(self, name: str | None, adapter: str | None, decoding: str) -> Updates:
        """Offer what another model can do."""
        summary = self.service.summary(name or self.service.model)
        return {
            **self.adapters.fit(summary, adapter),
            **self.switches.fit(summary, "transcribe", decoding),
            self.quantize: gr.update(visible=summary.quantises),
        }

    def say_if_slower(self, quantize: str) -> Updates:
        """Say under the weights that they are slower on this processor, where they are."""
        return {self.quantize: gr.update(info=quantise_note(quantize, self.device) or "")}

    def read(self, values: tuple[Any, ...], max_new_tokens: int) -> Settings:
        """Read ``inputs`` without what is hidden; LoRA on means: where there is an adapter."""
        model, engine, lora, adapter, decoding, dtype, quantize = values
        lora, adapter = chosen_adapter(lora, adapter)
        chosen = Settings(
            model=model or "",
            engine=engine,
            lora=lora,
            adapter=adapter,
            decoding=decoding,
            dtype=dtype or "",
            quantize=quantize or "",
            max_new_tokens=int(max_new_tokens),
        )
        return self.service.summary(chosen.model or self.service.model).fit(chosen)

    def filled(self, settings: Settings) -> Updates:
        """Show these settings, those of another tab for example."""
        summary = self.service.summary(settings.model or self.service.model)
        fitted = self.switches.fit(summary, "transcribe", settings.decoding)
        return {
            self.model: settings.model,
            self.switches.engine: settings.engine,
            self.adapters.lora: settings.lora is not False,
            self.adapters.adapter: settings.adapter or OWN,
            self.switches.decoding: fitted[self.switches.decoding],
            self.dtype: settings.dtype,
            self.quantize: settings.quantize,
        }

    @staticmethod
    def usual(**values: Any) -> list[Any]:
        """Return ``inputs`` without the model: ``values``, and defaults for the rest."""
        wanted = {
            "engine": "eager",
            "lora": True,
            "adapter": OWN,
            "decoding": "greedy",
            "dtype": "",
            "quantize": "",
        }
        return list((wanted | values).values())


def build_arm(
    service: TranscriptionService, deployment: Deployment, name: str, **chosen: Any
) -> ArmPanel:
    """Lay the panel out inside the current column; ``name`` begins the ids of its parts."""
    switches = build_switches(service, f"{name}-", **chosen)
    with gr.Row(elem_classes="switches"):
        dtype = gr.Dropdown(
            [(AS_STARTED, ""), *((kind, kind) for kind in dtypes(deployment.device))],
            value="",
            label="Precision",
            filterable=False,
            min_width=0,
            elem_id=f"{name}-dtype",
        )
        modes = ("", *quantisers(deployment.device))
        quantize = gr.Dropdown(
            [(WEIGHTS.get(mode, mode), mode) for mode in modes],
            value="",
            label="Decoder weights",
            filterable=False,
            min_width=0,
            visible=service.summary(service.model).quantises,
            elem_id=f"{name}-quantize",
        )
    arm = ArmPanel(service, switches, dtype, quantize, deployment.device)
    now = [arm.model, arm.adapters.adapter, switches.decoding]
    arm.model.change(arm.fit, now, arm.outputs, **PAGE_EVENT)
    quantize.change(arm.say_if_slower, [quantize], [quantize], **PAGE_EVENT)
    return arm
