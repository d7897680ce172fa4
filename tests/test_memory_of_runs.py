"""Memory of profiled runs: peaks by phase against a case made by hand, and two runs together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from core.memory import weight_bytes
from core.phases import PhaseClock
from profiling.figures.comparison import memory_comparison, memory_held
from profiling.figures.memory_curves import memory_of_both
from profiling.measure.memory_runs import (
    MOST_POINTS,
    MemoryRun,
    memory_curve_of,
    memory_parts,
    memory_rows,
    memory_run,
)
from profiling.report.report import comparison_report
from profiling.report.sections import headline
from profiling.statistics.compare import compare
from profiling.statistics.encoder_decoder import encoder_and_decoder, memory_by_phase
from profiling.trace.events import read_trace
from profiling.trace.memory_events import memory_peaks
from recorded import RUN

CPU = torch.device("cpu")
MB = 2**20


def megabytes(count: int) -> torch.Tensor:
    return torch.empty(count * MB, dtype=torch.uint8)


@pytest.fixture(scope="module")
def session() -> profile:
    """Encoder: 3 MB and 5 MB held at once, 3 MB of them kept. Decode, twice: 1 MB, then 2 MB."""
    clock = PhaseClock()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        with clock.mark("encoder"):
            kept = megabytes(3)
            freed = megabytes(5)
            del freed
        for size in (1, 2):
            with clock.mark("decode"):
                step = megabytes(size)
                del step
        del kept
    return found


def test_peaks_by_phase_are_those_of_a_case_made_by_hand(session: profile) -> None:
    run = memory_run(session, CPU)
    assert run.peaks == {"encoder": 8 * MB, "decode": 2 * MB}
    assert run.levels.max() == 8 * MB
    assert run.levels[-1] == 0


def test_peaks_read_from_the_profiler_are_those_of_its_trace(
    session: profile, tmp_path: Path
) -> None:
    session.export_chrome_trace(str(tmp_path / "trace.json"))
    peaks = memory_peaks(read_trace(tmp_path / "trace.json").index)
    assert (
        dict(zip(peaks["phase"], peaks["peak_bytes"], strict=True))
        == memory_run(session, CPU).peaks
    )


def run_of(*levels: float, **peaks: float) -> MemoryRun:
    times = np.arange(1, len(levels) + 1) * 1_000_000
    return MemoryRun("cpu", 0, times, np.array(levels, dtype=float), peaks)


def test_several_runs_give_a_median_between_the_least_and_the_most() -> None:
    rows = memory_rows([run_of(encoder=2.0), run_of(encoder=9.0), run_of(encoder=4.0, decode=1.0)])
    assert rows[0] == {
        "phase": "encoder",
        "device": "cpu",
        "peak_bytes": 4,
        "low_bytes": 2,
        "high_bytes": 9,
        "runs": 3,
    }
    assert (rows[1]["phase"], rows[1]["runs"]) == ("decode", 1)


def test_a_long_curve_is_thinned_out_but_keeps_its_peak() -> None:
    levels = [float(n % 7) for n in range(10 * MOST_POINTS)]
    levels[1234] = 99.0
    curve = memory_curve_of(run_of(*levels))
    assert len(curve["bytes"]) <= MOST_POINTS
    assert curve["ms"][curve["bytes"].index(99.0)] == 1235.0


def test_weights_that_share_storage_count_once_and_activations_leave_out_the_cache() -> None:
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    assert weight_bytes(tied) == 4 * 4 * 4
    assert memory_parts(tied, [run_of(10.0, 30.0, 5.0)], 12, 1000) == {
        "weights_bytes": 64,
        "cache_bytes": 12,
        "activations_bytes": 18,
        "process_bytes": 1000,
    }


def measured(factor: float, **memory: int) -> dict[str, Any]:
    """A run whose phases took ``factor`` times 1, 2, ... ms in two blocks."""
    samples = {"encoder": 4.0, "prefill": 1.0, "verify": 2.0, "decode": 3.0, "end_to_end": 12.0}
    rows = [
        {"phase": name, "peak_bytes": size, "low_bytes": size - 1, "high_bytes": size + 1}
        for name, size in memory.items()
    ]
    return {
        **{key: value for key, value in RUN.items() if key != "workload"},
        "samples": {name: [ms * factor, ms * factor] for name, ms in samples.items()},
        "memory": rows,
        "memory_parts": {
            "weights_bytes": 100, "cache_bytes": 10, "activations_bytes": 5, "process_bytes": 400,
        },
        "memory_curve": {"ms": [0.0, 1.0], "bytes": [0.0, float(max(memory.values(), default=0))]},
    }  # fmt: skip


EAGER = measured(1.0, encoder=4_000_000, prefill=6_000_000, decode=1_000_000)
COMPILED = measured(0.5, encoder=2_000_000, prefill=7_000_000)


def test_the_decoder_is_all_that_makes_tokens_and_needs_as_much_as_its_largest_phase() -> None:
    encoder, decoder = encoder_and_decoder(EAGER, COMPILED)
    assert (encoder["a_ms"], encoder["b_ms"]) == (4.0, 2.0)
    assert (encoder["a_bytes"], encoder["b_bytes"]) == (4_000_000, 2_000_000)
    assert (decoder["a_ms"], decoder["b_ms"]) == (6.0, 3.0)
    assert (decoder["a_bytes"], decoder["b_bytes"]) == (6_000_000, 7_000_000)


def test_memory_stands_side_by_side_and_a_phase_of_one_run_alone_has_no_ratio() -> None:
    rows = {row["name"]: row for row in memory_by_phase(EAGER, COMPILED)}
    assert list(rows) == ["encoder", "prefill", "decode"]
    assert rows["encoder"]["ratio"] == 0.5
    assert (rows["encoder"]["a_low"], rows["encoder"]["a_high"]) == (3_999_999, 4_000_001)
    assert (rows["decode"]["b_bytes"], rows["decode"]["ratio"]) == (None, None)


def test_figures_of_memory_have_a_bar_or_a_line_for_each_run() -> None:
    found = compare(EAGER, COMPILED).to_json()
    bars = memory_comparison(found, ("eager", "compiled"))
    assert [bar.name for bar in bars.data] == ["eager", "compiled"]
    assert list(bars.data[0].x) == [4.0, 6.0, 1.0]
    assert list(bars.data[1].x) == [2.0, 7.0, None]
    small = compare(measured(1.0, encoder=4_000_000, decode=720), EAGER).to_json()
    assert list(memory_comparison(small).data[0].text) == ["4 MB", "", "720 B"]
    lines = memory_of_both([EAGER["memory_curve"], COMPILED["memory_curve"]])
    assert [max(line.y) for line in lines.data] == [6.0, 7.0]
    held = memory_held(found)
    assert list(held.data[0].y) == ["weights", "KV cache", "activations", "whole process"]


def test_the_report_begins_with_encoder_and_decoder_in_time_and_memory() -> None:
    found = compare(EAGER, COMPILED).to_json()
    tiles = [(title, value) for title, value, _ in headline(found, ("eager", "compiled"))]
    assert tiles == [
        ("Encoder, eager", "4.0\N{NO-BREAK SPACE}ms, 4\N{NO-BREAK SPACE}MB"),
        ("Encoder, compiled", "2.0\N{NO-BREAK SPACE}ms, 2\N{NO-BREAK SPACE}MB"),
        ("Decoder, eager", "6.0\N{NO-BREAK SPACE}ms, 6\N{NO-BREAK SPACE}MB"),
        ("Decoder, compiled", "3.0\N{NO-BREAK SPACE}ms, 7\N{NO-BREAK SPACE}MB"),
    ]
    page = comparison_report(EAGER, COMPILED, found)
    assert page.index("Encoder, A") < page.index("Time per phase") < page.index("Memory per phase")


def test_runs_that_never_recorded_memory_still_compare() -> None:
    bare = {key: value for key, value in measured(1.0).items() if not key.startswith("memory")}
    found = compare(bare, bare).to_json()
    assert found["memory"] == []
    assert found["memory_parts"] == {}
    for figure in (memory_comparison(found), memory_held(found), memory_of_both([None, None])):
        assert figure.layout.annotations[0].text == "memory was not recorded"
    assert "Memory over time" not in comparison_report(bare, bare, found)
