"""Kernels are chosen by measurement and kept; int8 never takes the slow one for many rows."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import benchmarks.__main__ as command
from core.devices import quantise_note
from core.engine import products
from core.engine.aot_build import CONFIGURATION
from core.engine.products import (
    ENVIRONMENT,
    FILE,
    INT8,
    ROWS,
    ProductTimes,
    measure_products,
    slower_note,
    use_products,
)
from core.errors import UserError
from core.model import int8_products
from core.model.int8_products import FBGEMM, INT_MM, PackedWeight, by_fbgemm, quantise_rows
from core.model.linear import ONEDNN, TORCH, Float32Choice
from core.model.lora import AdaptableLinear
from core.model.quantize import Int8Linear

needs_fbgemm = pytest.mark.skipif(
    FBGEMM not in int8_products.kernels(), reason="torch was built without fbgemm"
)
Costs = dict[str, tuple[float, float, float]]  # kernel -> microseconds of 1, 16 and 128 rows
ORDINARY: Costs = {  # a processor without VNNI
    "float32 onednn": (100, 800, 5000),
    "float32 torch": (90, 900, 6000),
    "int8 fbgemm": (40, 200, 2500),
    "int8 int_mm": (200, 2000, 100_000),
    "int8-weight-only": (80, 900, 20_000),
}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr(int8_products.CHOSEN, "kernel", INT_MM)
    monkeypatch.setattr(products, "FLOAT32_CHOICE", Float32Choice())


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Costs], list[tuple[str, int]]]:
    """Makes kernels cost what is given; the answer lists what was timed."""

    def costing(costs: Costs) -> list[tuple[str, int]]:
        asked: list[tuple[str, int]] = []

        def timer(name: str, rows: int, call: Callable[[], object]) -> float:
            asked.append((name, rows))
            return costs.get(name, (1e9, 1e9, 1e9))[ROWS.index(rows)]

        whole = measure_products
        monkeypatch.setattr(products, "measure_products", lambda machine: whole(machine, timer))
        return asked

    return costing


def times(costs: Costs) -> ProductTimes:
    return ProductTimes(
        "any", {name: dict(zip(ROWS, us, strict=True)) for name, us in costs.items()}, 0.1
    )


@needs_fbgemm
def test_the_fastest_kernel_is_measured_once_and_kept(
    timed: Callable[[Costs], list[tuple[str, int]]], tmp_path: Path
) -> None:
    asked = timed(ORDINARY)
    first = use_products()
    assert first is not None
    assert first.fastest == int8_products.CHOSEN.kernel == FBGEMM
    count = len(asked)
    int8_products.CHOSEN.kernel = INT_MM
    assert use_products() == first
    assert int8_products.CHOSEN.kernel == FBGEMM
    assert len(asked) == count
    (file,) = tmp_path.rglob(FILE)
    file.write_text("[half a fi")
    again = use_products()
    assert again is not None
    assert again.us == first.us
    assert len(asked) == 2 * count


def test_what_compilers_fuse_is_taken_where_kernels_are_level() -> None:
    level = {"int8 fbgemm": (52, 110, 647), "int8 int_mm": (51, 164, 707)}
    assert times(level).fastest == INT_MM
    assert times({**level, "int8 fbgemm": (40, 110, 500)}).fastest == FBGEMM
    assert times({"int8 fbgemm": (52, 110, 647)}).fastest == FBGEMM


@needs_fbgemm
def test_times_of_another_machine_or_with_other_vector_units_are_not_used(
    timed: Callable[[Costs], list[tuple[str, int]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed(ORDINARY)
    use_products()
    monkeypatch.setenv("FBGEMM_ENABLE_INSTRUCTIONS", "AVX2")
    timed({**ORDINARY, "int8 int_mm": (10, 20, 30)})
    use_products()
    assert int8_products.CHOSEN.kernel == INT_MM
    (file,) = tmp_path.rglob(FILE)
    assert len(json.loads(file.read_text())) == 2


def test_the_environment_names_the_kernel(
    timed: Callable[[Costs], list[tuple[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = timed(ORDINARY)
    monkeypatch.setenv(ENVIRONMENT, "off")
    assert use_products() is None
    assert asked == []
    monkeypatch.setenv(ENVIRONMENT, INT_MM)
    assert use_products() is not None
    assert int8_products.CHOSEN.kernel == INT_MM
    assert Float32Choice(one=TORCH, few=ONEDNN, many=ONEDNN) == products.FLOAT32_CHOICE
    monkeypatch.setenv(ENVIRONMENT, f" {TORCH},{INT_MM}")
    use_products()
    assert int8_products.CHOSEN.kernel == INT_MM
    assert Float32Choice(TORCH, TORCH, TORCH) == products.FLOAT32_CHOICE
    monkeypatch.setenv(ENVIRONMENT, "mkl")
    with pytest.raises(UserError, match="'mkl'; expected some of off"):
        use_products()


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        ({}, (ONEDNN, ONEDNN, ONEDNN)),
        ({"float32 torch": (99, 700, 4000)}, (ONEDNN, TORCH, TORCH)),
        ({"float32 torch": (80, 900, 4000)}, (TORCH, ONEDNN, TORCH)),
        # oneDNN shares a row among threads: one thread's time does not show it.
        (
            {
                "float32 torch": (80, 900, 9000),
                "float32-threads torch": (81, 0, 0),
                "float32-threads onednn": (60, 0, 0),
            },
            (ONEDNN, ONEDNN, ONEDNN),
        ),
        # Other programs had the second processor.
        (
            {
                "float32 torch": (80, 900, 9000),
                "float32-threads torch": (9000, 0, 0),
                "float32-threads onednn": (6000, 0, 0),
            },
            (TORCH, ONEDNN, ONEDNN),
        ),
    ],
)
def test_float32_takes_the_faster_kernel_for_one_row_few_and_many(
    costs: Costs, chosen: tuple[str, str, str]
) -> None:
    assert times({"float32 onednn": (100, 800, 5000), **costs}).float32 == chosen


@needs_fbgemm
def test_a_kernel_hopeless_with_few_rows_is_not_tried_with_many(
    timed: Callable[[Costs], list[tuple[str, int]]],
) -> None:
    asked = timed(ORDINARY)
    use_products()
    assert ("int8 int_mm", 16) in asked
    assert ("int8 int_mm", 128) not in asked


def test_a_format_slower_than_float32_is_told_with_both_numbers(
    timed: Callable[[Costs], list[tuple[str, int]]],
) -> None:
    assert slower_note(INT8, times(ORDINARY)) is None
    assert slower_note(None, times(ORDINARY)) is None
    slow = {**ORDINARY, "int8 fbgemm": (300.0, 3000.0, 30_000.0)}
    timed(slow)
    note = quantise_note("int8", "cpu") or ""
    # 128 rows and 32 single ones; float32 takes the better kernel for each.
    assert "39.6 ms against 7.9 ms" in note or "106.4 ms against 7.9 ms" in note
    assert quantise_note("", "cpu") is None


def test_measuring_is_over_within_a_second_of_processor_time_and_keeps_the_threads() -> None:
    before = torch.get_num_threads()
    found = measure_products("any")
    assert found.seconds <= 1.0
    assert found.fastest in int8_products.kernels()
    assert torch.get_num_threads() == before


@needs_fbgemm
def test_many_rows_do_not_pass_the_kernel_that_was_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_products.CHOSEN, "kernel", FBGEMM)
    layer = AdaptableLinear(64, 32)
    quick = Int8Linear(layer, round_activations=True)

    def forbidden(*_: Tensor) -> Tensor:
        raise AssertionError("_int_mm ran")

    monkeypatch.setattr(torch, "_int_mm", forbidden)
    x = torch.randn(1, 200, 64)
    found = torch.nn.functional.cosine_similarity(quick(x).flatten(), layer(x).flatten(), dim=0)
    assert found > 0.9995


@needs_fbgemm
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_packed_rows_depend_on_no_other_row_and_never_overflow(rows: int) -> None:
    levels = int8_products.levels_of_weights(FBGEMM)
    packed = PackedWeight(torch.full((32, 64), int(levels), dtype=torch.int8), torch.ones(32))
    x = torch.randn(rows, 64).abs()
    x[0] = 1000.0  # all at the largest step: sums in 16 bits would overflow
    found = by_fbgemm(x, packed, packed.handle, 32)
    assert torch.allclose(found[0], torch.tensor(64 * levels * 1000.0), rtol=1e-3)
    alone = by_fbgemm(x[-1:], packed, packed.handle, 32)
    torch.testing.assert_close(found[-1:], alone)


PACK_BESIDE_ANOTHER_THREAD = """
import warnings
import torch
from core.model import int8_products
block, real = warnings.catch_warnings(), torch._make_per_channel_quantized_tensor
block.__enter__()
def meanwhile(*given):
    block.__exit__(None, None, None)  # another thread's block ends here
    return real(*given)
