"""One matrix product in each of the ways a decoder can do it: what int8 gains before anything else.

In: numbers of rows. Out: milliseconds a product, of the layer classes that the engine uses. The
weights are several times the processor's cache, as a model's are, so each product reads memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.model.linear import linear
from core.model.lora import AdaptableLinear
from core.model.quantize import Int8Linear
from profiling.roofline.machine_peaks import best_seconds, last_cache_bytes

ROWS = (1, 2, 4, 8, 16, 32, 500)
IN_FEATURES, OUT_FEATURES = 2048, 4096
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Product:
    """Milliseconds of one product of ``rows`` rows; weight_bytes: as they are read."""

    way: str
    rows: int
    ms: float
    weight_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


class Widened(nn.Module):
    """int8 weights turned to float32 for every product: what the other ways avoid."""

    def __init__(self, layer: Int8Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """x [M, I] -> [M, O]."""
        return F.linear(x, self.layer.weight_int8.float()) * self.layer.scale


@torch.inference_mode()
def time_products(
    rows: Sequence[int] = ROWS,
    *,
    seconds: float = 0.5,
    inputs: int = IN_FEATURES,
    outputs: int = OUT_FEATURES,
    cache_bytes: int | None = None,
) -> list[Product]:
    """Every way for every number of rows.

    Args:
        rows: how many rows a product has.
        seconds: spent on each.
        inputs: features of a row.
        outputs: features of its product.
        cache_bytes: of the processor; the weights are four times as large.
    """
    elements = inputs * outputs
    cache = last_cache_bytes() if cache_bytes is None else cache_bytes
    copies = max(2, 4 * cache // (4 * elements))
    layers = [AdaptableLinear(inputs, outputs, bias=False) for _ in range(copies)]
    int8 = [Int8Linear(layer, round_activations=True) for layer in layers]
    weight_only = [Int8Linear(layer, round_activations=False) for layer in layers]
    fused = torch.compile(linear, fullgraph=True, dynamic=False)  # a loop of its own for one row
    compiled = [partial(fused, weight=layer.weight) for layer in layers]
    library = [partial(F.linear, weight=layer.weight) for layer in layers]
    ways: dict[str, tuple[Sequence[Callable[[Tensor], Tensor]], int]] = {
        "float32, torch's own": (library, 4 * elements),
        "float32": (layers, 4 * elements),
        "float32, compiled": (compiled, 4 * elements),
        "int8": (int8, elements),
        "int8-weight-only": (weight_only, elements),
        "int8, widened": ([Widened(layer) for layer in weight_only], elements),
    }
    found = []
    for count in rows:
        x = torch.randn(count, inputs)
        for way, (modules, num_bytes) in ways.items():

            def once(
                modules: Sequence[Callable[[Tensor], Tensor]] = modules, x: Tensor = x
            ) -> None:
                for module in modules:
                    module(x)

            ms = 1000 * best_seconds(once, CPU, seconds) / copies
            found.append(Product(way, count, ms, num_bytes))
    return found


def products_text(found: Sequence[Product]) -> str:
    """A table: ways across, rows down."""
    ways = list(dict.fromkeys(one.way for one in found))
    rows = list(dict.fromkeys(one.rows for one in found))
    ms = {(one.way, one.rows): one.ms for one in found}
    lines = [
        f"milliseconds of one product with {OUT_FEATURES} x {IN_FEATURES} weights",
        "rows" + "".join(f"{way:>22}" for way in ways),
    ]
    lines += [f"{n:>4}" + "".join(f"{ms[way, n]:>22.3f}" for way in ways) for n in rows]
    return "\n".join(lines)
