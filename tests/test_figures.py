"""Figures by their data: values, order, and only what plotly.js 3.3 knows."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from core.phases import PHASES
from core.transcript import PhaseTime
from profiling.figures import PHASE_COLOURS, PHASE_TITLES, format_ms, phase_bars, with_other

PHASE_TIMES = [PhaseTime("decode", 30.0), PhaseTime("encoder", 60.0), PhaseTime("decode", 5.0)]

# Trace and layout attributes of plotly.js 3.3 that our figures may use.
TRACE_KEYS = {
    *("type", "x", "y", "orientation", "marker", "text", "textposition", "cliponaxis"),
    "hovertemplate",
}
LAYOUT_KEYS = {
    *("template", "height", "margin", "paper_bgcolor", "plot_bgcolor", "font", "bargap"),
    *("showlegend", "dragmode", "hoverlabel", "xaxis", "yaxis"),
}


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


def test_only_attributes_of_the_bundled_plotly_are_used() -> None:
    plain = phase_bars(PHASE_TIMES, 100.0).to_plotly_json()
    assert all(set(trace) <= TRACE_KEYS for trace in plain["data"])
    assert set(plain["layout"]) <= LAYOUT_KEYS
    assert {trace["type"] for trace in plain["data"]} == {"bar"}


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
