"""Events -> phase, operator, gap, compile and memory tables, with totals added up by hand.

Run alone: ``python -m pytest tests/test_breakdown.py``. Times are in microseconds, tables in ms.

``data/tiny_trace.json``, from its first event:

    encoder      0 ............................................. 100
      aten::linear  10 .................. 70
        aten::addmm    20 ........ 60
      aten::gelu                              75 ..... 90
    decode     110 .......... 150        (category cpu_op)
      aten::mm   115 ... 135
    decode     160 .......... 190
      aten::mm   162 ... 172
    [memory]   25: +1000 (total 5000)  50: +500  80: -1000  120: +200  170: +300
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from profiling.trace.breakdown import (
    OPERATOR_COLUMNS,
    PATH_COLUMNS,
    PHASE_COLUMNS,
    operator_paths,
    operator_table,
    phase_table,
)
from profiling.trace.compile_marks import OVERHEAD_COLUMNS, compile_overhead, fused_kernels_hidden
from profiling.trace.events import read_trace
from profiling.trace.launches import GAP_COLUMNS, launch_gaps
from profiling.trace.memory_events import CURVE_COLUMNS, PEAK_COLUMNS, memory_curve, memory_peaks
from profiling.trace.trace_index import TraceIndex

TINY = Path(__file__).parent / "data" / "tiny_trace.json"


def events_of(*rows: dict[str, Any]) -> TraceIndex:
    return read_trace(json.dumps(rows).encode()).index


def call(
    name: str, ts: float, dur: float, cat: str = "cpu_op", tid: int = 1, **args: Any
) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": cat,
        "name": name,
        "pid": 1,
        "tid": tid,
        "ts": ts,
        "dur": dur,
        "args": args,
    }


@pytest.fixture
def tiny() -> TraceIndex:
    return read_trace(TINY).index


@pytest.fixture
def on_gpu() -> TraceIndex:
    """One phase, two kernels whose times overlap on two streams, and the device's mirror range."""
    return events_of(
        call("decode", 0, 100, "user_annotation"),
        call("aten::mm", 10, 20),
        call("cudaLaunchKernel", 12, 4, "cuda_runtime", correlation=7),
        call("aten::add", 40, 10),
        call("cudaLaunchKernel", 42, 3, "cuda_runtime", correlation=8),
        call("gemm", 20, 40, "kernel", tid=7, correlation=7),
        call("elementwise", 55, 15, "kernel", tid=8, correlation=8),
        call("decode", 20, 50, "gpu_user_annotation", tid=7),
        call("cudaDeviceSynchronize", 60, 12, "cuda_runtime"),
    )


def test_phases_by_hand(tiny: TraceIndex):
    table = phase_table(tiny).set_index("phase")
    assert list(table.reset_index()) == list(PHASE_COLUMNS)
    assert table.index.tolist() == ["encoder", "decode", "other"]
    assert table["num_spans"].tolist() == [1, 2, pd.NA]
    # decode 40 + 30; other 10 + 10 between the phases: together the 190 from first to last.
    assert table["wall_ms"].tolist() == pytest.approx([0.100, 0.070, 0.020])
    assert table["share"].tolist() == pytest.approx([100 / 190, 70 / 190, 20 / 190])
    # encoder 100 - 60 - 15; decode (40 - 20) + (30 - 10).
    assert table["self_ms"][:2].tolist() == pytest.approx([0.025, 0.040])
    # addmm and gelu call nothing further; one mm in each decode.
    assert table["num_launches"].tolist() == [2, 2, 0]
    assert set(table["launched"]) == {"operators"}


def test_without_a_device_its_time_is_absent_not_zero(tiny: TraceIndex):
    assert phase_table(tiny)["device_ms"].isna().all()
    assert operator_table(tiny)["device_ms"].isna().all()


def test_operators_by_hand(tiny: TraceIndex):
    table = operator_table(tiny)
    assert list(table) == list(OPERATOR_COLUMNS)
    rows = table.set_index(["phase", "name"])
    assert rows["self_ms"].to_dict() == pytest.approx(
        {
            ("encoder", "aten::addmm"): 0.040,
            ("decode", "aten::mm"): 0.030,
            ("encoder", "aten::linear"): 0.020,  # 60 - 40
            ("encoder", "aten::gelu"): 0.015,
        }
    )
    assert rows["total_ms"]["encoder", "aten::linear"] == pytest.approx(0.060)
    assert rows["num_calls"]["decode", "aten::mm"] == 2
    assert table["share"].sum() == pytest.approx(1)


def test_operators_and_phases_own_all_the_time_of_the_phases(tiny: TraceIndex):
    phases = phase_table(tiny).set_index("phase")[:2]
    own = operator_table(tiny).groupby("phase")["self_ms"].sum()
    assert (own + phases["self_ms"]).to_dict() == pytest.approx(phases["wall_ms"].to_dict())


