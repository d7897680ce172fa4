"""Two runs -> figures: time and memory of phases side by side, ratios, when compiling pays off.

In: runs and a comparison as their JSON states them. Out: ``go.Figure``; A is always blue, B
always orange.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.phases import PHASES
from core.units import Unit, byte_unit, format_bytes, time_unit
from profiling.figures.style import (
    BAR_PX,
    END_TO_END,
    FIRST,
    FRAME_PX,
    INK,
    OTHER,
    SECOND,
    bars_in,
    colour_of,
    dressed,
    empty,
    named_rows,
    see_through,
    shortened,
    title_of,
    titled,
)

HELD = {
    "weights_bytes": "weights",
    "cache_bytes": "KV cache",
    "activations_bytes": "activations",
    "process_bytes": "whole process",
}
LONGEST_LABEL = 30  # about as much as a phone is wide


def comparison_bars(
    comparison: Mapping[str, Any], labels: tuple[str, str] = ("A", "B")
) -> go.Figure:
    """Draw each phase's bar of A above that of B, with the times of the comparison's table."""
    a_ms, b_ms = (
        {row["name"]: row[key] for row in comparison["phases"] if row.get(key) is not None}
        for key in ("a_ms", "b_ms")
    )
    found = a_ms.keys() | b_ms.keys()
    names = [name for name in (*PHASES, *sorted(found - {*PHASES, OTHER}), OTHER) if name in found]
    if not names:
        return empty("neither run has phases")
    columns = [[times.get(name) for name in names] for times in (a_ms, b_ms)]
    unit = time_unit(max([*a_ms.values(), *b_ms.values()]))
    return _side_by_side(names, columns, labels, unit, unit.write)


def memory_comparison(
    comparison: Mapping[str, Any], labels: tuple[str, str] = ("A", "B")
) -> go.Figure:
    """Draw each phase's peak memory, A above B; whiskers reach from the least run to the most."""
    rows = comparison.get("memory") or ()
    peaks = [[row[f"{arm}_bytes"] for row in rows] for arm in "ab"]
    known = [peak for column in peaks for peak in column if peak is not None]
    if not known:
        return empty("memory was not recorded")
    unit = byte_unit(max(known))
    # Sizes differ a thousandfold: each number has its own unit, as in the table beside it.
    figure = _side_by_side([row["name"] for row in rows], peaks, labels, unit, format_bytes)
    for bars, arm in zip(figure.data, "ab", strict=True):
        ends = [[row[f"{arm}_{key}"] for row in rows] for key in ("high", "bytes", "low")]
        high, middle, low = (unit.scaled(column) for column in ends)
        bars.error_x = {
            "type": "data",
            "symmetric": False,
            "array": [(h or 0) - (m or 0) for h, m in zip(high, middle, strict=True)],
            "arrayminus": [(m or 0) - (w or 0) for m, w in zip(middle, low, strict=True)],
            "color": INK,
        }
    return figure


