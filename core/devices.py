"""The choices this machine can run: devices, precisions and quantisers.

In: nothing, or a device's name. Out: names that :func:`core.load` takes here. Nothing is allocated.
"""

from __future__ import annotations

import torch

from core.engine.products import slower_note, use_products
from core.loading import DTYPES, pick_device
from core.model.quantize import MODES


def devices() -> tuple[str, ...]:
    """Return the names of the devices here, the default one first."""
    found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def dtypes(device: str | None = None) -> tuple[str, ...]:
    """List the number formats a device computes in.

    float16 has no range to spare and no speed to win on a CPU, and only newer GPUs have bfloat16.

    Args:
        device: its name; None stands for the default device.

    Returns:
        Names of dtypes.
    """
    kind = pick_device(device or None).type
    if kind == "cpu":
        return ("float32", "bfloat16")
    if kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return ("float32", "float16")
    return tuple(DTYPES)


def quantisers(device: str | None = None) -> tuple[str, ...]:
    """List the int8 formats of decoder weights there; integer products are the CPU's alone."""
    return MODES if pick_device(device or None).type == "cpu" else ("int8-weight-only",)


def quantise_note(quantize: str | None, device: str | None = None) -> str | None:
    """Say that a format would be slower than float32 here; the first time that is measured.

    Args:
        quantize: one of :func:`quantisers`, or None or "" for full weights.
        device: its name; None stands for the default device.

    Returns:
        A sentence with both numbers, or None where there is nothing to say.
    """
    if not quantize or pick_device(device or None).type != "cpu":
        return None
    return slower_note(quantize, use_products())
