"""One workload over time -> figures: a line of medians with intervals, changes marked.

In: a history of :mod:`profiling.statistics.history` as its JSON states it. Out: ``go.Figure``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.units import time_unit
from profiling.figures.style import (
    END_TO_END,
    INK,
    SECOND,
    colour_of,
    dressed,
    see_through,
    title_of,
    titled,
)


def history_line(history: Mapping[str, Any], phase: str = END_TO_END) -> go.Figure:
    """Draw a phase's median and interval run by run; hollow where the machine was busy."""
    points = [point for point in history["points"] if phase in point["medians"]]
    middles, lows, highs = zip(*(point["medians"][phase] for point in points), strict=True)
    unit = time_unit(max(filter(None, (*middles, *highs))))
    colour = INK if phase == END_TO_END else colour_of(phase)
    when = [point["created"] for point in points]
    figure = go.Figure()
    for bounds, fill in ((lows, None), (highs, "tonexty")):
        figure.add_scatter(
            x=when,
            y=unit.scaled(bounds),
            mode="lines",
            line={"width": 0},
            fill=fill,
            fillcolor=see_through(colour, 0.2),
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=when,
        y=unit.scaled(middles),
        mode="lines+markers",
        line={"color": colour},
        marker={"symbol": ["circle-open" if point["busy"] else "circle" for point in points]},
        customdata=[[point["id"], versions_said(point["versions"])] for point in points],
        hovertemplate=f"{title_of(phase)} %{{y:,.4g}} {unit.symbol}<br>%{{customdata[0]}}"
        "<br>%{customdata[1]}<extra></extra>",
    )
    for change in history["changes"]:
        if any(step["phase"] == phase for step in change["steps"]):
            figure.add_vline(x=change["created"], line={"color": SECOND, "dash": "dash"})
    y = titled(unit.title) | {"rangemode": "tozero"}
    return dressed(figure, height=220, x={"type": "date"}, y=y)


def versions_said(versions: Mapping[str, str]) -> str:
    """Write versions in a line, commits shortened."""
    return ", ".join(f"{name} {value[:12]}" for name, value in versions.items())


def changed_phases(history: Mapping[str, Any]) -> Sequence[str]:
    """Return the phases that changed, in the order they did; without the whole."""
    steps = [step["phase"] for change in history["changes"] for step in change["steps"]]
    return [name for name in dict.fromkeys(steps) if name != END_TO_END]