def _side_by_side(
    names: Sequence[str],
    columns: Sequence[Sequence[float | None]],
    labels: Sequence[str],
    unit: Unit,
    write: Callable[[float], str],
) -> go.Figure:
    """Draw a row a phase with a bar for each run, each with its number beside it, by ``write``."""
    figure = go.Figure()
    for values, label, colour in zip(columns, labels, (FIRST, SECOND), strict=True):
        figure.add_bar(
            name=shortened(label, LONGEST_LABEL),
            x=unit.scaled(values),
            y=[title_of(name) for name in names],
            orientation="h",
            marker={"color": colour},
            text=["" if value is None else write(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{text}<extra>%{fullData.name}</extra>",
        )
    longest = max(value for column in columns for value in column if value is not None)
    figure = bars_in(unit, figure, len(names) * 2 - 1, longest, legend=True)
    return figure.update_layout(barmode="group", bargap=0.2, bargroupgap=0.05)


def memory_held(comparison: Mapping[str, Any], labels: tuple[str, str] = ("A", "B")) -> go.Figure:
    """Draw what the memory of both runs held, and the whole process beside it."""
    found = comparison.get("memory_parts") or {}
    if not found:
        return empty("memory was not recorded")
    columns = [[found.get(arm, {}).get(key) for key in HELD] for arm in "ab"]
    most = max(value for column in columns for value in column if value is not None)
    return _side_by_side(list(HELD.values()), columns, labels, byte_unit(most), format_bytes)


def ratio_intervals(comparison: Mapping[str, Any]) -> go.Figure:
    """Return a chart of b's time over a's per phase with 95 % intervals; a band is the noise.

    Left of 1: b is faster. Phases that one run lacks are left out.
    """
    rows = [
        row
        for row in (*comparison["phases"], {"name": END_TO_END, **comparison["end_to_end"]})
        if row.get("ratio")
    ]
    if not rows:
        return empty("no phase is in both runs")
    names = [title_of(row["name"]) for row in rows]
    ratios = [row["ratio"] for row in rows]
    floors = comparison.get("noise_floor") or {}
    figure = go.Figure()
    for name, row in zip(names, rows, strict=True):
        if row["name"] in floors:
            low, high = floors[row["name"]]
            figure.add_scatter(
                x=[low, high],
                y=[name, name],
                mode="lines",
                line={"color": see_through(INK, 0.35), "width": 14},
                hovertemplate=f"A against itself: {low:.3f} to {high:.3f}<extra></extra>",
            )
    figure.add_scatter(
        x=ratios,
        y=names,
        mode="markers",
        marker={"color": [colour_of(row["name"]) for row in rows], "size": 11},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [row["high"] - row["ratio"] for row in rows],
            "arrayminus": [row["ratio"] - row["low"] for row in rows],
            "color": INK,
            "thickness": 2,
            "width": 5,
        },
        customdata=[row.get("verdict", "") for row in rows],
        hovertemplate="%{y}: %{x:.3f}, %{customdata}<extra></extra>",
    )
    reach = 1.1 * max(abs(math.log10(row[key])) for row in rows for key in ("low", "high", "ratio"))
    reach = max(reach, math.log10(1.1))
    figure.add_vline(x=1, line={"color": INK, "width": 1, "dash": "dot"})
    return dressed(
        figure,
        height=FRAME_PX + BAR_PX * len(rows),
        x=titled("time of B / time of A") | _ratio_axis(reach),
        y=named_rows(len(rows)),
    )


def _ratio_axis(reach: float) -> dict[str, Any]:
    """Return a logarithmic axis around 1, with the marks that fit."""
    marks = (0.01, 0.1, 0.25, 0.5, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 2, 4, 10, 100)
    near = [mark for mark in marks if abs(math.log10(mark)) <= reach]
    far_apart = [mark for mark in near if mark == 1 or abs(math.log10(mark)) > reach / 5]
    return {
        "type": "log",
        "range": [-reach, reach],
        "tickmode": "array",
        "tickvals": far_apart,
        "ticktext": [f"{mark:g}x" for mark in far_apart],
    }


def break_even_lines(comparison: Mapping[str, Any]) -> go.Figure:
    """Draw seconds spent after so many clips, compiling included: it has paid where lines cross."""
    whole = comparison["end_to_end"]
    seconds, clips = comparison.get("compile_seconds"), comparison.get("break_even_clips")
    if not seconds or not clips or not whole.get("a_ms") or not whole.get("b_ms"):
        return empty(str(comparison.get("break_even", "no break-even: nothing was compiled")))
    last = max(4, 2 * clips)
    figure = go.Figure()
    for label, colour, first, each in (
        ("A", FIRST, 0.0, whole["a_ms"]),
        ("B, compiled", SECOND, seconds, whole["b_ms"]),
    ):
        figure.add_scatter(
            name=label,
            x=[0, last],
            y=[first, first + last * each / 1000],
            mode="lines",
            line={"color": colour, "width": 3},
            hovertemplate=f"{label}, %{{x}} clips: %{{y:.1f}} s<extra></extra>",
        )
    figure.add_vline(x=clips, line={"color": INK, "width": 1, "dash": "dot"})
    figure.add_annotation(
        x=clips, y=0, yref="paper", yanchor="bottom", xanchor="left", showarrow=False,
        text=f" {clips} clips",
    )  # fmt: skip
    return dressed(
        figure,
        height=240,
        legend=True,
        x=titled("clips") | {"rangemode": "tozero"},
        y=titled("seconds") | {"rangemode": "tozero"},
    )