def test_an_operator_inside_itself_counts_once():
    table = operator_table(events_of(call("aten::to", 0, 10), call("aten::to", 2, 5)))
    assert table["total_ms"].tolist() == pytest.approx([0.010])
    assert table["self_ms"].tolist() == pytest.approx([0.010])


def test_device_time_is_charged_to_the_phase_and_operator_that_launched_it(on_gpu: TraceIndex):
    table = phase_table(on_gpu).set_index("phase")
    assert table["num_spans"]["decode"] == 1  # the device's mirror of the range is no second stay
    assert table["device_ms"]["decode"] == pytest.approx(0.050)  # 20..60 and 55..70
    assert table["num_launches"]["decode"] == 2
    assert table["launched"]["decode"] == "kernels"
    device = operator_table(on_gpu).set_index("name")["device_ms"]
    assert device["aten::mm"] == pytest.approx(0.040)
    assert device["aten::add"] == pytest.approx(0.015)
    assert device["cudaDeviceSynchronize"] == 0


def test_kernels_without_a_launch_are_found_by_external_id():
    events = events_of(
        call("encoder", 0, 10, "user_annotation"),
        call("aten::mm", 2, 5, **{"External id": 3}),
        call("gemm", 50, 4, "kernel", tid=7, **{"External id": 3}),
    )
    assert phase_table(events).set_index("phase")["device_ms"]["encoder"] == pytest.approx(0.004)


def test_gaps_of_a_device_by_hand(on_gpu: TraceIndex):
    (row,) = launch_gaps(on_gpu).to_dict("records")
    assert list(row) == list(GAP_COLUMNS)
    assert (row["where"], row["num_gaps"], row["longest_gap_us"]) == (
        "device",
        2,
        30,
    )  # 0..20, 70..
    assert (row["busy_ms"], row["idle_ms"]) == pytest.approx((0.050, 0.050))
    assert row["launch_delay_us"] == pytest.approx((8 + 13) / 2)


def test_gaps_of_a_host_by_hand(tiny: TraceIndex):
    table = launch_gaps(tiny).set_index("phase")
    # encoder 0..10, 70..75, 90..100; decode 110..115, 135..150, 160..162, 172..190.
    assert table["num_gaps"].tolist() == [3, 4]
    assert table["idle_ms"].tolist() == pytest.approx([0.025, 0.040])
    assert table["longest_gap_us"].tolist() == pytest.approx([10, 18])
    assert table["trusted"].all()


def test_time_that_calls_share_without_nesting_counts_once():
    # a 0..10, b 5..15, both inside c 0..20: c keeps 5, a 5, b 10.
    calls = events_of(call("c", 0, 20), call("a", 0, 10), call("b", 5, 10)).calls
    assert calls["self_ns"].tolist() == [5_000, 5_000, 10_000]
    assert calls["parent"].tolist() == [-1, 0, 1]


def test_threads_do_not_nest_in_each_other():
    calls = events_of(call("a", 0, 10), call("b", 2, 3, tid=2)).calls
    assert calls["parent"].tolist() == [-1, -1]


def test_calls_that_touch_are_neighbours_despite_rounding():
    start = 1.6e15  # microseconds since 1970, where a float has steps of 0.25
    calls = events_of(call("a", start, 4), call("b", start + 4, 4)).calls
    assert calls["depth"].tolist() == [0, 0]


def test_phases_inside_phases_are_not_counted_twice():
    events = events_of(
        call("decode", 0, 100, "user_annotation"),
        call("verify", 20, 30, "user_annotation"),
        call("aten::mm", 25, 10),
    )
    table = phase_table(events).set_index("phase")
    assert table["wall_ms"].to_dict() == pytest.approx(
        {"verify": 0.030, "decode": 0.100, "other": 0}
    )
    assert operator_table(events)["phase"].tolist() == ["verify"]


def test_a_phase_without_operators_and_without_length():
    table = phase_table(events_of(call("encoder", 0, 0, "user_annotation")))
    assert table["num_launches"].tolist() == [0, 0]
    assert table["share"].isna().all()


def test_a_trace_without_phases_has_operators_all_the_same():
    events = events_of(call("aten::mm", 0, 5), call("aten::add", 5, 5))
    assert phase_table(events).empty
    assert list(phase_table(events)) == list(PHASE_COLUMNS)
    assert launch_gaps(events).empty
    assert set(operator_table(events)["phase"]) == {"other"}


def test_the_tree_of_calls_keeps_all_time(tiny: TraceIndex):
    tree = operator_paths(tiny, least_share=0)
    assert list(tree) == list(PATH_COLUMNS)
    assert tree["own"].sum() == pytest.approx(0.170)
    encoder = tree[tree["phase"] == "encoder"].set_index("label")
    assert encoder["total"].to_dict() == pytest.approx(
        {"encoder": 0.100, "aten::linear": 0.060, "aten::addmm": 0.040, "aten::gelu": 0.015}
    )


