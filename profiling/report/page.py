"""One HTML page that needs nothing else: no network, no server, no Python.

In: text, tables and figures. Out: the page, with Plotly.js, the figures and the numbers inside. The
markup is in ``assets/report``: jinja2 escapes every value, and writes JSON so that none can end the
script it stands in. A content policy forbids every connection.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from core.checkpoint.catalog import ASSETS

Formatter = Callable[[Any], str]


class Column(NamedTuple):
    """A table's column: what it is called, how values are written, whether they may wrap."""

    title: str
    write: Formatter
    wraps: bool = False


POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
TEMPLATES = Environment(
    loader=FileSystemLoader(ASSETS / "report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)
TEMPLATES.policies["json.dumps_kwargs"] = {"sort_keys": False}  # phases keep their order


@dataclass
class Page:
    """A page in the making. title and words are plain text; numbers go into the page as JSON.

    parts: HTML, in order; figures: by the id of their place.
    """

    title: str
    numbers: Mapping[str, Any]
    parts: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, block: str, *values: Any) -> None:
        """Append a block of ``assets/report/blocks.html.jinja`` with its values."""
        macros = TEMPLATES.get_template("blocks.html.jinja").module
        self.parts.append(getattr(macros, block)(*values))

    def heading(self, title: str, lead: str = "", *, level: int = 2) -> None:
        """Begin a section, or with level 1 the page."""
        self.add("heading", title, level)
        if lead:
            self.note(lead)

    def note(self, words: str) -> None:
        """Append a remark in small type."""
        self.add("paragraph", words, "soft")

    def figure(self, figure: go.Figure, describe: str) -> None:
        """Append ``figure``; ``describe`` is what a screen reader says."""
        name = f"figure-{len(self.figures)}"
        self.figures[name] = json.loads(figure.to_json())
        self.add("figure", name, describe, figure.layout.height or 300)

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Column]) -> None:
        """Append rows as a table, a column for each key that any row has a value for."""
        columns = {
            key: column
            for key, column in columns.items()
            if any(not _is_missing(row.get(key)) for row in rows)
        }
        cells = [[_written(row.get(key), c.write) for key, c in columns.items()] for row in rows]
        self.add("table", list(columns.values()), cells)

    def facts(self, columns: Mapping[str, Mapping[str, Any]]) -> None:
        """Append names and values, a column of values for each title, without what nobody knows."""
        keys = dict.fromkeys(key for values in columns.values() for key in values)
        rows = [
            {"name": key.replace("_", " "), **{at: columns[at].get(key) for at in columns}}
            for key in keys
            if any(values.get(key) not in (None, "") for values in columns.values())
        ]
        titles = {at: Column(at, words, wraps=True) for at in columns}
        self.table(rows, {"name": Column("", str), **titles})

    def tiles(self, tiles: Sequence[tuple[str, str, str]]) -> None:
        """Append large numbers: (title, value, definition on hover)."""
        self.add("tiles", tiles)

    def html(self) -> str:
        """Return the finished page."""
        return TEMPLATES.get_template("page.html.jinja").render(
            policy=POLICY,
            title=self.title,
            parts=self.parts,
            numbers=finite(self.numbers),
            figures=self.figures,
            plotly=get_plotlyjs(),
        )


def words(value: Any) -> str:
    """Write words, lists of them, and numbers among them."""
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def finite(value: Any) -> Any:
    """Return plain JSON types: what JSON has no number for becomes None."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _written(value: Any, write: Formatter) -> str:
    return "n/a" if _is_missing(value) else write(value)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
