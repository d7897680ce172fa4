"""Phases of a run -> bars.

Other figures: of a run's details :mod:`profiling.figures.run_details`, of several runs
:mod:`profiling.figures.comparison`, of memory :mod:`profiling.figures.memory_curves`, of a trace
:mod:`profiling.figures.trace_views`.

In: numbers whose unit is in their name, or a run as its JSON states it. Out: ``go.Figure``, never
shown or saved; :mod:`profiling.figures.style` says how all figures look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.phases import PHASES
from core.text.transcript import PhaseTime
from profiling.figures.style import (
    INK,
    OTHER,
    colour_of,
    format_ms,
    millisecond_bars,
    title_of,
)


def with_other(phases: Iterable[PhaseTime], end_to_end_ms: float) -> list[PhaseTime]:
    """The phases in the order of :data:`core.phases.PHASES`, then the rest as "other".

    Args:
        phases: times in ms; a phase that occurs twice is added up.
        end_to_end_ms: the whole request. Never less than its phases, but for rounding.
    """
    total: dict[str, float] = {}
    for phase in phases:
        total[phase.name] = total.get(phase.name, 0.0) + phase.ms
    rest = max(0.0, end_to_end_ms - sum(total.values()))
    known = [name for name in PHASES if name in total]
    unknown = [name for name in total if name not in PHASES]
    ordered = [PhaseTime(name, total[name]) for name in (*known, *unknown)]
    return [*ordered, PhaseTime(OTHER, rest)]


def phase_bars(phases: Sequence[PhaseTime], end_to_end_ms: float) -> go.Figure:
    """Where the time of one request went: a horizontal bar per phase, milliseconds along the axis.

    Args:
        phases: times in ms, as in ``Transcript.phases``.
        end_to_end_ms: the whole request; what no phase explains becomes the bar "other".

    Returns:
        One bar trace, first phase on top; the value of each bar is written beside it.
    """
    rows = with_other(phases, end_to_end_ms)
    values = [row.ms for row in rows]
    figure = go.Figure(
        go.Bar(
            x=values,
            y=[title_of(row.name) for row in rows],
            orientation="h",
            marker={"color": [colour_of(row.name) for row in rows]},
            text=[format_ms(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.2f} ms<extra></extra>",
        )
    )
    return millisecond_bars(figure, len(rows), max(values))


def run_bars(run: Mapping[str, Any]) -> go.Figure:
    """:func:`phase_bars` of a run's medians, with a whisker up to the 90th percentile."""
    times = [PhaseTime(row["name"], float(row["median_ms"])) for row in run["phases"]]
    figure = phase_bars([time for time in times if time.name != OTHER], float(run["end_to_end_ms"]))
    p90 = {title_of(row["name"]): row.get("p90_ms") for row in run["phases"]}
    (bars,) = figure.data
    above = [
        max(0.0, (p90.get(name) or value) - value)
        for name, value in zip(bars.y, bars.x, strict=True)
    ]
    bars.error_x = {
        "type": "data",
        "symmetric": False,
        "array": above,
        "arrayminus": [0.0] * len(above),
        "color": INK,
        "thickness": 1.5,
        "width": 4,
    }
    reach = max(value + more for value, more in zip(bars.x, above, strict=True))
    figure.update_xaxes(range=[0, reach * 1.05 if reach > 0 else 1])
    # Numbers would lie on the whiskers.
    bars.text, bars.textposition = None, "none"
    bars.customdata = [[name_p90] for name_p90 in (p90.get(name) for name in bars.y)]
    bars.hovertemplate = "%{y}: median %{x:.2f} ms, p90 %{customdata[0]:.2f} ms<extra></extra>"
    return figure
