"""int8 weights for the decoder, on CPU and CUDA, eager and compiled.

In: a loaded model. Out: the same model with the decoder's linear layers holding int8 weights, one
scale per output feature. The encoder and the projector stay as they are: they are a small part of
the time, and quantising the encoder is known to hurt.

"int8" also rounds the activations, so that the product itself runs in integers, by the kernel that
is fastest on this processor (``core.model.int8_products``). "int8-weight-only" leaves activations
in floating point (bfloat16 in the products of an eager step on a CPU). LoRA stays in floating point
and can be switched as before.

Shapes: M rows, I in features, O out features.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.model.decoder import GraniteDecoder
from core.model.int8_products import (
    CHOSEN,
    FBGEMM,
    LEVELS,
    PackedWeight,
    by_fbgemm,
    by_int_mm,
    levels_of_weights,
    quantise_rows,
)
from core.model.linear import linear
from core.model.lora import AdaptableLinear

MODES = ("int8", "int8-weight-only")
# Up to how many rows integers are multiplied as they are. Beyond, widening the weights first pays.
FEW_ROWS_EAGER, FEW_ROWS_COMPILED = 64, 4


class HasDecoder(Protocol):
    """A model of any family that writes with a Granite decoder."""

    decoder: GraniteDecoder


class Int8Linear(AdaptableLinear):
    """A linear layer whose weight is int8 [O, I] with a float32 scale [O].

    Packed for fbgemm, the weight is in ``packed`` alone, which no buffer shows; ``handle`` is one.
    """

    weight_int8: Tensor
    scale: Tensor
    handle: Tensor

    def __init__(
        self, layer: AdaptableLinear, *, round_activations: bool, kernel: str | None = None
    ) -> None:
        nn.Module.__init__(self)
        if layer.is_merged:
            raise UserError("LoRA is merged into the weights; unmerge it before quantising")
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.round_activations = round_activations
        self.register_parameter("weight", None)
        self.register_parameter("bias", layer.bias)
        self.register_parameter("lora_a", layer.lora_a)
        self.register_parameter("lora_b", layer.lora_b)
        self.lora_scaling, self._unmerged = layer.lora_scaling, None
        kernel = (kernel or CHOSEN.kernel) if round_activations else None
        levels = LEVELS if kernel is None else levels_of_weights(kernel)
        weight, scale = quantise_rows(layer.weight, levels)
        self.packed: PackedWeight | None = None
        if kernel == FBGEMM:
            self.packed = PackedWeight(weight, scale[:, 0])
            self.register_buffer("handle", self.packed.handle)
        else:
            self.register_buffer("weight_int8", weight)
            self.register_buffer("scale", scale[:, 0])

    def base(self, x: Tensor) -> Tensor:
        """Multiply x [..., I] without LoRA: [..., O]."""
        rows = x.reshape(-1, self.in_features)  # [M, I]
        if self.packed is not None:
            y = by_fbgemm(rows, self.packed, self.handle, self.out_features)
        elif self.round_activations:
            y = by_int_mm(rows, self.weight_int8, self.scale)
        else:
            y = self._weight_only(rows)
        y = y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def _weight_only(self, rows: Tensor) -> Tensor:
        """Multiply floating-point rows [M, I] by the weights' integers.

        For few rows on a CPU, weights must not be widened in memory first: that costs ten times
        what it saves. Compiled, a product and a sum fuse into one pass over the integers; eager,
        torch has a kernel for it, which is quick for bfloat16 activations alone.

        Returns:
            [M, O].
        """
        count, on_cpu = rows.shape[0], rows.device.type == "cpu"
        if on_cpu and torch.compiler.is_compiling() and count <= FEW_ROWS_COMPILED:
            products = self.weight_int8 * rows[:, None, :].float()  # [M, O, I], never stored
            return (products.sum(dim=-1) * self.scale).to(rows.dtype)
        if on_cpu and not torch.compiler.is_compiling() and count <= FEW_ROWS_EAGER:
            scale = self.scale.bfloat16()
            return torch._weight_int8pack_mm(rows.bfloat16(), self.weight_int8, scale).to(
                rows.dtype
            )
        return linear(rows, self.weight_int8.to(rows.dtype)) * self.scale.to(rows.dtype)

    def merge(self) -> None:
        """Refuse: a float update cannot be folded into int8 weights exactly."""
        raise UserError("LoRA cannot be merged into int8 weights; load without quantisation")


def quantise_decoder(model: HasDecoder, mode: str) -> int:
    """Replace the decoder's linear layers in place.

    A head tied to the embedding table becomes an int8 layer of its own; the table stays.

    Returns:
        How many.

    Raises:
        UserError: an unknown mode, or merged adapters.
    """
    if mode not in MODES:
        raise UserError(f"quantize is {mode!r}; expected one of {', '.join(MODES)}")
    decoder, rounding = model.decoder, mode == "int8"
    if rounding and decoder.embed_tokens.weight.device.type == "cuda":
        rounding = False  # CUDA's integer product needs more than 16 rows; a decode step has one
    if decoder.lm_head is None:
        table = decoder.embed_tokens.weight
        with torch.device("meta"):
            head = AdaptableLinear(table.shape[1], table.shape[0], bias=False)
        head.weight = nn.Parameter(table, requires_grad=False)
        decoder.lm_head = head
    count = 0
    for module in list(decoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, AdaptableLinear) and not isinstance(child, Int8Linear):
                setattr(module, name, Int8Linear(child, round_activations=rounding))
                count += 1
    return count
