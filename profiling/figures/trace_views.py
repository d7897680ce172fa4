"""Tables of a trace -> figures: timeline, the tree of calls, the most expensive operators.

In: a trace's index, and frames of :mod:`profiling.trace.breakdown`. Out: ``go.Figure``
of at most :data:`MAX_RECTANGLES` rectangles, however long the trace: what is too short to see is
drawn together with its neighbours, and says so when pointed at.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go

from core.units import format_ms, time_unit
from profiling.figures.style import (
    BAR_PX,
    FRAME_PX,
    OTHER,
    bars_in,
    colour_by_name,
    colour_of,
    dressed,
    empty,
    named_rows,
    shortened,
    title_of,
    titled,
)
from profiling.trace.lanes import Rectangle, lanes_of, merged
from profiling.trace.trace_index import TraceIndex

MAX_RECTANGLES = 5000
GROUND = "rgba(125, 133, 144, 0.35)"
NS_PER_MS = 1e6


def timeline(index: TraceIndex) -> go.Figure:
    """Draw phases, the calls inside them and the device's work over time, one lane each."""
    lanes = lanes_of(index)
    if not lanes:
        return empty("the trace holds no calls")
    begin = min(int(lane.starts[0]) for lane in lanes)
    end = max(int(lane.ends.max()) for lane in lanes)
    has_phases = any(lane.is_phases for lane in lanes)
    unit = time_unit((end - begin) / NS_PER_MS)
    size_ns = unit.size * NS_PER_MS
    least = max(1, (end - begin) * 2 * len(lanes) // MAX_RECTANGLES)
    figure = go.Figure()
    for lane in lanes:
        boxes = merged(lane, least)
        figure.add_bar(
            x=[(box.end - box.start) / size_ns for box in boxes],
            base=[(box.start - begin) / size_ns for box in boxes],
            y=[lane.title] * len(boxes),
            orientation="h",
            marker={
                "color": [
                    colour_of(box.phase) if has_phases else colour_by_name(box.name)
                    for box in boxes
                ],
                "opacity": 1 if lane.is_phases else 0.75,
                "line": {"width": 0},
            },
            width=0.8,
            customdata=[_words(box) for box in boxes],
            hovertemplate=f"%{{customdata}}<br>from %{{base:.3f}} {unit.symbol}<extra></extra>",
        )
    figure = dressed(
        figure,
        height=FRAME_PX + 44 * len(lanes),
        x=titled(unit.title) | {"range": [0, (end - begin) / size_ns], "fixedrange": False},
        y=named_rows(len(lanes)),
    )
    # One lane is one trace: without "overlay" plotly would share each row out among all traces.
    return figure.update_layout(barmode="overlay", bargap=0.1, dragmode="zoom", hovermode="closest")


def _words(box: Rectangle) -> str:
    lasts = format_ms(box.busy / NS_PER_MS)
    name = title_of(box.name) if box.name == box.phase else shortened(box.name, 60)
    if box.count > 1:
        return f"{box.count} calls, mostly {name}: {lasts}"
    return f"{name}: {lasts}" + ("" if box.phase in (OTHER, box.name) else f"<br>{box.phase}")


def operator_icicle(
    tree: pd.DataFrame,
    *,
    write: Callable[[float], str] = format_ms,
    find: str = "",
    of: str = "calls",
) -> go.Figure:
    """Draw the tree of calls as wide as their time; click to enter, click the top to leave.

    Args:
        tree: of :func:`profiling.trace.breakdown.operator_paths`.
        write: a width in words, its unit included.
        find: what a name must contain to keep its colour; its share of the whole is said on top.
        of: what ``num_calls`` counts.

    Returns:
        The figure.
    """
    if tree.empty or not tree["own"].sum():
        return empty(f"there are no {of}")
    total = tree["own"].sum()
    hits = tree["label"].str.contains(find, case=False, regex=False)
    has_phases = bool((tree["phase"] != OTHER).any())
    figure = go.Figure(
        go.Icicle(
            ids=["all", *(str(node) for node in tree["id"])],
            parents=["", *("all" if up < 0 else str(up) for up in tree["parent_id"])],
            labels=[
                f"all {write(total)}" + (f", {_share_of(tree, hits):.1%} found" if find else ""),
                *(
                    title_of(label) if label == phase else shortened(label)
                    for label, phase in zip(tree["label"], tree["phase"], strict=True)
                ),
            ],
            # Own time, so that sectors never disagree with what is inside them.
            values=[0.0, *tree["own"]],
            branchvalues="remainder",
            marker={
                "colors": [
                    GROUND,
                    *(
                        GROUND
                        if not hit
                        else colour_of(phase)
                        if has_phases or label == OTHER
                        else colour_by_name(label)
                        for label, phase, hit in zip(
                            tree["label"], tree["phase"], hits, strict=True
                        )
                    ),
                ],
                "line": {"width": 1, "color": GROUND},
            },
            customdata=[
                [write(total), ""],
                *(
                    [write(whole), f"{count:,} {of}"]
                    for whole, count in zip(tree["total"], tree["num_calls"], strict=True)
                ),
            ],
            hovertemplate="%{label}<br>%{customdata[0]}, %{customdata[1]}<extra></extra>",
            textinfo="label",
            tiling={"orientation": "v"},
            root={"color": GROUND},
            sort=True,
            leaf={"opacity": 1},
        )
    )
    levels = int(_depths(tree).max()) + 2
    figure = dressed(figure, height=46 * levels + 30)
    # The call that was entered stays open while the same tree is searched.
    return figure.update_layout(
        uniformtext={"minsize": 10, "mode": "hide"}, uirevision=f"{len(tree)} {total}"
    )


def _share_of(tree: pd.DataFrame, hits: pd.Series) -> float:
    """Return the share of the whole inside calls that were found, each instant once."""
    found: dict[int, bool] = {-1: False}
    for node, parent, hit in zip(tree["id"], tree["parent_id"], hits, strict=True):
        found[node] = bool(hit) or found[parent]
    inside = tree["id"].map(found)
    return float(tree["own"][inside].sum() / tree["own"].sum())


def difference_bars(table: pd.DataFrame, num_rows: int = 12) -> go.Figure:
    """Draw where two traces differ most: to the left B is quicker, to the right A is.

    Args:
        table: of :func:`profiling.trace.tree_difference.tree_difference`.
        num_rows: how many.

    Returns:
        The figure.
    """
    rows = table[table["difference_ms"] != 0].head(num_rows)
    if rows.empty:
        return empty("the traces do not differ")
    unit = time_unit(float(rows["difference_ms"].abs().max()))
    figure = go.Figure(
        go.Bar(
            x=unit.scaled(rows["difference_ms"]),
            y=list(range(len(rows))),
            orientation="h",
            marker={"color": [colour_of(phase) for phase in rows["phase"]]},
            customdata=rows[["path", "a_ms", "b_ms"]].to_numpy(),
            hovertemplate="%{customdata[0]}<br>A %{customdata[1]:.3f} ms, B %{customdata[2]:.3f} ms"
            "<extra></extra>",
        )
    )
    figure = dressed(
        figure,
        height=FRAME_PX + BAR_PX * len(rows),
        x=titled(f"B - A, {unit.title}"),
        y=named_rows(len(rows)),
    )
    names = [_short_path(path) for path in rows["path"]]
    places = {"tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": names}
    return figure.update_yaxes(places | {"tickfont": {"size": 12}})


def _short_path(path: str) -> str:
    first, *rest = path.split(" > ")
    return f"{shortened(rest[-1], 22)} ({title_of(first)})" if rest else title_of(first)


def _depths(tree: pd.DataFrame) -> pd.Series:
    depth: dict[int, int] = {-1: -1}
    for node, parent in zip(tree["id"], tree["parent_id"], strict=True):
        depth[node] = depth[parent] + 1
    return tree["id"].map(depth)


def top_operators(table: pd.DataFrame, num_rows: int = 12) -> go.Figure:
    """Return bars of the operators with most self time, in their phase's colour.

    Args:
        table: of :func:`profiling.trace.breakdown.operator_table`.
        num_rows: how many.
    """
    if table.empty:
        return empty("the trace holds no operators")
    rows = table.nlargest(num_rows, "self_ms")
    longest = float(rows["self_ms"].max())
    unit = time_unit(longest)
    names = [
        f"{shortened(name, 22)} ({title_of(phase)})" if phase != OTHER else shortened(name, 30)
        for name, phase in zip(rows["name"], rows["phase"], strict=True)
    ]
    figure = go.Figure(
        go.Bar(
            x=unit.scaled(rows["self_ms"]),
            y=list(range(len(rows))),
            orientation="h",
            marker={"color": [colour_of(phase) for phase in rows["phase"]]},
            text=[unit.write(value) for value in rows["self_ms"]],
            textposition="outside",
            cliponaxis=False,
            customdata=[
                [name, f"{count:,}", phase]
                for name, count, phase in zip(
                    rows["name"], rows["num_calls"], rows["phase"], strict=True
                )
            ],
            hovertemplate=f"%{{customdata[0]}}<br>%{{customdata[2]}}: %{{x:.3f}} {unit.symbol} in "
            "%{customdata[1]} calls<extra></extra>",
        )
    )
    figure = bars_in(unit, figure, len(rows), 1.15 * longest)
    # Two operators may have one short name: rows are told apart by number.
    places = {"tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": names}
    return figure.update_yaxes(places | {"tickfont": {"size": 12}}).update_layout(
        height=FRAME_PX + BAR_PX * len(rows)
    )
