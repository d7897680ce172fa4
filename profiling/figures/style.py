"""The style of every figure in Plotly.js 3.3, light and dark, down to 390 px: colours, layout.

In: a figure with its traces. Out: the same figure, dressed: no template, a transparent ground, and
mid-grey ink that reads on white and on near-black. Titles are the page's business.
"""

from __future__ import annotations

import zlib
from typing import Any

import plotly.graph_objects as go

from core.units import Unit

OTHER = "other"  # time outside every phase
END_TO_END = "end_to_end"
AFTER_PREFILL = "after_prefill"  # whatever makes the tokens: decode, or draft and verify

PHASE_TITLES = {
    "load": "load model",
    "decode_audio": "read audio",
    "features": "features",
    "encoder": "encoder",
    "ctc_decode": "CTC decode",
    "projector": "projector",
    "draft": "draft",
    "edit": "edit",
    "prefill": "prefill",
    "verify": "verify",
    "decode": "decode",
    "detokenize": "detokenize",
    OTHER: OTHER,
    END_TO_END: "end to end",
    AFTER_PREFILL: "all after prefill",
}

# Okabe and Ito (2008), told apart with every common colour blindness; the order puts unlike colours
# beside each other. Names stand beside the bars, so colour never carries the meaning alone.
PHASE_COLOURS = {
    "load": "#999999",
    "decode_audio": "#56b4e9",
    "features": "#009e73",
    "encoder": "#0072b2",
    "ctc_decode": "#44aa99",
    "projector": "#cc79a7",
    "draft": "#b8860b",
    "edit": "#d4662a",
    "prefill": "#e69f00",
    "verify": "#8c6bb1",
    "decode": "#d55e00",
    "detokenize": "#4aa564",
    OTHER: "#8d8d8d",
}
FIRST, SECOND = "#0072b2", "#e69f00"  # run A and run B
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")

INK = "#7d8590"  # contrast above 3.8:1 on white and on #161616
GRID = "rgba(125, 133, 144, 0.25)"
CLEAR = "rgba(0,0,0,0)"
BAR_PX, FRAME_PX = 30, 58  # height of one bar's row, and of axis and margins together
LEGEND_ROW_PX = 21  # on a phone two names fit beside each other


def title_of(phase: str) -> str:
    """Return a phase's name as people read it."""
    return PHASE_TITLES.get(phase, phase)


def colour_of(phase: str) -> str:
    """Return a phase's one colour."""
    return PHASE_COLOURS.get(phase, INK)


def colour_by_name(name: str) -> str:
    """Return a colour for a call of a trace without phases: the same name, the same colour."""
    return SERIES[zlib.crc32(name.encode()) % len(SERIES)]


def see_through(colour: str, opacity: float) -> str:
    """Return a "#rrggbb" colour with opacity 0 to 1."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def shortened(name: str, length: int = 34) -> str:
    """Shorten a name for a label, without graph hashes and template arguments."""
    if name.startswith("## Call CompiledFxGraph"):
        return f"compiled graph {name.split()[3][:6]}"
    name = name.removeprefix("nn.Module: ").removeprefix("void ").split("<")[0].split("(")[0]
    return name if len(name) <= length else f"{name[: length - 1]}…"


def dressed(
    figure: go.Figure,
    *,
    height: int,
    legend: bool = False,
    x: dict[str, Any] | None = None,
    y: dict[str, Any] | None = None,
) -> go.Figure:
    """Give the figure its layout.

    Args:
        figure: with its traces.
        height: in pixels, without the legend.
        legend: with a legend above.
        x: settings of the axis that differ from the usual ones.
        y: likewise.

    Returns:
        The same figure.
    """
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 4, "r": 8, "t": 6, "b": 4},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "IBM Plex Sans, system-ui, sans-serif", "size": 13, "color": INK},
        showlegend=legend,
        hoverlabel={"align": "left", "font": {"size": 13}},
        dragmode=False,
    )
    if any(trace.type == "bar" for trace in figure.data):
        figure.update_layout(bargap=0.35)
    if legend:
        num_rows = (sum(bool(trace.name) for trace in figure.data) + 1) // 2
        place = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
        figure.update_layout(
            height=height + 10 + LEGEND_ROW_PX * num_rows,
            legend={**place, "bgcolor": CLEAR, "traceorder": "normal"},
        )
    usual = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zerolinecolor": GRID,
        "tickmode": "auto",
        "nticks": 5,
        "exponentformat": "none",
        "separatethousands": True,
        "automargin": True,
        "fixedrange": True,
    }
    figure.update_xaxes(**{**usual, **(x or {})})
    figure.update_yaxes(**{**usual, **(y or {})})
    return figure


def titled(text: str) -> dict[str, Any]:
    """Return an axis title close to its axis."""
    return {"title": {"text": text, "standoff": 6, "font": {"size": 13}}}


def named_rows(num_rows: int) -> dict[str, Any]:
    """Return settings of a y axis that names rows, the first on top."""
    return {
        "autorange": "reversed",
        "ticksuffix": " ",
        "showgrid": False,
        "zeroline": False,
        "nticks": num_rows + 1,
    }


def logarithmic() -> dict[str, Any]:
    """Return settings of a logarithmic axis with plain numbers at powers of ten."""
    return {"type": "log", "tickmode": "linear", "dtick": 1, "tickformat": "~g"}


def bars_in(
    unit: Unit, figure: go.Figure, num_rows: int, longest: float, *, legend: bool = False
) -> go.Figure:
    """Give horizontal bars their layout, with room for the number beside the longest.

    Args:
        unit: in which the bars are drawn.
        figure: with its traces.
        num_rows: how many bars lie above each other.
        longest: in milliseconds or bytes.
        legend: with a legend above.

    Returns:
        The same figure.
    """
    reach = 1.3 * longest / unit.size
    return dressed(
        figure,
        height=FRAME_PX + BAR_PX * num_rows,
        legend=legend,
        x=titled(unit.title) | {"range": [0, reach or 1]},
        y=named_rows(num_rows),
    )


def empty(reason: str) -> go.Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = go.Figure()
    hidden = {"visible": False}
    figure.add_annotation(
        text=reason, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 13}
    )
    return dressed(figure, height=90, x=hidden, y=hidden)
