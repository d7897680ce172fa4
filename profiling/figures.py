"""Tables -> Plotly figures: pure functions that return a figure and never show or save one.

In: numbers whose unit is in their name. Out: ``go.Figure`` for the Plotly.js 3.3 that Gradio ships:
no template, a transparent ground, and mid-grey ink that reads on white and on near-black. Titles
are the page's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from core.phases import PHASES
from core.transcript import PhaseTime

OTHER = "other"  # end-to-end time outside every phase

PHASE_TITLES = {
    "load": "load model",
    "decode_audio": "read audio",
    "features": "features",
    "encoder": "encoder",
    "projector": "projector",
    "draft": "draft",
    "prefill": "prefill",
    "verify": "verify",
    "decode": "decode",
    "detokenize": "detokenize",
    OTHER: OTHER,
}

# Okabe and Ito (2008), told apart with every common colour blindness; the order puts unlike colours
# beside each other. Names stand beside the bars, so colour never carries the meaning alone.
PHASE_COLOURS = {
    "load": "#999999",
    "decode_audio": "#56b4e9",
    "features": "#009e73",
    "encoder": "#0072b2",
    "projector": "#cc79a7",
    "draft": "#b8860b",
    "prefill": "#e69f00",
    "verify": "#8c6bb1",
    "decode": "#d55e00",
    "detokenize": "#4aa564",
    OTHER: "#8d8d8d",
}

INK = "#7d8590"  # contrast above 3.8:1 on white and on #161616
GRID = "rgba(125, 133, 144, 0.25)"
BAR_PX, FRAME_PX = 30, 58  # height of one bar's row, and of axis and margins together


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
            y=[PHASE_TITLES.get(row.name, row.name) for row in rows],
            orientation="h",
            marker={"color": [PHASE_COLOURS.get(row.name, INK) for row in rows]},
            text=[format_ms(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.2f} ms<extra></extra>",
        )
    )
    return _dressed(figure, num_rows=len(rows), longest=max(values))


def format_ms(value: float) -> str:
    """Milliseconds for a label: three digits that matter, seconds from ten thousand up."""
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    if value >= 100:
        return f"{value:.0f} ms"
    return f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


def _dressed(figure: go.Figure, *, num_rows: int, longest: float) -> go.Figure:
    """Layout of a horizontal bar chart that reads at 390 px, by day and by night."""
    figure.update_layout(
        template="none",
        height=FRAME_PX + BAR_PX * num_rows,
        margin={"l": 4, "r": 8, "t": 6, "b": 4},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "IBM Plex Sans, system-ui, sans-serif", "size": 13, "color": INK},
        bargap=0.35,
        showlegend=False,
        dragmode=False,
    )
    figure.update_xaxes(
        title={"text": "milliseconds", "standoff": 6, "font": {"size": 13}},
        # Room for the number beside the longest bar.
        range=[0, longest * 1.3 if longest > 0 else 1],
        gridcolor=GRID,
        zerolinecolor=GRID,
        tickmode="auto",
        nticks=5,
        exponentformat="none",
        separatethousands=True,
        automargin=True,
        fixedrange=True,
    )
    figure.update_yaxes(
        autorange="reversed", ticksuffix=" ", automargin=True, fixedrange=True, showgrid=False
    )
    return figure
