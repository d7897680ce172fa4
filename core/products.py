"""A row times a matrix, as quick as the matrix can be read.

In: activations and a weight. Out: ``F.linear`` of them. A decode step multiplies one row with every
weight of the decoder, so it takes as long as reading them. On a CPU the library's product of one
row reads at about half of what the memory gives, less for small matrices; a compiler's own loop,
a product and a sum fused, reads at nine tenths of it (``docs/findings.md``). Eager Python would
store the products first, so it keeps the library's. Shapes: I in, O out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., I], weight [O, I], bias [O] -> [..., O]."""
    is_row = x.shape[:-1].numel() == 1
    if not (is_row and x.device.type == "cpu" and torch.compiler.is_compiling()):
        return F.linear(x, weight, bias)
    products = weight.float() * x.reshape(1, -1).float()  # [O, I], never stored
    y = products.sum(dim=-1)
    y = y if bias is None else y + bias.float()
    return y.to(x.dtype).reshape(*x.shape[:-1], -1)
