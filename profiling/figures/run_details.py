"""One run's details -> figures: tokens, compiling, roofline, drafts.

In: parts of ``run.json``, of a ledger and of roofline rows, as their JSON states them. Out:
``go.Figure``; where the run has nothing to draw, one that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.units import time_unit
from profiling.figures.style import (
    BAR_PX,
    FRAME_PX,
    INK,
    SERIES,
    colour_of,
    dressed,
    empty,
    logarithmic,
    named_rows,
    shortened,
    title_of,
    titled,
)

STEPS = {
    "trace_s": "tracing",
    "autograd_s": "autograd",
    "lower_s": "fusing",
    "build_s": "building",
}
UNKNOWN_STEP = "unknown"


def token_latency(
    tokens: Sequence[Mapping[str, Any]], inter_token_ms: Mapping[str, float] | None = None
) -> go.Figure:
    """Return a chart of the time of each new token after the first, with median and p90.

    Args:
        tokens: {"index", "ms"} each; the first new token is no. 0 and is not drawn.
        inter_token_ms: {"median", "p90"} of the run's metrics, so that chart and number agree.
    """
    later = [token for token in tokens if token["index"] != 0]
    if not later:
        return empty("fewer than two new tokens: there is no time between tokens")
    index, ms = ([token[key] for token in later] for key in ("index", "ms"))
    unit = time_unit(max(ms))
    figure = go.Figure()
    figure.add_scatter(
        name="token",
        x=index,
        y=unit.scaled(ms),
        mode="markers" if len(later) > 200 else "lines+markers",
        marker={"color": colour_of("decode"), "size": 5},
        line={"color": colour_of("decode"), "width": 1},
        hovertemplate=f"token %{{x}}: %{{y:.2f}} {unit.symbol}<extra></extra>",
    )
    for name, dash in (("median", "solid"), ("p90", "dash")):
        if inter_token_ms:
            value = inter_token_ms[name]
            figure.add_scatter(
                name=f"{name} {unit.write(value)}",
                x=[min(index), max(index)],
                y=unit.scaled([value, value]),
                mode="lines",
                line={"color": INK, "width": 2, "dash": dash},
                hoverinfo="skip",
            )
    return dressed(
        figure,
        height=260,
        legend=True,
        x=titled("new token"),
        y=titled(unit.title) | {"rangemode": "tozero"},
    )


def compile_bars(ledger: Mapping[str, Any] | None) -> go.Figure:
    """Draw seconds of each compilation by step; recompilations say their reason on hover."""
    entries = (ledger or {}).get("entries") or ()
    if not entries:
        return empty("nothing was compiled in this run")
    names = [
        f"{title_of(entry['stage'])} {entry['compile_id']}"
        + (" again" if entry.get("recompile_reason") else "")
        for entry in entries
    ]
    reasons = [entry.get("recompile_reason") or "first compilation" for entry in entries]
    parts = {title: [entry.get(key) or 0.0 for entry in entries] for key, title in STEPS.items()}
    whole = [entry.get("seconds") or 0.0 for entry in entries]
    known = [sum(values) for values in zip(*parts.values(), strict=True)]
    parts[UNKNOWN_STEP] = [max(0.0, all_s - s) for all_s, s in zip(whole, known, strict=True)]
    figure = go.Figure()
    for (title, values), colour in zip(parts.items(), (*SERIES[:4], INK), strict=True):
        if max(values) >= 0.005:
            figure.add_bar(
                name=title,
                x=values,
                y=names,
                orientation="h",
                marker={"color": colour},
                customdata=reasons,
                hovertemplate=f"%{{y}}, {title}: %{{x:.2f}} s<br>%{{customdata}}<extra></extra>",
            )
    figure = dressed(
        figure,
        height=FRAME_PX + BAR_PX * len(names),
        legend=True,
        x=titled("seconds") | {"rangemode": "tozero"},
        y=named_rows(len(names)),
    )
    return figure.update_layout(barmode="stack")


def roofline_plot(
    rows: Sequence[Mapping[str, Any]], ceilings: Mapping[str, Any], dtype: str
) -> go.Figure:
    """Return a chart of what each phase reached under the machine's roof, both axes logarithmic.

    Args:
        rows: of :func:`profiling.roofline.roofline.roofline`, as JSON.
        ceilings: of the machine, as JSON; "paper" ones come from a data sheet and are named so.
        dtype: whose ceilings to draw.
    """
    timed = [row for row in rows if row.get("flops_per_s") and row.get("num_bytes")]
    roof = next((entry for entry in ceilings["dtypes"] if entry["dtype"] == dtype), None)
    if not timed or roof is None:
        return empty(f"no timed phase to set against a ceiling for {dtype}")
    read = ceilings.get("read_bytes_per_s") or 0.0
    bandwidth = max(ceilings["copy_bytes_per_s"], roof["gemv_bytes_per_s"], read)
    work = [row["flops"] / row["num_bytes"] for row in timed]
    ridge = roof["flops_per_s"] / bandwidth
    ends = [min(*work, ridge) / 4, ridge, max(*work, ridge) * 4]
    figure = go.Figure()
    figure.add_scatter(
        name="data sheet" if ceilings.get("paper") else "measured ceiling",
        x=ends,
        y=[min(roof["flops_per_s"], bandwidth * at) / 1e9 for at in ends],
        mode="lines",
        line={"color": INK, "width": 2, "dash": "dash" if ceilings.get("paper") else "solid"},
        hoverinfo="skip",
    )
    for row, at in zip(timed, work, strict=True):
        share = f"{100 * row['share']:.0f} % of what is possible, bound by {row['bound']}"
        figure.add_scatter(
            name=title_of(row["name"]),
            x=[at],
            y=[row["flops_per_s"] / 1e9],
            mode="markers",
            marker={"color": colour_of(row["name"]), "size": 12},
            hovertemplate=f"{title_of(row['name'])}: %{{y:.2f}} GFLOP/s<br>{share}<extra></extra>",
        )
    return dressed(
        figure,
        height=320,
        legend=True,
        x=titled("operations per byte") | logarithmic(),
        y=titled("GFLOP/s") | logarithmic(),
    )


def acceptance_bars(drafts: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """Return bars of drafted tokens kept and thrown away, a bar a run, with passes beside it.

    Args:
        drafts: label -> {"drafted", "accepted", "passes"}.
    """
    if not drafts:
        return empty("no run used drafts")
    labels = [shortened(label, 18) for label in drafts]
    kept = [draft["accepted"] for draft in drafts.values()]
    lost = [draft["drafted"] - draft["accepted"] for draft in drafts.values()]
    notes = [
        f"{100 * draft['accepted'] / draft['drafted']:.0f} %, {draft['passes']} passes"
        if draft["drafted"]
        else "nothing drafted"
        for draft in drafts.values()
    ]
    figure = go.Figure()
    for name, values, colour in (
        ("kept", kept, colour_of("verify")),
        ("thrown away", lost, colour_of("other")),
    ):
        figure.add_bar(
            name=name,
            x=values,
            y=labels,
            orientation="h",
            marker={"color": colour},
            text=notes if name == "kept" else None,
            textposition="inside" if name == "kept" else "none",
            insidetextanchor="start",
            hovertemplate=f"%{{y}}: %{{x}} {name}<extra></extra>",
        )
    figure = dressed(
        figure,
        height=FRAME_PX + 14 + BAR_PX * len(labels),
        legend=True,
        x=titled("drafted tokens") | {"rangemode": "tozero"},
        y=named_rows(len(labels)),
    )
    return figure.update_layout(barmode="stack")
