"""All figures alike: only what plotly.js 3.3 knows, by day, by night and on a phone; or a reason.

Run alone: ``python -m pytest tests/test_figures.py``.
"""

from __future__ import annotations

import json

import plotly.graph_objects as go
import pytest

from core.families import FAMILIES
from figure_inputs import CEILINGS, COMPARISON, LEDGER, PHASE_TIMES, ROOFLINE, RUN, index
from profiling.figures.comparison import (
    break_even_lines,
    comparison_bars,
    ratio_intervals,
)
from profiling.figures.memory_curves import memory_bars, memory_over_time
from profiling.figures.phase_bars import phase_bars, run_bars
from profiling.figures.run_details import (
    acceptance_bars,
    compile_bars,
    roofline_plot,
    token_latency,
)
from profiling.figures.style import PHASE_COLOURS, PHASE_TITLES
from profiling.figures.trace_views import operator_icicle, timeline, top_operators
from profiling.trace.breakdown import operator_paths, operator_table
from profiling.trace.memory_events import memory_curve
from profiling.trace.trace_index import TraceIndex

# Of the families that come with it; tests may register their own later.
OUR_PHASES = {name for family in FAMILIES.values() for name in family.phases}

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
    *("bargroupgap", "shapes", "annotations", "hovermode", "uniformtext", "uirevision"),
}
AXIS_KEYS = {
    *("title", "range", "gridcolor", "linecolor", "zerolinecolor", "zeroline", "tickmode"),
    *("nticks", "exponentformat", "separatethousands", "automargin", "fixedrange", "autorange"),
    *("ticksuffix", "showgrid", "rangemode", "type", "dtick", "tickformat", "tickvals"),
    *("ticktext", "tickfont", "visible"),
}


def every_figure() -> dict[str, go.Figure]:
    trace = index()
    curve = memory_curve(trace)
    return {
        "phase_bars": phase_bars(PHASE_TIMES, 100.0),
        "run_bars": run_bars(RUN),
        "comparison_bars": comparison_bars(COMPARISON),
        "ratio_intervals": ratio_intervals(COMPARISON),
        "break_even_lines": break_even_lines(COMPARISON),
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
EMPTY = TraceIndex(index().events.iloc[:0])


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
    assert set(PHASE_TITLES) > OUR_PHASES
    assert set(PHASE_COLOURS) > OUR_PHASES
    assert len({PHASE_COLOURS[name] for name in OUR_PHASES}) == len(OUR_PHASES)


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
        (operator_icicle(operator_paths(EMPTY)), "no calls"),
        (top_operators(operator_table(EMPTY)), "no operators"),
        (timeline(EMPTY), "no calls"),
        (memory_over_time(memory_curve(EMPTY), EMPTY), "not recorded"),
    ],
)
def test_what_is_absent_is_said_and_not_drawn(figure: go.Figure, reason: str) -> None:
    assert not figure.data
    assert reason in figure.layout.annotations[0].text
