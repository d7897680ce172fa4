"""Figures of one run by their data: phases, tokens, compiling, roofline.

Run alone: ``python -m pytest tests/test_figures_run.py``.
"""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from core.text.transcript import PhaseTime
from core.units import format_bytes, format_ms
from figure_inputs import CEILINGS, LEDGER, PHASE_TIMES, ROOFLINE, RUN
from profiling.figures.phase_bars import phase_bars, phase_rows, run_bars, with_other
from profiling.figures.run_details import compile_bars, roofline_plot, token_latency


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


def test_nothing_measured_is_still_a_figure() -> None:
    assert list(phase_bars([], 0.0).data[0].x) == [0.0]


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0.123, "0.12 ms"), (9.87, "9.9 ms"), (123.4, "123 ms"), (12_345.0, "12.3 s")],
)
def test_milliseconds_for_people(ms: float, text: str) -> None:
    assert format_ms(ms) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999.6e6, "1,000 MB"), (3e6, "3 MB"), (1.234e9, "1.23 GB"), (2e12, "2,000 GB")],
)
def test_bytes_for_people(num_bytes: float, text: str) -> None:
    assert format_bytes(num_bytes) == text


def test_all_numbers_of_an_axis_have_its_unit() -> None:
    figure = phase_bars([PhaseTime("encoder", 500.0), PhaseTime("decode", 20_000.0)], 20_502.0)
    (bar,) = figure.data
    assert figure.layout.xaxis.title.text == "seconds"
    assert list(bar.x) == [0.5, 20.0, pytest.approx(0.002)]
    assert list(bar.text) == ["0.5 s", "20 s", "0.002 s"]


def test_a_run_has_one_other_in_bars_and_table_alike() -> None:
    (row,) = (row for row in phase_rows(RUN) if row["name"] == "other")
    assert row["median_ms"] == 1.5
    assert row["share"] == pytest.approx(0.1)
    assert "other" not in [row["name"] for row in phase_rows({**RUN, "other_ms": None})]


def test_whiskers_of_a_run_reach_the_90th_percentile_and_fit() -> None:
    figure = run_bars(RUN)
    (bars,) = figure.data
    assert list(bars.y) == ["encoder", "decode", "other"]
    assert list(bars.x) == [6.0, 12.0, 1.5]  # what the run says, not 20 less the others
    assert list(bars.error_x.array) == [1.0, 18.0, 0.0]
    assert figure.layout.xaxis.range[1] > 30.0


def test_the_chart_of_tokens_says_the_run_s_own_inter_token_latency() -> None:
    tokens = [{"index": n, "ms": 10.0} for n in range(1, 30)]
    waits = {"median": 9.5, "p90": 12.0}
    names = [trace.name for trace in token_latency(tokens, waits).data]
    assert names == ["token", "median 9.5 ms", "p90 12.0 ms"]
    assert [trace.name for trace in token_latency(tokens).data] == ["token"]


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