torch._make_per_channel_quantized_tensor = meanwhile
int8_products._pack(torch.ones(16, 64, dtype=torch.int8), torch.ones(16))
"""


@needs_fbgemm
def test_packing_warns_nobody_while_another_thread_changes_the_filters() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PACK_BESIDE_ANOTHER_THREAD],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_fbgemm
def test_packed_weights_are_forgotten_with_their_layer() -> None:
    before = len(int8_products._PACKED)
    packed = PackedWeight(*(part.squeeze() for part in quantise_rows(torch.randn(8, 16))))
    assert len(int8_products._PACKED) == before + 1
    del packed
    assert len(int8_products._PACKED) == before


@needs_fbgemm
def test_a_packed_layer_is_exported_with_a_varying_number_of_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8_products.CHOSEN, "kernel", FBGEMM)
    layer = Int8Linear(AdaptableLinear(64, 32), round_activations=True)
    with torch.no_grad():
        exported = torch.export.export(
            layer,
            (torch.randn(5, 64),),
            dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC}},
            strict=False,
        )
        for rows in (2, 9):
            x = torch.randn(rows, 64)
            torch.testing.assert_close(exported.module()(x), layer(x))


@needs_fbgemm
@pytest.mark.slow
def test_a_package_multiplies_by_the_weights_it_is_lent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(int8_products.CHOSEN, "kernel", FBGEMM)
    built_from, lends = (
        Int8Linear(AdaptableLinear(64, 32), round_activations=True) for _ in range(2)
    )
    with torch.no_grad():
        sizes = {"x": {0: torch.export.Dim.DYNAMIC}}
        exported = torch.export.export(
            built_from, (torch.randn(5, 64),), dynamic_shapes=sizes, strict=False
        )
        file = torch._inductor.aoti_compile_and_package(
            exported, package_path=str(tmp_path / "x.pt2"), inductor_configs=CONFIGURATION
        )
        loader = torch._C._aoti.AOTIModelPackageLoader(file, "model", False, 1, -1)
        state = lends.state_dict()
        lent = {key: state[key] for key in loader.get_constant_fqns()}
        assert "handle" in lent
        loader.load_constants(lent, False, True, True)
        for rows in (2, 9):
            x = torch.randn(rows, 64)
            torch.testing.assert_close(loader.run([x])[0], lends(x))


def test_a_capped_benchmark_starts_again_with_every_switch_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, args, env: started.append((args, env)))
    command.under_cap(None, ["speed"])
    assert started == []
    command.under_cap("avx2", ["speed", "--cap", "avx2"])
    ((arguments, environment),) = started
    assert arguments == [sys.executable, "-m", "benchmarks", "speed", "--cap", "avx2"]
    assert command.CAPS["avx2"].items() <= environment.items()
    for name, value in command.CAPS["avx2"].items():
        monkeypatch.setenv(name, value)
    command.under_cap("avx2", [])
    assert len(started) == 1
