"""Rows of many runs -> figures: each run's time beside its memory, time over length, heat table.

In: rows of :mod:`profiling.statistics.run_table`. Out: ``go.Figure``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.units import Unit, byte_unit, time_unit
from profiling.figures.style import (
    BAR_PX,
    CLEAR,
    FRAME_PX,
    INK,
    SERIES,
    colour_of,
    dressed,
    empty,
    named_rows,
    titled,
)

Row = Mapping[str, Any]

PARTS = ("encoder", "decoder")
COLOURS = {"encoder": colour_of("encoder"), "decoder": colour_of("decode")}
HEAT_ROW_PX = 34


def arm_of(row: Row) -> str:
    """Name the way of working: engine, LoRA, decoding, format, batch."""
    return ", ".join(_parts(row))


def short_names(rows: Sequence[Row]) -> list[str]:
    """Name the way of working of each row, without what all of them share."""
    columns = zip(*map(_parts, rows), strict=True)
    kept = [column for column in columns if len(set(column)) > 1]
    return [", ".join(parts) for parts in zip(*kept, strict=True)] or list(map(arm_of, rows))


def _parts(row: Row) -> list[str]:
    lora = {None: "no LoRA", "on": "LoRA on", "off": "LoRA off"}.get(row["lora"], row["lora"])
    parts = (row["engine"], lora, row["decoding"], row["format"], f"batch of {row['batch']}")
    return [str(part) for part in parts]


def runs_chart(rows: Sequence[Row]) -> go.Figure:
    """Draw each run's encoder and decoder as bars, and from end to end as a point with interval."""
    if not rows:
        return empty("no runs")
    unit = time_unit(max(row["high_ms"] or row["end_to_end_ms"] for row in rows))
    names = [f"{number}. {row['engine']}, {row['clip']}" for number, row in enumerate(rows, 1)]
    figure = go.Figure()
    for part in PARTS:
        _add_bars(figure, rows, names, part, f"{part}_ms", unit)
    figure.add_scatter(
        name="end to end",
        mode="markers",
        y=names,
        x=unit.scaled(row["end_to_end_ms"] for row in rows),
        error_x=_whiskers(rows, unit) | {"color": INK},
        marker={"color": INK, "symbol": "diamond", "size": 8},
        customdata=[[row["id"], arm_of(row), str(row["verdict"])] for row in rows],
        hovertemplate="%{x:,.4g} "
        + unit.symbol
        + "<br>%{customdata[1]}<br>%{customdata[2]}<br>%{customdata[0]}<extra></extra>",
    )
    figure.update_layout(barmode="stack")
    height = FRAME_PX + BAR_PX * len(rows)
    x = titled(unit.title) | {"rangemode": "tozero"}
    return dressed(figure, height=height, legend=True, x=x, y=named_rows(len(rows)))


def memory_chart(rows: Sequence[Row]) -> go.Figure:
    """Draw the peak memory of encoder and decoder of each run that recorded it."""
    known = [row for row in rows if row["encoder_bytes"] or row["decoder_bytes"]]
    if not known:
        return empty("no run recorded memory")
    most = max(row[f"{part}_bytes"] or 0 for row in known for part in PARTS)
    unit = byte_unit(most)
    numbers = {id(row): number for number, row in enumerate(rows, 1)}
    names = [f"{numbers[id(row)]}. {row['engine']}, {row['clip']}" for row in known]
    figure = go.Figure()
    for part in PARTS:
        _add_bars(figure, known, names, part, f"{part}_bytes", unit)
    height = FRAME_PX + BAR_PX * len(known)
    x = titled(unit.title) | {"rangemode": "tozero"}
    return dressed(figure, height=height, legend=True, x=x, y=named_rows(len(known)))


def _add_bars(
    figure: go.Figure, rows: Sequence[Row], names: Sequence[str], part: str, key: str, unit: Unit
) -> None:
    figure.add_bar(
        name=part,
        orientation="h",
        y=names,
        x=unit.scaled(row[key] for row in rows),
        marker_color=COLOURS[part],
        hovertemplate=f"{part} %{{x:,.4g}} {unit.symbol}<extra></extra>",
    )


def _whiskers(rows: Sequence[Row], unit: Unit) -> dict[str, Any]:
    """Return the intervals of rows as error bars; of nothing where a row has none."""
    ups, downs = [], []
    for row in rows:
        known = row["low_ms"] is not None
        ups.append((row["high_ms"] - row["end_to_end_ms"]) / unit.size if known else 0)
        downs.append((row["end_to_end_ms"] - row["low_ms"]) / unit.size if known else 0)
    sizes = {"array": [max(up, 0) for up in ups], "arrayminus": [max(d, 0) for d in downs]}
    return {"type": "data", "symmetric": False, **sizes}


def time_over_length(rows: Sequence[Row]) -> go.Figure:
    """Draw time over the recording's length, a line for each way of working."""
    arms: dict[str, list[Row]] = {}
    by_length = sorted(rows, key=lambda row: row["seconds"] or 0)
    for row, name in zip(by_length, short_names(by_length), strict=True):
        arms.setdefault(name, []).append(row)
    if not arms:
        return empty("no runs")
    unit = time_unit(max(row["end_to_end_ms"] for row in rows))
    figure = go.Figure()
    for number, (name, points) in enumerate(arms.items()):
        figure.add_scatter(
            name=name,
            mode="lines+markers",
            x=[row["seconds"] for row in points],
            y=unit.scaled(row["end_to_end_ms"] for row in points),
            error_y=_whiskers(points, unit),
            line={"color": SERIES[number % len(SERIES)]},
            line_dash=("solid", "dash", "dot")[number // len(SERIES) % 3],
            hovertemplate=f"{name}<br>%{{x:.3g}} s: %{{y:,.4g}} {unit.symbol}<extra></extra>",
        )
    y = titled(unit.title) | {"rangemode": "tozero"}
    x = titled("seconds of recording") | {"rangemode": "tozero"}
    return dressed(figure, height=320, legend=True, x=x, y=y)


def heat_table(rows: Sequence[Row]) -> go.Figure:
    """Draw a table of ways of working by length: the real-time factor, darker where slower."""
    if not rows:
        return empty("no runs")
    lengths = sorted({row["seconds"] for row in rows})
    names = short_names(rows)
    arms = list(dict.fromkeys(names))
    found = {(name, row["seconds"]): row for name, row in zip(names, rows, strict=True)}
    cells = [[found.get((arm, seconds)) for seconds in lengths] for arm in arms]
    factors = [[cell and cell["rtf"] for cell in line] for line in cells]
    figure = go.Figure(
        go.Heatmap(
            x=[f"{seconds:.3g} s" for seconds in lengths],
            y=arms,
            z=factors,
            text=[["" if value is None else f"{value:.4f}" for value in row] for row in factors],
            texttemplate="%{text}",
            colorscale=[[0, CLEAR], [1, SERIES[1]]],
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="%{y}<br>%{x}: real-time factor %{z:.4f}<extra></extra>",
        )
    )
    x = {"type": "category", "showgrid": False, "nticks": len(lengths) + 1}
    height = FRAME_PX + HEAT_ROW_PX * len(arms)
    return dressed(figure, height=height, x=x, y=named_rows(len(arms)))
