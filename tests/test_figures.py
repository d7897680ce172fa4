"""Figures by their data: values, order, and only what plotly.js 3.3 knows.

Run alone: ``python -m pytest tests/test_figures.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from core.phases import PHASES
from core.transcript import PhaseTime
from profiling.breakdown import memory_curve, operator_paths, operator_table
from profiling.figures import (
    PHASE_COLOURS,
    PHASE_TITLES,
    format_ms,
    phase_bars,
    run_bars,
    with_other,
)
from profiling.figures_compare import (
    break_even_lines,
    comparison_bars,
    phase_pair_bars,
    ratio_intervals,
    scaling_lines,
)
from profiling.figures_memory import MAX_POINTS, memory_bars, memory_over_time
from profiling.figures_run import acceptance_bars, compile_bars, roofline_plot, token_latency
from profiling.figures_style import shortened
from profiling.figures_trace import MAX_RECTANGLES, operator_icicle, timeline, top_operators
from profiling.trace import read_trace

PHASE_TIMES = [PhaseTime("decode", 30.0), PhaseTime("encoder", 60.0), PhaseTime("decode", 5.0)]
TINY = Path(__file__).parent / "data" / "tiny_trace.json"

# Trace types and attributes of plotly.js 3.3 that our figures may use.
TRACE_KEYS = {
    "bar": {
        *("type", "name", "x", "y", "base", "width", "orientation", "marker", "text", "error_x"),
        *("textposition", "insidetextanchor", "cliponaxis", "customdata", "hovertemplate"),
    },
    "scatter": {
        *("type", "name", "x", "y", "mode", "marker", "line", "error_x", "customdata"),
        *("hovertemplate", "hoverinfo"),
    },
    "icicle": {
        *("type", "ids", "labels", "parents", "values", "branchvalues", "marker", "customdata"),
        *("hovertemplate", "textinfo", "tiling", "root", "sort", "leaf"),
    },
}
LAYOUT_KEYS = {
    *("template", "height", "margin", "paper_bgcolor", "plot_bgcolor", "font", "bargap"),
    *("showlegend", "dragmode", "xaxis", "yaxis", "legend", "hoverlabel", "barmode"),
    *("bargroupgap", "shapes", "annotations", "hovermode", "uniformtext"),
}
AXIS_KEYS = {
    *("title", "range", "gridcolor", "linecolor", "zerolinecolor", "zeroline", "tickmode"),
    *("nticks", "exponentformat", "separatethousands", "automargin", "fixedrange", "autorange"),
    *("ticksuffix", "showgrid", "rangemode", "type", "dtick", "tickformat", "tickvals"),
    *("ticktext", "tickfont", "visible"),
}

RUN = {
    "id": "a",
    "phases": [
        {"name": "encoder", "n": 40, "median_ms": 6.0, "p90_ms": 7.0, "iqr_ms": 0.5, "share": 0.3},
        {"name": "decode", "n": 40, "median_ms": 12.0, "p90_ms": 30.0, "iqr_ms": 1.0, "share": 0.6},
    ],
    "end_to_end_ms": 20.0,
}
FASTER = {**RUN, "id": "b", "phases": [{"name": "decode", "median_ms": 4.0}], "end_to_end_ms": 9.0}
COMPARISON = {
    "a": "a",
    "b": "b",
    "phases": [
        {
            "name": "encoder",
            "a_ms": 6.0,
            "b_ms": None,
            "ratio": None,
            "verdict": "not in both runs",
        },
        {
            "name": "decode",
            "a_ms": 12.0,
            "b_ms": 4.0,
            "ratio": 0.33,
            "low": 0.3,
            "high": 0.4,
            "verdict": "3.0x faster, 2.5 to 3.3",
        },
    ],
    "end_to_end": {
        "a_ms": 20.0,
        "b_ms": 9.0,
        "ratio": 0.45,
        "low": 0.4,
        "high": 0.5,
        "verdict": "2.2x faster, 2.0 to 2.5",
    },
    "noise_floor": {"decode": [0.97, 1.03]},
    "tokens_identical": True,
    "compile_seconds": 11.0,
    "break_even_clips": 1000,
    "break_even": "compiling took 11.0 s: pays off after 1000 clips like this one",
}
LEDGER = {
    "entries": [
        {
            "compile_id": "0/0",
            "stage": "encoder",
            "seconds": 10.0,
            "trace_s": 2.0,
            "autograd_s": 1.0,
            "lower_s": 3.0,
            "build_s": 4.0,
            "recompile_reason": None,
        },
        {
            "compile_id": "0/1",
            "stage": "encoder",
            "seconds": 5.0,
            "trace_s": None,
            "autograd_s": None,
            "lower_s": None,
            "build_s": None,
            "recompile_reason": "size mismatch",
        },
    ]
}
ROOFLINE = [
    {
        "name": "decode",
        "flops": 2e9,
        "num_bytes": 4e9,
        "flops_per_s": 1e9,
        "share": 0.4,
        "bound": "memory",
    }
]
CEILINGS = {
    "machine": "this",
    "paper": False,
    "copy_bytes_per_s": 1e10,
    "dtypes": [{"dtype": "float32", "flops_per_s": 1e11, "gemv_bytes_per_s": 2e10}],
}


def events() -> pd.DataFrame:
    return read_trace(TINY).events


def every_figure() -> dict[str, go.Figure]:
    trace = events()
    curve = memory_curve(trace)
    lengths = pd.DataFrame(
        {"audio_s": [3.0, 10.0], "phase": ["end_to_end"] * 2, "median_ms": [90.0, 300.0]}
    )
    return {
        "phase_bars": phase_bars(PHASE_TIMES, 100.0),
        "run_bars": run_bars(RUN),
        "phase_pair_bars": phase_pair_bars(RUN, FASTER),
        "comparison_bars": comparison_bars(COMPARISON),
        "ratio_intervals": ratio_intervals(COMPARISON),
        "break_even_lines": break_even_lines(COMPARISON),
        "scaling_lines": scaling_lines(lengths),
        "token_latency": token_latency([{"index": n, "ms": 2.0 + n} for n in range(40)]),
        "memory_bars": memory_bars([{"phase": "encoder", "peak_bytes": 3e6}]),
        "memory_over_time": memory_over_time(curve, trace),
        "compile_bars": compile_bars(LEDGER),
        "roofline_plot": roofline_plot(ROOFLINE, CEILINGS, "float32"),
        "acceptance_bars": acceptance_bars({"a": {"drafted": 10, "accepted": 8, "passes": 3}}),
        "timeline": timeline(trace),
        "operator_icicle": operator_icicle(operator_paths(trace)),
        "top_operators": top_operators(operator_table(trace)),
        "nothing": compile_bars(None),
    }


FIGURES = every_figure()


def test_phases_come_in_the_order_of_the_pipeline_and_the_rest_is_other() -> None:
    rows = with_other(PHASE_TIMES, end_to_end_ms=100.0)
    assert rows == [PhaseTime("encoder", 60.0), PhaseTime("decode", 35.0), PhaseTime("other", 5.0)]


def test_other_is_never_negative() -> None:
    assert with_other(PHASE_TIMES, end_to_end_ms=94.9)[-1] == PhaseTime("other", 0.0)


def test_one_horizontal_bar_trace_in_milliseconds() -> None:
    figure = phase_bars(PHASE_TIMES, 100.0)
    (bar,) = figure.data
    assert isinstance(bar, go.Bar)
    assert list(bar.x) == [60.0, 35.0, 5.0]
    assert list(bar.y) == ["encoder", "decode", "other"]
    assert list(bar.text) == ["60.0 ms", "35.0 ms", "5.0 ms"]
    assert figure.layout.xaxis.title.text == "milliseconds"
    assert figure.layout.xaxis.range[1] > 60.0
    assert figure.layout.yaxis.autorange == "reversed"


def test_the_ground_is_transparent_and_the_height_follows_the_rows() -> None:
    short, tall = phase_bars(PHASE_TIMES[:1], 50.0), phase_bars(PHASE_TIMES, 100.0)
    assert short.layout.paper_bgcolor == short.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert tall.layout.height > short.layout.height


@pytest.mark.parametrize("name", FIGURES)
def test_only_what_the_bundled_plotly_knows_is_used(name: str) -> None:
    plain = FIGURES[name].to_plotly_json()
    for trace in plain["data"]:
        assert set(trace) <= TRACE_KEYS[trace["type"]]
    layout = plain["layout"]
    assert set(layout) <= LAYOUT_KEYS
    for axis in ("xaxis", "yaxis"):
        assert set(layout.get(axis, {})) <= AXIS_KEYS
    # Later versions changed this default; nobody may depend on it.
    assert name in ("operator_icicle", "nothing") or layout["xaxis"]["tickmode"] != "sync"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_reads_by_day_and_by_night_and_on_a_phone(name: str) -> None:
    layout = FIGURES[name].layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert layout.template.layout.to_plotly_json() == {}
    assert 80 <= layout.height <= 700
    assert layout.width is None
    assert layout.xaxis.automargin or layout.xaxis.visible is False
    assert layout.title.text is None  # the page's business
    assert json.loads(FIGURES[name].to_json())


def test_every_phase_has_a_title_and_a_colour_of_its_own() -> None:
    assert set(PHASES) < set(PHASE_TITLES)
    assert set(PHASES) < set(PHASE_COLOURS)
    assert len({PHASE_COLOURS[name] for name in PHASES}) == len(PHASES)


def test_nothing_measured_is_still_a_figure() -> None:
    assert list(phase_bars([], 0.0).data[0].x) == [0.0]


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0.123, "0.12 ms"), (9.87, "9.9 ms"), (123.4, "123 ms"), (12_345.0, "12.3 s")],
)
def test_milliseconds_for_people(ms: float, text: str) -> None:
    assert format_ms(ms) == text


def test_whiskers_of_a_run_reach_the_90th_percentile_and_fit() -> None:
    figure = run_bars(RUN)
    (bars,) = figure.data
    assert list(bars.y) == ["encoder", "decode", "other"]
    assert list(bars.x) == [6.0, 12.0, 2.0]
    assert list(bars.error_x.array) == [1.0, 18.0, 0.0]
    assert figure.layout.xaxis.range[1] > 30.0


def test_two_runs_stand_side_by_side_and_a_missing_phase_stays_empty() -> None:
    a, b = phase_pair_bars(RUN, FASTER).data
    assert (a.name, b.name) == ("A", "B")
    assert list(a.y) == list(b.y) == ["encoder", "decode", "other"]
    assert list(a.x) == [6.0, 12.0, 2.0]
    assert list(b.x) == [None, 4.0, 5.0]


def test_ratios_have_intervals_a_noise_band_and_leave_out_what_is_not_in_both() -> None:
    band, dots = ratio_intervals(COMPARISON).data
    assert list(band.x) == [0.97, 1.03]
    assert list(dots.y) == ["decode", "end to end"]
    assert list(dots.error_x.array) == pytest.approx([0.07, 0.05])
    assert list(dots.error_x.arrayminus) == pytest.approx([0.03, 0.05])


def test_lines_cross_where_compiling_has_paid() -> None:
    a, b = break_even_lines(COMPARISON).data
    at = np.interp(1000, a.x, a.y), np.interp(1000, b.x, b.y)
    assert at[0] == pytest.approx(at[1])


def test_first_token_is_apart_and_quantiles_need_enough_tokens() -> None:
    tokens = [{"index": 0, "ms": 500.0}, *({"index": n, "ms": 10.0} for n in range(1, 30))]
    names = [trace.name for trace in token_latency(tokens).data]
    assert names == ["token", "median 10.0 ms", "p90 10.0 ms", "first token"]
    assert "p90" not in " ".join(trace.name for trace in token_latency(tokens[:20]).data)


def test_steps_of_compiling_add_up_and_unknown_ones_are_called_so() -> None:
    bars = {bar.name: list(bar.x) for bar in compile_bars(LEDGER).data}
    assert bars["unknown"] == [0.0, 5.0]
    assert sum(values[0] for values in bars.values()) == 10.0
    assert list(compile_bars(LEDGER).data[0].y) == ["encoder 0/0", "encoder 0/1 again"]


def test_the_roof_bends_where_memory_stops_to_bind() -> None:
    roof, decode = roofline_plot(ROOFLINE, CEILINGS, "float32").data
    assert roof.x[1] == pytest.approx(1e11 / 2e10)
    assert roof.y[1] == roof.y[2] == pytest.approx(100.0)  # GFLOP/s
    assert (decode.x[0], decode.y[0]) == (0.5, 1.0)


def test_the_timeline_has_a_lane_for_phases_calls_and_what_is_inside() -> None:
    phases, calls, inside = timeline(events()).data
    assert [set(lane.y) for lane in (phases, calls, inside)] == [{"phases"}, {"calls"}, {"inside"}]
    assert list(phases.base) == [0.0, 0.110, 0.160]
    assert list(phases.x) == pytest.approx([0.100, 0.040, 0.030])
    assert len(calls.x) == 4
    assert list(inside.x) == [0.040]


def test_without_phases_a_name_has_its_colour() -> None:
    calls = [{"ph": "X", "pid": 1, "tid": 1, "name": n, "ts": t, "dur": 4} for t, n in CALLS]
    trace = read_trace(json.dumps(calls).encode()).events
    (lane,) = timeline(trace).data
    first, second, again = lane.marker.color
    assert first == again != second
    colours = dict(
        zip(*(operator_icicle(operator_paths(trace)).data[0][k] for k in TREE), strict=True)
    )
    assert colours["aten::mm"] == first


CALLS = ((0, "aten::mm"), (10, "aten::add"), (20, "aten::mm"))
TREE = ("labels", "marker.colors")


def many_events(num: int) -> pd.DataFrame:
    rows = [{"name": "decode", "ts": 0, "dur": num * 2.0, "cat": "user_annotation"}]
    rows += [{"name": "aten::mm", "ts": 2.0 * n, "dur": 1.0, "cat": "cpu_op"} for n in range(num)]
    raw = [{"ph": "X", "pid": 1, "tid": 1, **row} for row in rows]
    return read_trace(json.dumps(raw).encode()).events


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
    line = memory_over_time(curve, events()).data[0]
    assert len(line.x) <= MAX_POINTS
    assert max(line.y) == 900.0
    assert list(line.x) == sorted(line.x)


def test_memory_has_a_band_for_each_stay_in_a_phase() -> None:
    trace = events()
    figure = memory_over_time(memory_curve(trace), trace)
    # The two stays in decode are neighbours and share a band.
    assert sorted((band.x0, band.x1) for band in figure.layout.shapes) == [(0, 0.1), (0.11, 0.19)]


def test_the_icicle_holds_all_time_under_one_root() -> None:
    (tree,) = operator_icicle(operator_paths(events(), least_share=0)).data
    assert sum(tree.values) == pytest.approx(0.170)
    assert list(tree.parents).count("") == 1
    assert set(tree.parents) - {""} <= set(tree.ids)


def test_operators_with_one_name_in_two_phases_have_rows_of_their_own() -> None:
    (bars,) = top_operators(operator_table(events())).data
    assert list(bars.y) == [0, 1, 2, 3]
    assert list(bars.x) == sorted(bars.x, reverse=True)


@pytest.mark.parametrize(
    ("figure", "reason"),
    [
        (token_latency([]), "fewer than two"),
        (memory_bars([]), "not recorded"),
        (compile_bars({"entries": []}), "nothing was compiled"),
        (roofline_plot(ROOFLINE, CEILINGS, "int4"), "no timed phase"),
        (acceptance_bars({}), "no run used drafts"),
        (break_even_lines({**COMPARISON, "break_even_clips": None}), "compiling took"),
        (ratio_intervals({**COMPARISON, "phases": [], "end_to_end": {}}), "no phase"),
        (operator_icicle(operator_paths(events().iloc[:0])), "no calls"),
        (top_operators(operator_table(events().iloc[:0])), "no operators"),
        (timeline(events().iloc[:0]), "no calls"),
        (memory_over_time(memory_curve(events().iloc[:0]), events().iloc[:0]), "not recorded"),
        (scaling_lines(pd.DataFrame({"audio_s": [], "phase": [], "median_ms": []})), "no runs"),
    ],
)
def test_what_is_absent_is_said_and_not_drawn(figure: go.Figure, reason: str) -> None:
    assert not figure.data
    assert reason in figure.layout.annotations[0].text


def test_long_names_of_kernels_are_shortened() -> None:
    assert shortened("void at::native::reduce<512, 1>(int)") == "at::native::reduce"
    assert shortened("## Call CompiledFxGraph fabcdefgh ##") == "compiled graph fabcde"
    assert len(shortened("x" * 100)) == 34
