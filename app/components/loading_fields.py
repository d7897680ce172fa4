"""The fields of loading: device, precision, int8. Only what this machine can do is offered.

In: what :mod:`core.devices` found. Out: three components, wired to each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from app.components.events import PAGE_EVENT
from app.components.failures import Updates
from core.devices import devices, dtypes, quantise_note, quantisers

AS_STARTED = ""
NOTE = (
    "Another choice loads the model again. int8 holds the language model's weights in a quarter of "
    "the memory and may change a word."
)
INT8 = {"int8": "int8 weights and products", "int8-weight-only": "int8 weights only"}


@dataclass(frozen=True)
class LoadingFields:
    """The components."""

    device: gr.Dropdown
    dtype: gr.Dropdown
    quantize: gr.Dropdown

    def fit(self, device: str) -> Updates:
        """Offer what another device can do."""
        return {
            self.dtype: gr.update(choices=dtype_choices(device), value=AS_STARTED),
            self.quantize: gr.update(choices=int8_choices(device), value=AS_STARTED),
        }

    def say_if_slower(self, quantize: str, device: str) -> Updates:
        """Say under the choice that it is slower on this processor, where it is."""
        return {self.quantize: gr.update(info=quantise_note(quantize, device) or "")}


def build_loading_fields() -> LoadingFields:
    """Lay the fields out inside the current column; one device is no choice."""
    device = gr.Dropdown(
        device_choices(),
        value=AS_STARTED,
        label="Device",
        visible=len(devices()) > 1,
        elem_id="device",
    )
    dtype = gr.Dropdown(
        dtype_choices(AS_STARTED),
        value=AS_STARTED,
        label="Precision",
        info=NOTE,
        elem_id="dtype",
    )
    quantize = gr.Dropdown(
        int8_choices(AS_STARTED), value=AS_STARTED, label="Smaller weights", elem_id="quantize"
    )
    fields = LoadingFields(device, dtype, quantize)
    device.input(fields.fit, [device], [dtype, quantize], **PAGE_EVENT)
    quantize.change(fields.say_if_slower, [quantize, device], [quantize], **PAGE_EVENT)
    return fields


def device_choices() -> list[tuple[str, str]]:
    """List (title, value) of the devices here."""
    return [("As the app started", AS_STARTED), *((name, name) for name in devices())]


def dtype_choices(device: str) -> list[tuple[str, str]]:
    """List (title, value) of the dtypes of a device."""
    return [("As the app started", AS_STARTED), *((name, name) for name in dtypes(device))]


def int8_choices(device: str) -> list[tuple[str, str]]:
    """List (title, value) of the int8 modes of a device."""
    return [("Off", AS_STARTED), *((INT8[name], name) for name in quantisers(device))]
