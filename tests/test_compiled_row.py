"""Compiled steps multiply a row in the compiler's loop, unless that is measured to be slower."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.engine import compiled_row
from core.engine.compiled_row import (
    compiled_row_us,
    decide_compiled_row,
    loop_is_faster,
    step_bytes,
)
from core.engine.products import ENVIRONMENT, ProductTimes, kept, machine_key
from core.engine.products import keep as keep_times
from core.model.linear import FLOAT32, LOOP, NO_LOOP, TORCH, linear
from core.model.lora import AdaptableLinear
from core.model.quantize import Int8Linear

MIB = 2**20


class Decoder(nn.Module):
    """Two large layers and a small one; as a model of 16 MiB a step."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(
            AdaptableLinear(1024, 2048), AdaptableLinear(2048, 1024), AdaptableLinear(8, 8)
        )


@pytest.fixture(autouse=True)
def _undecided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    before = FLOAT32.one, FLOAT32.few, FLOAT32.many, FLOAT32.loop
    FLOAT32.loop = None
    keep_times(ProductTimes(machine_key(), {"int8 int_mm": {1: 1.0, 16: 1.0, 128: 1.0}}, 0.1))
    yield
    FLOAT32.one, FLOAT32.few, FLOAT32.many, FLOAT32.loop = before


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of weights that were read in turns; the loop takes twice as long with many."""
    counts: list[int] = []

    def measure(count: int) -> dict[str, float]:
        counts.append(count)
        return {LOOP: 200.0 if count > 2 else 100.0, NO_LOOP: 100.0}

    monkeypatch.setattr(compiled_row, "_measure", measure)
    return counts


def graph_of(weight: Tensor) -> list[str]:
    """The operations that compiling one row's product gives."""
    found: list[str] = []

    def backend(module: torch.fx.GraphModule, inputs: Any) -> Any:
        found.extend(str(node.target) for node in module.graph.nodes if "call" in node.op)
        return module.forward

    torch.compiler.reset()
    x = torch.randn(1, 1, weight.shape[1], dtype=weight.dtype)
    with torch.inference_mode():
        y = torch.compile(lambda x, w: linear(x, w), backend=backend, dynamic=False)(x, weight)
    torch.testing.assert_close(y, x @ weight.T, rtol=2e-2, atol=1e-1)
    return found


def test_a_loop_that_is_slower_beyond_noise_is_not_taken() -> None:
    assert loop_is_faster({LOOP: 100.0, NO_LOOP: 100.0})
    assert loop_is_faster({LOOP: 108.0, NO_LOOP: 100.0})
    assert not loop_is_faster({LOOP: 125.0, NO_LOOP: 100.0})


def test_only_large_float32_weights_of_the_decoder_count() -> None:
    model = Decoder()
    assert step_bytes(model) == 16 * MIB
    assert step_bytes(Decoder().bfloat16()) == 0
    assert step_bytes(nn.Linear(1024, 2048)) == 0  # no decoder
    for number, layer in enumerate(model.decoder):
        model.decoder[number] = Int8Linear(layer, round_activations=True)
    assert step_bytes(model) == 0
    assert step_bytes(Decoder().to("meta")) == 0


def test_it_is_measured_once_with_what_a_step_reads_and_kept(measured: list[int]) -> None:
    decide_compiled_row(Decoder())
    assert measured == [2]  # weights of 8 MiB
    assert FLOAT32.loop is True
    FLOAT32.loop = None  # another process
    decide_compiled_row(Decoder())
    assert measured == [2]
    assert FLOAT32.loop is True
    times = kept(machine_key())
    assert times is not None
    assert {name.split()[-1] for name in times.us} == {"int_mm", LOOP, NO_LOOP}


def test_a_larger_model_is_measured_apart(measured: list[int]) -> None:
    model = Decoder()
    model.decoder.append(nn.Linear(2048, 2048))
    decide_compiled_row(model)
    assert measured == [4]
    assert FLOAT32.loop is False


def test_what_little_memory_allows_is_measured_once_too(
    measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = kept(machine_key())
    assert times is not None
    for free in (8 * 50 * MIB, 8 * 40 * MIB):  # of the 512 MiB that a large model asks for
        monkeypatch.setattr(compiled_row, "available_bytes", lambda free=free: free)
        compiled_row_us(times, 2**33)
    assert measured == [4]  # weights of 8 MiB


def test_a_process_decides_once_so_that_nothing_is_compiled_again(measured: list[int]) -> None:
    FLOAT32.loop = True
    model = Decoder()
    model.decoder.append(nn.Linear(2048, 2048))
    decide_compiled_row(model)
    assert measured == []
    assert FLOAT32.loop is True


@pytest.mark.parametrize(("wish", "loop"), [(LOOP, True), (NO_LOOP, False), ("off", None)])
def test_the_environment_decides_without_measuring(
    measured: list[int], monkeypatch: pytest.MonkeyPatch, wish: str, loop: bool | None
) -> None:
    monkeypatch.setenv(ENVIRONMENT, wish)
    decide_compiled_row(Decoder())
    assert FLOAT32.loop is loop
    assert measured == []


@pytest.mark.parametrize("one", ["onednn", TORCH])
def test_large_weights_go_to_the_kernel_of_eager_steps_and_small_ones_to_the_loop(one: str) -> None:
    FLOAT32.one = FLOAT32.few = FLOAT32.many = one
    large, small = torch.randn(512, 512), torch.randn(8, 16)
    FLOAT32.loop = True
    assert "mul" in " ".join(graph_of(large))
    FLOAT32.loop = False
    assert "mul" not in " ".join(graph_of(large))
    assert "mul" in " ".join(graph_of(small))
    assert "mul" in " ".join(graph_of(large.bfloat16()))


@pytest.mark.slow
def test_both_ways_are_really_timed() -> None:
    found = compiled_row._measure(2)
    assert set(found) == {LOOP, NO_LOOP}
    assert all(1.0 < us < 1e6 for us in found.values())
