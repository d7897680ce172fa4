"""Memory -> figures: over time with a band for each phase, and the peak of each phase.

In: the curve of :mod:`profiling.trace.memory_events` with the trace's index, or the peaks in
``run.json``. Out: ``go.Figure``; where nothing was recorded, one that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from core.units import Unit, byte_unit, format_bytes, time_unit
from profiling.figures.style import (
    FIRST,
    INK,
    SECOND,
    bars_in,
    colour_of,
    dressed,
    empty,
    see_through,
    shortened,
    title_of,
    titled,
)
from profiling.trace.memory_events import extremes
from profiling.trace.snapshot_peak import Peak
from profiling.trace.trace_index import TraceIndex

MAX_POINTS = 4000
MAX_BANDS = 120
NS_PER_MS = 1e6


def memory_over_time(curve: pd.DataFrame, index: TraceIndex) -> go.Figure:
    """Return a chart of memory over time, with a band for each phase; no peak is thinned out.

    Args:
        curve: of :func:`profiling.trace.memory_events.memory_curve`.
        index: of the same trace, for the bands.
    """
    if curve.empty:
        return empty("memory was not recorded in this trace")
    unit = byte_unit(curve["allocated_bytes"].abs().max())
    times = time_unit(curve["ts_us"].max() / 1000)
    figure = go.Figure()
    dashes = cycle(("solid", "dash", "dot"))
    for device, dash in zip(dict.fromkeys(curve["device"]), dashes, strict=False):
        rows = curve[curve["device"] == device]
        moments = rows["ts_us"].to_numpy() / 1000 / times.size
        levels = rows["allocated_bytes"].to_numpy() / unit.size
        kept = extremes(levels, MAX_POINTS)
        figure.add_scatter(
            name=device,
            x=moments[kept].tolist(),
            y=levels[kept].tolist(),
            mode="lines",
            line={"color": INK, "width": 1.5, "shape": "hv", "dash": dash},
            hovertemplate=f"%{{x:.2f}} {times.symbol}: %{{y:.3f}} {unit.symbol}<extra></extra>",
        )
    segments = [
        (str(phase), start / NS_PER_MS, end / NS_PER_MS)
        for phase, start, end in index.segments.itertuples(index=False)
    ]
    add_phase_bands(figure, segments, times)
    return dressed(
        figure,
        height=280,
        legend=True,
        x=titled(times.title),
        y=titled(f"{unit.symbol} above the start"),
    )


def memory_of_both(
    curves: Sequence[Mapping[str, Sequence[float]] | None], labels: Sequence[str] = ("A", "B")
) -> go.Figure:
    """Draw the allocated memory of two runs over time on one axis.

    Args:
        curves: ``ms`` and ``bytes`` of each, as ``run.json`` keeps them; None without one.
        labels: what to call the runs.

    Returns:
        The figure.
    """
    known = [curve for curve in curves if curve and curve["bytes"]]
    if not known:
        return empty("memory was not recorded")
    unit = byte_unit(max(max(curve["bytes"]) for curve in known))
    times = time_unit(max(max(curve["ms"]) for curve in known))
    figure = go.Figure()
    for curve, label, colour in zip(curves, labels, (FIRST, SECOND), strict=True):
        if curve:
            figure.add_scatter(
                name=shortened(label),
                x=times.scaled(curve["ms"]),
                y=unit.scaled(curve["bytes"]),
                mode="lines",
                line={"color": colour, "width": 2, "shape": "hv"},
                hovertemplate=f"%{{x:.2f}} {times.symbol}: %{{y:.3f}} {unit.symbol}"
                "<extra>%{fullData.name}</extra>",
            )
    return dressed(
        figure,
        height=260,
        legend=True,
        x=titled(times.title),
        y=titled(f"{unit.symbol} above the start") | {"rangemode": "tozero"},
    )


def snapshot_over_time(peak: Peak) -> go.Figure:
    """Draw what a device held after each event of a memory snapshot; its highest moment marked."""
    if len(peak.levels) < 2:
        return empty("the snapshot holds no history: only what was in use when it was taken")
    unit, times = byte_unit(float(peak.bytes)), time_unit(float(peak.times_us[-1]) / 1000)
    moments, levels = peak.times_us / 1000 / times.size, peak.levels / unit.size
    kept = extremes(levels, MAX_POINTS)
    hover = f"%{{x:.2f}} {times.symbol}: %{{y:.3f}} {unit.symbol}<extra></extra>"
    figure = go.Figure()
    figure.add_scatter(
        name=f"cuda:{peak.device}",
        x=moments[kept].tolist(),
        y=levels[kept].tolist(),
        mode="lines",
        line={"color": INK, "width": 1.5, "shape": "hv"},
        hovertemplate=hover,
    )
    figure.add_scatter(
        name="peak",
        x=[peak.peak_us / 1000 / times.size],
        y=[peak.bytes / unit.size],
        mode="markers",
        marker={"color": SECOND, "size": 9},
        hovertemplate=hover,
    )
    bands = [(name, start / 1000, end / 1000) for name, start, end in peak.phases]
    add_phase_bands(figure, bands, times)
    return dressed(
        figure,
        height=280,
        legend=True,
        x=titled(times.title),
        y=titled(f"{unit.symbol} in use") | {"rangemode": "tozero"},
    )


Band = tuple[str, float, float]  # phase, start and end in milliseconds


def add_phase_bands(figure: go.Figure, spans: Sequence[Band], times: Unit) -> None:
    """Shade the phases behind a curve over time, and name them in the legend.

    Args:
        figure: changed.
        spans: in order, none overlapping.
        times: the unit of the axis.
    """
    bands = [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": start / times.size,
            "x1": end / times.size,
            "y0": 0,
            "y1": 1,
            "fillcolor": see_through(colour_of(phase), 0.25),
            "line": {"width": 0},
            "layer": "below",
        }
        for phase, start, end in _joined(spans)
    ]
    figure.update_layout(shapes=bands)  # at once: Plotly checks all of them anew for each one added
    for phase in dict.fromkeys(phase for phase, _, _ in spans):
        figure.add_scatter(
            name=title_of(phase),
            x=[None],
            y=[None],
            mode="markers",
            marker={"color": colour_of(phase), "size": 10, "symbol": "square"},
        )


def _joined(spans: Sequence[Band]) -> list[Band]:
    """Join neighbouring spans of a phase; at most :data:`MAX_BANDS`, longest first."""
    bands: list[Band] = []
    for phase, start, end in spans:
        if bands and bands[-1][0] == phase:
            bands[-1] = (phase, bands[-1][1], end)
        else:
            bands.append((phase, start, end))
    return sorted(bands, key=lambda band: band[1] - band[2])[:MAX_BANDS]


def memory_bars(memory: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw the most memory each phase needed above what was there when it began."""
    rows = [row for row in memory if row.get("peak_bytes") is not None]
    if not rows:
        return empty("memory was not recorded")
    peaks = [float(row["peak_bytes"]) for row in rows]
    unit = byte_unit(max(peaks))
    figure = go.Figure(
        go.Bar(
            x=unit.scaled(peaks),
            y=[title_of(row["phase"]) for row in rows],
            orientation="h",
            marker={"color": [colour_of(row["phase"]) for row in rows]},
            text=[format_bytes(peak) for peak in peaks],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    return bars_in(unit, figure, len(rows), max(peaks))
