"""``python -m benchmarks kernels``: one matrix product by each kernel that a decoder can use.

In: numbers of rows. Out: milliseconds a product, of the layer classes that the engine uses. The
weights are several times the processor's cache, as a model's are, so each product reads memory.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

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

    kernel: str
    rows: int
    ms: float
    weight_bytes: int


class Widened(nn.Module):
    """int8 weights turned to float32 for every product: what the other kernels avoid."""

    def __init__(self, layer: Int8Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x [M, I] to [M, O]."""
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
    """Time every kernel for every number of rows.

    Args:
        rows: how many rows a product has.
        seconds: spent on each.
        inputs: features of a row.
        outputs: features of its product.
        cache_bytes: of the processor; the weights are four times as large.

    Returns:
        One product for each number of rows and kernel.
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
    kernels: dict[str, tuple[Sequence[Callable[[Tensor], Tensor]], int]] = {
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
        for kernel, (modules, num_bytes) in kernels.items():

            def once(
                modules: Sequence[Callable[[Tensor], Tensor]] = modules, x: Tensor = x
            ) -> None:
                for module in modules:
                    module(x)

            ms = 1000 * best_seconds(once, CPU, seconds) / copies
            found.append(Product(kernel, count, ms, num_bytes))
    return found


def products_text(found: Sequence[Product]) -> str:
    """Write a table: kernels across, rows down."""
    kernels = list(dict.fromkeys(one.kernel for one in found))
    rows = list(dict.fromkeys(one.rows for one in found))
    ms = {(one.kernel, one.rows): one.ms for one in found}
    lines = [
        f"milliseconds of one product with {OUT_FEATURES} x {IN_FEATURES} weights",
        "rows" + "".join(f"{kernel:>22}" for kernel in kernels),
    ]
    lines += [f"{n:>4}" + "".join(f"{ms[kernel, n]:>22.3f}" for kernel in kernels) for n in rows]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the milliseconds; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks kernels", description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(max(1, parsed.threads))
    found = time_products(ROWS)
    rows = [asdict(one) for one in found]
    print(json.dumps(rows, indent=2) if parsed.json else products_text(found))
    return 0
