"""Traces: bounded, named by phase, readable by others, and what taking them cost.

Run alone: ``python -m pytest tests/test_capture.py``.
"""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from chrome_trace import validate_chrome_trace
from core.lab import Lab
from core.phases import DECODE, ENCODER, PREFILL, PROJECTOR
from measuring import RECORDING, workload
from profiling.measure import machine
from profiling.measure.capture import (
    MAX_TRACE_BYTES,
    TraceLimits,
    capture,
    forget_names,
    kernels_visible,
)
from profiling.measure.machine import Busyness, describe_machine
from profiling.measure.workload import Workload
from profiling.trace.events import read_trace
from profiling.trace.memory_events import memory_peaks


def load(target: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(target.read_bytes()))


@pytest.fixture(scope="module")
def taken(lab: Lab, tmp_path_factory: pytest.TempPathFactory):
    target = tmp_path_factory.mktemp("trace") / "trace.json.gz"
    return capture(lab, workload(lab), RECORDING, target, limits=TraceLimits(tax_blocks=1)), target


def test_a_trace_holds_the_phases_and_a_bounded_number_of_steps(taken):
    capture, target = taken
    trace = load(target)
    names = [e["name"] for e in trace["traceEvents"] if e.get("cat") == "user_annotation"]
    assert names.count(DECODE) == capture.num_steps == 8
    for phase in (ENCODER, PROJECTOR, PREFILL):
        assert names.count(phase) == 1
    assert capture.cut
    assert capture.num_bytes == target.stat().st_size < MAX_TRACE_BYTES


def test_a_trace_says_what_was_run_and_states_a_rank(taken):
    trace = load(taken[1])
    assert trace["distributedInfo"]["rank"] == 0
    facts = trace["granite_speech_lab"]
    assert Workload.from_json(facts["workload"]).engine == "eager"
    assert facts["most_decode_steps"] == 8


def test_a_trace_opens_elsewhere_and_has_shapes_and_memory_but_no_stacks(taken):
    assert validate_chrome_trace(load(taken[1])) == []
    trace = read_trace(taken[1])
    assert not (trace.events["cat"] == "python_function").any()
    assert trace.events["input_dims"].notna().any()
    peaks = memory_peaks(trace.index).set_index("phase")["peak_bytes"]
    assert peaks[ENCODER] > 0


def test_the_tax_compares_the_same_steps(taken):
    tax = taken[0].tax
    assert tax.n == 2
    assert tax.ratio == pytest.approx(tax.on_ms / tax.off_ms)
    assert tax.ratio > 0
    assert {ENCODER, PREFILL, DECODE} <= set(tax.phases)


def test_a_trace_too_large_is_taken_again_with_fewer_steps(lab: Lab, tmp_path: Path):
    target = tmp_path / "trace.json.gz"
    found = capture(
        lab,
        workload(lab),
        RECORDING,
        target,
        limits=TraceLimits(num_steps=4, tax_blocks=1, max_bytes=1),
    )
    assert found.num_steps == 1


def test_a_run_that_ends_sooner_is_whole(lab: Lab, tmp_path: Path):
    short = workload(lab, max_new_tokens=4)
    found = capture(
        lab, short, RECORDING, tmp_path / "trace.json.gz", limits=TraceLimits(tax_blocks=1)
    )
    assert (found.num_steps, found.cut) == (3, False)


def test_no_steps_are_refused(lab: Lab, tmp_path: Path):
    with pytest.raises(ValueError, match="at least 1"):
        TraceLimits(num_steps=0)


def test_the_machine_is_described_without_names_or_paths():
    facts = describe_machine(torch.device("cpu"))
    assert facts["cores"] >= 1
    assert facts["gpu"] is None
    assert "host" not in " ".join(facts)
    busy = Busyness().read()
    assert busy["others_cpu_share"] is None or 0 <= busy["others_cpu_share"] <= 1


def test_what_started_processes_spend_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch):
    ticks = os.sysconf("SC_CLK_TCK")
    busy = dict.fromkeys(machine._KINDS, 0)
    monkeypatch.setattr(machine, "_jiffies", lambda: dict(busy))
    watch = Busyness()
    subprocess.run([sys.executable, "-c", "sum(range(3 * 10**7))"], check=True)
    busy["user"] = ticks // 10  # less than the started process and this one spent
    assert watch.read()["others_cpu_share"] == 0


def test_a_share_below_what_the_clock_tells_apart_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0.3 s of ours in hundredths of a second, and in seconds: 3.0 - 2.7 is 0.2999999999999998.
    ticks, spent = dict.fromkeys(machine._KINDS, 0), iter((2.7, 3.0))
    monkeypatch.setattr(machine, "_jiffies", lambda: dict(ticks))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(spent))
    watch = Busyness()
    ticks["user"] = 30
    assert watch.read()["others_cpu_share"] == 0


@pytest.mark.slow
def test_compiled_runs_show_all_phases_and_the_fused_kernels(lab: Lab, tmp_path: Path):
    target = tmp_path / "trace.json.gz"
    compiled = workload(lab, engine="compile")
    with kernels_visible():
        found = capture(lab, compiled, RECORDING, target, limits=TraceLimits(tax_blocks=1))
    trace = load(target)
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert names.count(DECODE) == found.num_steps == 8
    assert {ENCODER, PROJECTOR, PREFILL} <= set(names)
    assert any("cpp_fused" in name for name in names)
    assert "fused kernels" not in " ".join(read_trace(target).lacks)


def test_a_trace_names_neither_the_machine_nor_a_folder(tmp_path: Path):
    raw = '{"host_name": "desk",\n"traceEvents": [{"name": "encoder"}],"traceName": "/home/me/t"}'
    file = tmp_path / "trace.json.gz"
    file.write_bytes(gzip.compress(raw.encode()))
    forget_names(file)
    kept = json.loads(gzip.decompress(file.read_bytes()))
    assert kept == {"host_name": "", "traceEvents": [{"name": "encoder"}], "traceName": ""}
    assert list(tmp_path.iterdir()) == [file]
