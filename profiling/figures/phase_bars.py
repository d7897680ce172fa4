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
from core.units import time_unit
from profiling.figures.style import INK, OTHER, bars_in, colour_of, title_of


def with_other(phases: Iterable[PhaseTime], end_to_end_ms: float) -> list[PhaseTime]:
    """Return one request's phases in the order of the pipeline, then the rest as "other".

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


def phase_rows(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a run's rows of phases in the order of the pipeline, then "other", where it is known.

    "other" is the median, over the runs, of end-to-end time in no phase. Medians of parts do not
    add up to the median of the whole, so it is never what is left between those.
    """
    found = {row["name"]: dict(row) for row in run["phases"]}
    shares = [row["share"] for row in found.values() if row.get("share") is not None]
    if run.get("other_ms") is not None and OTHER not in found:
        share = max(0.0, 1 - sum(shares)) if len(shares) == len(found) else None
        found[OTHER] = {"name": OTHER, "median_ms": run["other_ms"], "share": share}
    known = [name for name in PHASES if name in found]
    unknown = [name for name in found if name not in (*PHASES, OTHER)]
    rest = [OTHER] if OTHER in found else []
    return [found[name] for name in (*known, *unknown, *rest)]


def phase_bars(phases: Sequence[PhaseTime], end_to_end_ms: float) -> go.Figure:
    """Return bars of where the time of one request went, the first phase on top.

    Args:
        phases: times in ms, as in ``Transcript.phases``.
        end_to_end_ms: the whole request; what no phase explains becomes the bar "other".
    """
    return _bars([(row.name, row.ms, row.ms) for row in with_other(phases, end_to_end_ms)])


def run_bars(run: Mapping[str, Any]) -> go.Figure:
    """Draw a run's median time by phase, with whiskers up to the 90th percentile."""
    rows = phase_rows(run)
    medians = [float(row["median_ms"]) for row in rows]
    reach = [float(row.get("p90_ms") or ms) for row, ms in zip(rows, medians, strict=True)]
    names = [row["name"] for row in rows]
    figure = _bars(list(zip(names, medians, reach, strict=True)))
    (bars,) = figure.data
    unit = time_unit(max(reach, default=0.0))
    bars.error_x = {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, far - ms) / unit.size for far, ms in zip(reach, medians, strict=True)],
        "arrayminus": [0.0] * len(rows),
        "color": INK,
        "thickness": 1.5,
        "width": 4,
    }
    # Numbers would lie on the whiskers.
    bars.text, bars.textposition = None, "none"
    bars.customdata = [
        [unit.write(ms), unit.write(row["p90_ms"]) if row.get("p90_ms") else "not known"]
        for row, ms in zip(rows, medians, strict=True)
    ]
    bars.hovertemplate = "%{y}: median %{customdata[0]}, p90 %{customdata[1]}<extra></extra>"
    return figure


def _bars(rows: Sequence[tuple[str, float, float]]) -> go.Figure:
    """Draw bars of (phase, ms, how far the axis must reach in ms)."""
    longest = max((reach for _, _, reach in rows), default=0.0)
    unit = time_unit(longest)
    figure = go.Figure(
        go.Bar(
            x=unit.scaled(ms for _, ms, _ in rows),
            y=[title_of(name) for name, _, _ in rows],
            orientation="h",
            marker={"color": [colour_of(name) for name, _, _ in rows]},
            text=[unit.write(ms) for _, ms, _ in rows],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}}: %{{x:.2f}} {unit.symbol}<extra></extra>",
        )
    )
    return bars_in(unit, figure, len(rows), longest)
