"""int8 matrix products on a CPU: rows and weights in integers, by one of several kernels.

In: rows in floating point, int8 weights with a scale per output feature. Out: their product. Rows
are rounded each by its own largest value, so a row's result depends on no other row.

- "fbgemm": weights laid out anew for the processor. It has vector code for AVX2 and for VNNI.
- "int_mm": ``torch._int_mm`` on the weights as they are. Without VNNI or AMX many rows go through
  it without vector code, which takes 50 times as long.

``core.engine.products`` measures which is faster here. Compilers and packages get "fbgemm" as one
operator of our own, because its weights are no tensor: a number in a tensor stands for them.

Shapes: M rows, I in features, O out features.
"""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor

FBGEMM, INT_MM = "fbgemm", "int_mm"
LEVELS = 127.0
# Without VNNI, pairs of products are added in 16 bits, where two of 255 * 127 overflow. Weights
# give way, not rows: a row's largest value lies farther from the others.
SAFE_LEVELS = 63.0
TINY = 1e-10
# torch moves these operators' Python face elsewhere. Once for the process: a filter in a block is
# lost when a block of another thread ends.
warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
# Constants of eight numbers or fewer become part of the code that a compiler writes for a package:
# it would then find the weights of the model it was built from.
HANDLE_SIZE = 16


def kernels() -> tuple[str, ...]:
    """Return the int8 kernels that torch has here, the usually faster one first."""
    return tuple(
        name
        for name in (FBGEMM, INT_MM)
        if name == INT_MM or name in torch.backends.quantized.supported_engines
    )


@dataclass
class Int8Choice:
    """The kernel of layers that are quantised from now on."""

    kernel: str


CHOSEN = Int8Choice(kernels()[0])


class PackedWeight:
    """Weights in fbgemm's own layout, which is opaque; ``handle`` int64 stands for them."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        self.weight, self.num_bytes = _pack(weight, scale), weight.numel()
        number = next(_NUMBERS)
        self.handle = torch.full((HANDLE_SIZE,), number)
        _PACKED[number] = self.weight
        weakref.finalize(self, _PACKED.pop, number, None)


_NUMBERS = count(1)
_PACKED: dict[int, Any] = {}  # as long as their PackedWeight lives


def _pack(weight: Tensor, scale: Tensor) -> Any:
    """Lay out int8 [O, I] with scales [O] for fbgemm."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = FBGEMM
    try:
        zeros = torch.zeros(weight.shape[0], dtype=torch.int64)
        whole = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(whole, None)
    finally:
        torch.backends.quantized.engine = before


@cache
def levels_of_weights(kernel: str) -> float:
    """Return how many steps a side weights of a kernel may have here without overflowing."""
    if kernel != FBGEMM:
        return LEVELS
    weight = torch.full((16, 64), int(LEVELS), dtype=torch.int8)
    ones = torch.ones(1, 64)
    found = _multiply(ones, _pack(weight, torch.ones(16)))
    return LEVELS if torch.allclose(found, ones.sum() * LEVELS, rtol=0.01) else SAFE_LEVELS


def _multiply(rows: Tensor, packed: Any) -> Tensor:
    """Multiply rows within -1 and 1 [M, I]: [M, O]."""
    found: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
        rows, 1 / LEVELS, int(LEVELS) + 1, packed
    )
    return found


_LIBRARY = torch.library.Library("granite_speech", "FRAGMENT")
_LIBRARY.define("int8_rows(Tensor rows, Tensor handle, int out_features) -> Tensor")


def _int8_rows(rows: Tensor, handle: Tensor, out_features: int) -> Tensor:
    return _multiply(rows, _PACKED[handle.tolist()[0]])


def _int8_rows_fake(rows: Tensor, handle: Tensor, out_features: int) -> Tensor:
    return rows.new_empty(rows.shape[0], out_features)


_LIBRARY.impl("int8_rows", _int8_rows, "CPU")
torch.library.register_fake("granite_speech::int8_rows", _int8_rows_fake, lib=_LIBRARY)


def by_fbgemm(rows: Tensor, packed: PackedWeight, handle: Tensor, out_features: int) -> Tensor:
    """Multiply rows by packed weights.

    Args:
        rows: [M, I] in floating point.
        packed: the weights.
        handle: of the weights; what a compiler takes in their place.
        out_features: O.

    Returns:
        [M, O] float32.
    """
    wide = rows.float()
    largest = wide.abs().amax(dim=-1, keepdim=True).clamp(min=TINY)
    if torch.compiler.is_compiling():
        op = torch.ops.granite_speech.int8_rows
        return op(wide / largest, handle, out_features) * largest
    return _multiply(wide / largest, packed.weight) * largest


def by_int_mm(rows: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Multiply rows [M, I] by int8 weights [O, I] with scales [O]: [M, O] float32."""
    integers, step = quantise_rows(rows)
    total = torch._int_mm(integers, weight.t())  # [M, O] int32
    return total.float() * step * scale


def quantise_rows(values: Tensor, levels: float = LEVELS) -> tuple[Tensor, Tensor]:
    """Round rows [M, I] to int8 [M, I], ``levels`` a side, and each row's float32 step [M, 1]."""
    wide = values.float()
    step = wide.abs().amax(dim=-1, keepdim=True).clamp(min=TINY) / levels
    return (wide / step).round().to(torch.int8), step
