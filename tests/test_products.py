"""A row times a matrix: the compiler's own loop gives the library's result, and is used at all."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._inductor.utils import run_and_get_code

from core.products import linear


def products(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return linear(x, weight), linear(x, weight, bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_row_equals_the_library_and_calls_none_of_it(dtype: torch.dtype):
    seeded = torch.Generator().manual_seed(1)
    x = torch.randn(1, 1, 70, generator=seeded).to(dtype)
    weight = torch.randn(33, 70, generator=seeded).to(dtype)
    bias = torch.randn(33, generator=seeded).to(dtype)
    compiled = torch.compile(products, fullgraph=True, dynamic=False)
    found, (code,) = run_and_get_code(compiled, x, weight, bias)
    assert "extern_kernels." not in code  # none of the library's products
    for ours, theirs in zip(found, (F.linear(x, weight), F.linear(x, weight, bias)), strict=True):
        assert ours.shape == theirs.shape == (1, 1, 33)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rows", [1, 5])
def test_eager_products_are_the_library_s_own(rows: int):
    x, weight, bias = torch.randn(1, rows, 20), torch.randn(7, 20), torch.randn(7)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
