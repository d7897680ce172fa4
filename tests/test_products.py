"""Matrix products: every way of making one gives what ``F.linear`` gives.

Run alone: ``python -m pytest tests/test_products.py``.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._inductor.utils import run_and_get_code

from core.model import linear as products
from core.model.linear import FEW_ROWS, LARGE, ONEDNN, TORCH, linear

INPUTS, OUTPUTS = 256, 520  # more weights than LARGE
needs_onednn = pytest.mark.skipif(not products.HAS_ONEDNN, reason="torch was built without oneDNN")


@pytest.fixture
def weights() -> tuple[Tensor, Tensor]:
    assert INPUTS * OUTPUTS >= LARGE
    return torch.randn(OUTPUTS, INPUTS) / INPUTS**0.5, torch.randn(OUTPUTS)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that went to oneDNN."""
    seen: list[tuple[int, ...]] = []
    whole = products.onednn

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(tuple(x.shape))
        return whole(x, weight, bias)

    monkeypatch.setattr(products, "onednn", counted)
    return seen


@needs_onednn
@pytest.mark.parametrize("shape", [(1, 1, INPUTS), (3, 7, INPUTS), (INPUTS,), (2, 16, INPUTS)])
def test_large_weights_go_to_onednn_and_give_the_same(
    shape: tuple[int, ...], weights: tuple[Tensor, Tensor], calls: list[tuple[int, ...]]
):
    x, (weight, bias) = torch.randn(shape), weights
    for b in (None, bias):
        with torch.inference_mode():
            found = linear(x, weight, b)
        torch.testing.assert_close(found, F.linear(x, weight, b), rtol=1e-4, atol=1e-5)
    assert calls == [shape, shape]


@needs_onednn
@pytest.mark.parametrize(
    ("choice", "rows_of_onednn"),
    [
        ((TORCH, ONEDNN, TORCH), [2, FEW_ROWS]),
        ((TORCH, TORCH, ONEDNN), [FEW_ROWS + 1, 300]),
        ((TORCH, TORCH, TORCH), []),
    ],
)
def test_the_number_of_rows_decides_which_kernel_runs(
    choice: tuple[str, str, str],
    rows_of_onednn: list[int],
    weights: tuple[Tensor, Tensor],
    calls: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(products, "FLOAT32", products.Float32Choice(*choice))
    for rows in (1, 2, FEW_ROWS, FEW_ROWS + 1, 300):
        x = torch.randn(rows, INPUTS)
        with torch.inference_mode():
            found = linear(x, *weights)
        torch.testing.assert_close(found, F.linear(x, *weights), rtol=1e-4, atol=1e-5)
    assert [shape[0] for shape in calls] == rows_of_onednn


def test_a_transposed_input_is_read_in_its_order(weights: tuple[Tensor, Tensor]):
    x, (weight, bias) = torch.randn(2, INPUTS, 9).transpose(1, 2), weights
    with torch.inference_mode():
        found = linear(x, weight, bias)
    torch.testing.assert_close(found, F.linear(x, weight, bias), rtol=1e-4, atol=1e-5)


def test_what_onednn_does_not_know_goes_the_plain_way(
    weights: tuple[Tensor, Tensor], calls: list[tuple[int, ...]]
):
    x, (weight, _) = torch.randn(4, INPUTS), weights
    learnt = nn.Parameter(weight.clone())
    linear(x, learnt).sum().backward()
    assert learnt.grad is not None
    with torch.inference_mode():
        linear(x.bfloat16(), weight.bfloat16())
        linear(x, weight[:8])  # small: preparing would cost what it saves
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
    assert calls == []


@needs_onednn
def test_small_weights_are_worth_preparing_for_where_sizes_are_few(calls: list[tuple[int, ...]]):
    x, weight = torch.randn(400, 16), torch.randn(39, 16)
    with torch.inference_mode():
        found = linear(x, weight, few_sizes=True)
    assert len(calls) == 1
    torch.testing.assert_close(found, F.linear(x, weight), rtol=1e-4, atol=1e-5)


def test_a_varying_number_of_rows_stays_varying_when_exported(weights: tuple[Tensor, Tensor]):
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return linear(x, weights[0], weights[1])

    with torch.no_grad():
        sizes = {"x": {0: torch.export.Dim.DYNAMIC}}
        exported = torch.export.export(
            Layer(), (torch.randn(5, INPUTS),), dynamic_shapes=sizes, strict=False
        )
        for rows in (2, 9):
            x = torch.randn(rows, INPUTS)
            torch.testing.assert_close(
                exported.module()(x), F.linear(x, *weights), rtol=1e-4, atol=1e-5
            )


def both(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return linear(x, weight), linear(x, weight, bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_row_equals_the_library_and_calls_none_of_it(dtype: torch.dtype):
    seeded = torch.Generator().manual_seed(1)
    x = torch.randn(1, 1, 70, generator=seeded).to(dtype)
    weight = torch.randn(33, 70, generator=seeded).to(dtype)
    bias = torch.randn(33, generator=seeded).to(dtype)
    compiled = torch.compile(both, fullgraph=True, dynamic=False)
    found, (code,) = run_and_get_code(compiled, x, weight, bias)
    assert "extern_kernels." not in code  # none of the library's products
    for ours, theirs in zip(found, (F.linear(x, weight), F.linear(x, weight, bias)), strict=True):
        assert ours.shape == theirs.shape == (1, 1, 33)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rows", [1, 5])
def test_small_eager_products_are_the_librarys_own(rows: int):
    x, weight, bias = torch.randn(1, rows, 20), torch.randn(7, 20), torch.randn(7)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))


@pytest.mark.slow
@pytest.mark.parametrize("many", [ONEDNN, TORCH])
def test_compiled_products_of_many_rows_give_the_same(
    many: str, weights: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(products, "FLOAT32", products.Float32Choice(many=many))
    (weight, bias), compiled = weights, torch.compile(linear, fullgraph=True, dynamic=True)
    for rows in (6, 2 * FEW_ROWS):
        x = torch.randn(1, rows, INPUTS)
        with torch.inference_mode():
            found = compiled(x, weight, bias)
        torch.testing.assert_close(found, F.linear(x, weight, bias), rtol=1e-4, atol=1e-5)
