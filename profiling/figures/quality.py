"""Variants -> a figure: error rate against speed, with both intervals and the frontier.

In: scores as their JSON states them. Out: ``go.Figure``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.units import format_bytes
from profiling.figures.style import FIRST, INK, SECOND, dressed, empty, logarithmic, titled

LEAST_PX, MOST_PX = 10, 36  # of a point; its area grows with memory
HEIGHT_PX = 420
MOST_NAMED = 8  # points that have their name beside them
LOG_FROM = 10.0  # fastest over slowest


def error_against_speed(rows: Sequence[Mapping[str, Any]], best: Sequence[str] = ()) -> go.Figure:
    """Draw one point a variant.

    Args:
        rows: of scores; those without an error rate or a speed are left out.
        best: names of the variants on the frontier, slowest first.

    Returns:
        The figure.
    """
    known = [row for row in rows if row.get("wer") is not None and row.get("rtfx") is not None]
    if not known:
        return empty("No variant has a text yet.")
    by_name = {row["variant"]: row for row in known}
    line = [by_name[name] for name in best if name in by_name]
    figure = go.Figure()
    figure.add_scatter(
        x=[row["rtfx"] for row in line],
        y=[100 * row["wer"] for row in line],
        mode="lines",
        line={"color": SECOND, "width": 2, "shape": "vh"},
        name="frontier: none is faster and better",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[row["rtfx"] for row in known],
        y=[100 * row["wer"] for row in known],
        error_x=_bars(known, "rtfx", 1.0),
        error_y=_bars(known, "wer", 100.0),
        mode="markers+text" if len(known) <= MOST_NAMED else "markers",
        text=[row["variant"] for row in known],
        textposition="top center",
        cliponaxis=False,
        textfont={"size": 12},
        marker={"size": _sizes(known), "color": FIRST, "opacity": 0.75},
        customdata=[[_memory(row), row["done"], row["total"]] for row in known],
        hovertemplate="%{text}<br>WER %{y:.2f} %<br>RTFx %{x:.1f}<br>%{customdata[0]}"
        "<br>%{customdata[1]} of %{customdata[2]} recordings<extra></extra>",
        name="a variant; area by peak memory",
    )
    speeds = [row["rtfx"] for row in known]
    wide = max(speeds) > LOG_FROM * min(speeds)
    across = titled("RTFx: seconds of sound per second of work")
    return dressed(
        figure,
        height=HEIGHT_PX,
        legend=True,
        x=across | (logarithmic() if wide else {"rangemode": "tozero"}),
        y=titled("word error rate, %") | {"rangemode": "tozero"},
    )


def _bars(rows: Sequence[Mapping[str, Any]], key: str, scale: float) -> dict[str, Any]:
    """Return error bars; none for a row that has no interval."""
    ends = [row.get(f"{key}_interval") or (row[key], row[key]) for row in rows]
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * (high - row[key]) for row, (_, high) in zip(rows, ends, strict=True)],
        "arrayminus": [scale * (row[key] - low) for row, (low, _) in zip(rows, ends, strict=True)],
        "color": INK,
        "thickness": 1.5,
        "width": 4,
    }


def _sizes(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    most = max((row.get("peak_bytes") or 0 for row in rows), default=0)
    return [
        max(LEAST_PX, MOST_PX * ((row.get("peak_bytes") or 0) / most) ** 0.5) if most else LEAST_PX
        for row in rows
    ]


def _memory(row: Mapping[str, Any]) -> str:
    peak = row.get("peak_bytes")
    return "memory not known" if peak is None else f"{format_bytes(peak)} at most"