def test_small_branches_of_the_tree_count_in_their_parent(tiny: TraceIndex):
    tree = operator_paths(tiny, least_share=0.2)  # of 170: gelu's 15, mm's 30 go
    assert sorted(tree["label"]) == ["aten::addmm", "aten::linear", "decode", "encoder"]
    assert tree["own"].sum() == pytest.approx(0.170)
    shallow = operator_paths(tiny, max_depth=1, least_share=0).set_index("label")
    assert shallow["own"]["aten::linear"] == pytest.approx(0.060)


def test_price_of_a_compiled_call_by_hand():
    graph = "## Call CompiledFxGraph fabc ##"
    events = events_of(
        call("decode", 0, 100, "user_annotation"),
        call("TorchDynamo Cache Lookup", 5, 10),
        call("Torch-Compiled Region: 0/0", 20, 70),
        call("Pregraph bytecode", 25, 5),
        call("AOTDispatcher Runtime Wrapper Prologue", 32, 3),
        call(graph, 40, 40, "user_annotation"),
        call("aten::mm", 50, 20),
    )
    table = compile_overhead(events)
    assert list(table) == list(OVERHEAD_COLUMNS)
    assert table.set_index("stage")["self_ms"].to_dict() == pytest.approx(
        {
            "guards": 0.010,
            "dispatch": 0.022,  # 70 - 5 - 3 - 40
            "bytecode": 0.005,
            "runtime wrapper": 0.003,
            "compiled graph": 0.020,
        }
    )
    assert table[~table["is_overhead"]]["stage"].tolist() == ["compiled graph"]
    assert fused_kernels_hidden(events)
    assert not launch_gaps(events)["trusted"].any()
    # Of the host's calls only mm is work.
    assert phase_table(events)["num_launches"].tolist() == [1, 0]


def test_without_compiled_code_there_is_no_price(tiny: TraceIndex):
    assert compile_overhead(tiny).empty
    assert list(compile_overhead(tiny)) == list(OVERHEAD_COLUMNS)
    assert not fused_kernels_hidden(tiny)


def test_memory_starts_at_zero_whatever_earlier_recordings_left(tiny: TraceIndex):
    curve = memory_curve(tiny)
    assert list(curve) == list(CURVE_COLUMNS)
    # The first event says total 5000 after +1000: 4000 were there before.
    assert curve["allocated_bytes"].tolist() == [1000, 1500, 500, 700, 1000]
    assert curve["total_bytes"].tolist() == [5000, 5500, 4500, 4700, 5000]
    assert curve["phase"].tolist() == ["encoder", "encoder", "encoder", "decode", "decode"]
    assert curve["reserved_bytes"].isna().all()


def test_peak_of_a_phase_is_the_highest_level_not_what_is_left(tiny: TraceIndex):
    peaks = memory_peaks(tiny).set_index("phase")
    assert list(peaks.reset_index()) == list(PEAK_COLUMNS)
    # encoder 0 -> 1500 at most, 500 left; decode 500 -> 700, then 700 -> 1000.
    assert peaks["peak_bytes"].to_dict() == {"encoder": 1500, "decode": 300}
    assert peaks["net_bytes"].to_dict() == {"encoder": 500, "decode": 500}
    assert peaks["allocations"].to_dict() == {"encoder": 2, "decode": 2}


def test_two_buffers_of_which_one_is_freed_peak_at_both():
    def memory(ts: float, size: int, total: int) -> dict[str, Any]:
        args = {"Bytes": size, "Total Allocated": total, "Device Type": 0, "Device Id": -1}
        return {"ph": "i", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts, "args": args}

    mib = 1 << 20
    events = events_of(
        call("prefill", 0, 100, "user_annotation"),
        memory(10, mib, mib),
        memory(20, mib, 2 * mib),
        memory(30, -mib, mib),
    )
    (row,) = memory_peaks(events).to_dict("records")
    assert (row["peak_bytes"], row["net_bytes"]) == (2 * mib, mib)


def test_devices_have_their_own_curves():
    rows = [
        {"Bytes": 10, "Total Allocated": 110, "Device Type": 0, "Device Id": -1},
        {
            "Bytes": 5,
            "Total Allocated": 1005,
            "Total Reserved": 2048,
            "Device Type": 1,
            "Device Id": 0,
        },
    ]
    events = events_of(
        *(
            {"ph": "i", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts, "args": args}
            for ts, args in enumerate(rows)
        )
    )
    curve = memory_curve(events).set_index("device")
    assert curve["allocated_bytes"].to_dict() == {"cpu": 10, "cuda:0": 5}
    assert curve["reserved_bytes"]["cuda:0"] == 2048


def test_without_memory_events_there_is_no_curve(on_gpu: TraceIndex):
    assert memory_curve(on_gpu).empty
    assert memory_peaks(on_gpu).empty
