"""Matrix products, each by the fastest kernel a CPU has for it, and the activations between them.

In: activations and a weight. Out: ``F.linear`` of them. torch multiplies float32 matrices with MKL,
which is quick on Intel's processors and uses half of what some others can do. There are two
alternatives (``docs/findings.md`` has the numbers, ``python -m benchmarks kernels`` measures them
again):

- oneDNN, which torch brings along for convolutions: where MKL is slow, twice as fast for many rows.
  It prepares itself for every new number of rows, so it serves large weights only.
  ``core.engine.products`` measures which is faster here for one row, few and many.
- for a row in a compiled step the compiler's own loop, a product and a sum fused, which on some
  processors reads at nine tenths of the memory bandwidth; ``core.engine.compiled_row`` measures
  whether it does. Eager Python would store the products first.

Shapes: I in, O out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HAS_ONEDNN = torch.backends.mkldnn.is_available()
LARGE = 2**17  # weights; below, preparing for a new number of rows costs what it saves
ONEDNN, TORCH = "onednn", "torch"
LOOP, NO_LOOP = "loop", "no-loop"  # the compiler's own for a row, or the kernel of eager steps
FEW_ROWS = 48  # at most; beyond, they are many


@dataclass
class Float32Choice:
    """The kernels of large float32 weights from now on: for one row, few, and many.

    loop: whether compiled steps multiply a row in the compiler's loop; None is yes, undecided.
    """

    one: str = ONEDNN
    few: str = ONEDNN
    many: str = ONEDNN
    loop: bool | None = None

    def kernel(self, rows: int) -> str:
        """Return the kernel for so many rows."""
        if rows == 1:
            return self.one
        return self.few if rows <= FEW_ROWS else self.many

    def use(self, one: str, few: str, many: str) -> None:
        """Choose all three."""
        self.one, self.few, self.many = one, few, many


FLOAT32 = Float32Choice()

# By the names config.json uses; only those of the Granite Speech family and its relatives.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, few_sizes: bool = False
) -> Tensor:
    """Multiply by a weight and add a bias.

    Args:
        x: [..., I].
        weight: [O, I].
        bias: [O], or None.
        few_sizes: rows come in few numbers, so that preparing for each pays for small weights too.

    Returns:
        [..., O].
    """
    if x.device.type != "cpu":
        return F.linear(x, weight, bias)
    compiling = torch.compiler.is_compiling()
    if compiling and x.numel() == x.shape[-1]:  # a row; Size.numel() would fix a varying size
        if FLOAT32.loop is not False or not _is_large_float32(x, weight):
            return row_in_a_loop(x, weight, bias)
        if FLOAT32.one == TORCH:
            return F.linear(x, weight, bias)
    if not _suits_onednn(x, weight, least=1 if few_sizes else LARGE):
        return F.linear(x, weight, bias)
    return by_rows(x, weight, bias) if compiling else _by_rows(x, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`, for models that take no adapters."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x [..., I] by the weight: [..., O]."""
        return linear(x, self.weight, self.bias)


def row_in_a_loop(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply a row x [..., I] by weight [O, I] as compilers fuse it into one loop: [..., O]."""
    products = weight.float() * x.reshape(1, -1).float()  # [O, I], never stored
    y = products.sum(dim=-1)
    y = y if bias is None else y + bias.float()
    return y.to(x.dtype).reshape(*x.shape[:-1], -1)


def _by_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if FLOAT32.kernel(x.numel() // x.shape[-1]) == TORCH:
        return F.linear(x, weight, bias)
    return onednn(x, weight, bias)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply x [..., I] by weight [O, I] with oneDNN: [..., O]."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


@torch.library.custom_op("granite_speech::linear", mutates_args=())
def by_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply x [..., I] by weight [O, I] in one step that compilers leave alone.

    They know oneDNN's product, but take it for weights only that are constants of the graph. And
    the kernel depends on the number of rows, which varies in one graph.

    Returns:
        [..., O].
    """
    return _by_rows(x, weight, bias)


@by_rows.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _is_large_float32(x: Tensor, weight: Tensor) -> bool:
    return x.dtype == weight.dtype == torch.float32 and weight.numel() >= LARGE


def _suits_onednn(x: Tensor, weight: Tensor, least: int) -> bool:
    """Check that oneDNN is there and may be faster. It knows no gradients and no autocast."""
    return (
        HAS_ONEDNN
        and ONEDNN in (FLOAT32.one, FLOAT32.few, FLOAT32.many)
        and weight.numel() >= least
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )
