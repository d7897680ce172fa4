"""The command for a GPU machine, tried on the processor with a model of a few thousand weights."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.shapes import SHAPES
from benchmarks.studies.gpu_check import (
    EAGER,
    ENGINE_OF,
    _lab,
    _once,
    _within,
    figure_of,
    random_checkpoint,
    table_of,
)

ROW = {
    "end_to_end_ms": 12.0,
    "phases_ms": {"encoder": 4.0, "decode": 6.0, "other": 2.0},
    "share_of_floor": {"encoder": 0.5, "decode": 0.75},
    "peak_bytes": 2_500_000_000,
    "same_tokens": True,
}
FOUND: dict[str, Any] = {
    "machine": {"gpu": "some GPU", "cpu": "one of those"},
    "tests": {"failed": "1 failed, 2 passed", "last_line": "1 failed, 2 passed"},
    "shapes": {
        "small": {"failed": None, "lengths": {"10": dict.fromkeys(ENGINE_OF, ROW)}},
        "1b": {"failed": "compiled: CompileError: no compiler", "lengths": {"10": {EAGER: ROW}}},
    },
}


def test_random_weights_are_drawn_in_memory_and_transcribe() -> None:
    with random_checkpoint(SHAPES["micro"], torch.device("cpu")) as checkpoint:
        assert not any(checkpoint.files.folder.glob("*.safetensors"))
        sample = _once(_lab(checkpoint, EAGER), EAGER, 3.0, 5)
    assert len(sample.transcript.token_ids) == 5
    assert sample.phases_ms["encoder"] > 0


def test_the_table_has_a_row_an_engine_and_says_what_failed() -> None:
    table = table_of(FOUND)
    assert table.startswith("some GPU")
    rows = [line.split() for line in table.splitlines() if "10 s" in line]
    assert len(rows) == 4
    assert all("0.75" in row and "2.50" in row and "same" in row for row in rows)
    assert "failed: 1b: compiled: CompileError: no compiler" in table
    assert "failed: tests: 1 failed, 2 passed" in table


def test_the_figure_stacks_the_phases_of_every_row() -> None:
    figure = figure_of(FOUND)
    assert [bar.name for bar in figure.data] == ["encoder", "decode", "other"]
    assert {len(bar.y) for bar in figure.data} == {4}


def test_what_takes_too_long_is_ended_and_named() -> None:
    status, why = _within(
        [sys.executable, "-c", "import time; time.sleep(60)"], time.monotonic() + 2
    )
    assert status == 1
    assert "--minutes" in why
    assert "--minutes" in _within(["never-started"], time.monotonic())[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu-check"]) == 2
    assert "'cuda' cannot be used here" in capsys.readouterr().err


def test_a_model_without_dimensions_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu-check", "--device", "cpu", "--shapes", "tiny"]) == 2
    assert "expected some of micro, small, 1b, 3.3-8b" in capsys.readouterr().err


@pytest.mark.slow
def test_all_three_engines_are_measured_and_kept(tmp_path: Path) -> None:
    small = ["--shapes", "micro", "--seconds", "3", "--tokens", "4", "--blocks", "1", "--no-tests"]
    assert main(["gpu-check", "--device", "cpu", *small, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    engines = found["shapes"]["micro"]["lengths"]["3"]
    assert list(engines) == list(ENGINE_OF)
    assert all(row["same_tokens"] for row in engines.values())
    assert (tmp_path / "gpu-check.html").stat().st_size > 100_000
