"""Figures of a trace by their data: timeline, operators, memory; bounded however long it is.

Run alone: ``python -m pytest tests/test_figures_trace.py``.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from figure_inputs import index
from profiling.figures.memory_curves import MAX_POINTS, memory_over_time
from profiling.figures.style import shortened
from profiling.figures.trace_views import MAX_RECTANGLES, operator_icicle, timeline, top_operators
from profiling.trace.breakdown import operator_paths, operator_table
from profiling.trace.events import read_trace
from profiling.trace.memory_events import memory_curve
from profiling.trace.trace_index import TraceIndex


def test_the_timeline_has_a_lane_for_phases_calls_and_what_is_inside() -> None:
    phases, calls, inside = timeline(index()).data
    assert [set(lane.y) for lane in (phases, calls, inside)] == [{"phases"}, {"calls"}, {"inside"}]
    assert list(phases.base) == [0.0, 0.110, 0.160]
    assert list(phases.x) == pytest.approx([0.100, 0.040, 0.030])
    assert len(calls.x) == 4
    assert list(inside.x) == [0.040]


def test_without_phases_a_name_has_its_colour() -> None:
    calls = [{"ph": "X", "pid": 1, "tid": 1, "name": n, "ts": t, "dur": 4} for t, n in CALLS]
    trace = read_trace(json.dumps(calls).encode()).index
    (lane,) = timeline(trace).data
    first, second, again = lane.marker.color
    assert first == again != second
    colours = dict(
        zip(*(operator_icicle(operator_paths(trace)).data[0][k] for k in TREE), strict=True)
    )
    assert colours["aten::mm"] == first


CALLS = ((0, "aten::mm"), (10, "aten::add"), (20, "aten::mm"))
TREE = ("labels", "marker.colors")


def many_events(num: int) -> TraceIndex:
    rows = [{"name": "decode", "ts": 0, "dur": num * 2.0, "cat": "user_annotation"}]
    rows += [{"name": "aten::mm", "ts": 2.0 * n, "dur": 1.0, "cat": "cpu_op"} for n in range(num)]
    raw = [{"ph": "X", "pid": 1, "tid": 1, **row} for row in rows]
    return read_trace(json.dumps(raw).encode()).index


def test_a_long_trace_is_drawn_with_a_bounded_number_of_rectangles() -> None:
    figure = timeline(many_events(30_000))
    assert sum(len(lane.x) for lane in figure.data) <= MAX_RECTANGLES
    said = figure.data[1].customdata[0]
    assert "calls, mostly aten::mm" in said


def test_thinning_a_memory_curve_keeps_its_peak() -> None:
    num = 50_000
    level = np.arange(num) % 7.0
    level[31_234] = 900.0
    curve = pd.DataFrame({"ts_us": np.arange(num) * 1.0, "device": "cpu"})
    curve["allocated_bytes"] = level * 1e6
    line = memory_over_time(curve, index()).data[0]
    assert len(line.x) <= MAX_POINTS
    assert max(line.y) == 900.0
    assert list(line.x) == sorted(line.x)


def test_memory_has_a_band_for_each_stay_in_a_phase() -> None:
    trace = index()
    figure = memory_over_time(memory_curve(trace), trace)
    # The two stays in decode are neighbours and share a band.
    assert sorted((band.x0, band.x1) for band in figure.layout.shapes) == [(0, 0.1), (0.11, 0.19)]


def test_the_icicle_holds_all_time_under_one_root() -> None:
    (tree,) = operator_icicle(operator_paths(index(), least_share=0)).data
    assert sum(tree.values) == pytest.approx(0.170)
    assert list(tree.parents).count("") == 1
    assert set(tree.parents) - {""} <= set(tree.ids)


def test_operators_with_one_name_in_two_phases_have_rows_of_their_own() -> None:
    (bars,) = top_operators(operator_table(index())).data
    assert list(bars.y) == [0, 1, 2, 3]
    assert list(bars.x) == sorted(bars.x, reverse=True)


def test_long_names_of_kernels_are_shortened() -> None:
    assert shortened("void at::native::reduce<512, 1>(int)") == "at::native::reduce"
    assert shortened("## Call CompiledFxGraph fabcdefgh ##") == "compiled graph fabcde"
    assert len(shortened("x" * 100)) == 34
