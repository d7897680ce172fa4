"""One HTML page that needs nothing else: no network, no server, no Python.

In: sections of escaped HTML and figures. Out: the page as text, with Plotly.js, the figures and the
numbers inside. Every string of a user goes through :func:`text`; scripts hold JSON in which "<" is
written as an escape, so that no value can end them. A content policy forbids every connection.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

Formatter = Callable[[Any], str]


class Column(NamedTuple):
    """A table's column: what it is called, how values are written, whether they may wrap."""

    title: str
    write: Formatter
    wraps: bool = False


STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c1f23; --soft: #5b636d;
  --line: #d9dde2; --card: #f5f6f8; --accent: #0060a0; }
@media (prefers-color-scheme: dark) { :root { --ground: #161616; --ink: #eceef1; --soft: #a2abb6;
  --line: #393f47; --card: #212327; --accent: #6cb8f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 980px; padding: 1.2rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 "IBM Plex Sans", system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
p { margin: .3rem 0 .7rem; } .soft { color: var(--soft); font-size: .9rem; }
a { color: var(--accent); }
blockquote { margin: .8rem 0; padding: .6rem .9rem; background: var(--card); border-radius: 6px;
  overflow-wrap: anywhere; white-space: pre-wrap; }
.verdict { font-size: 1.25rem; font-weight: 600; margin: .6rem 0; }
.warning { border-left: 4px solid #d55e00; background: var(--card); padding: .4rem .8rem;
  border-radius: 0 6px 6px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem;
  margin: 1rem 0; padding: 0; }
.tiles div { background: var(--card); border-radius: 6px; padding: .5rem .7rem; }
.tiles dt { color: var(--soft); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td.words, th.words { text-align: left; white-space: normal; min-width: 9rem; }
td.words { overflow-wrap: anywhere; }

.figure { width: 100%; margin: .4rem 0; }
.js-plotly-plot text:not(.slicetext):not(.bartext-inside) { fill: var(--ink) !important; }
.definitions dt { font-weight: 600; } .definitions dd { margin: 0 0 .5rem; color: var(--soft); }
@media print { body { max-width: none; } .figure { break-inside: avoid; } }
"""

DRAW = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const settings = {displaylogo: false, responsive: true, displayModeBar: false, scrollZoom: false};
for (const [name, figure] of Object.entries(figures)) {
  Plotly.newPlot(name, figure.data, figure.layout, settings);
}
document.getElementById("save").addEventListener("click", (event) => {
  const numbers = document.getElementById("numbers").textContent;
  event.target.href = URL.createObjectURL(new Blob([numbers], {type: "application/json"}));
});
"""

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)


def text(value: Any) -> str:
    """Any value as harmless HTML."""
    return html.escape(str(value), quote=True)


@dataclass
class Page:
    """A page in the making. title and lead are plain text; numbers go into the page as JSON."""

    title: str
    numbers: Mapping[str, Any]
    parts: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def heading(self, title: str, lead: str = "") -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{text(title)}</h2>")
        if lead:
            self.note(lead)

    def note(self, words: str) -> None:
        """A remark in small type."""
        self.parts.append(f'<p class="soft">{text(words)}</p>')

    def figure(self, figure: go.Figure, describe: str) -> None:
        """Draw ``figure``; ``describe`` is what a screen reader says."""
        name = f"figure-{len(self.figures)}"
        height = figure.layout.height or 300
        self.figures[name] = figure.to_json()
        self.parts.append(
            f'<div class="figure" id="{name}" role="img" aria-label="{text(describe)}" '
            f'style="height:{height}px"></div>'
        )

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Column]) -> None:
        """Rows as a table, a column for each key that any row has a value for."""
        columns = {
            key: column
            for key, column in columns.items()
            if any(not _is_missing(row.get(key)) for row in rows)
        }
        head = "".join(
            f"<th{_css_class(column)}>{text(column.title)}</th>" for column in columns.values()
        )
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{_css_class(column)}>{text(_written(row.get(key), column.write))}</td>"
                for key, column in columns.items()
            )
            + "</tr>"
            for row in rows
        )
        self.parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def facts(self, columns: Mapping[str, Mapping[str, Any]]) -> None:
        """Names and values, a column of values for each title; rows nobody knows are left out."""
        keys = dict.fromkeys(key for values in columns.values() for key in values)
        rows = [
            {"name": key.replace("_", " "), **{at: columns[at].get(key) for at in columns}}
            for key in keys
            if any(values.get(key) not in (None, "") for values in columns.values())
        ]
        titles = {at: Column(at, words, wraps=True) for at in columns}
        self.table(rows, {"name": Column("", str), **titles})

    def tiles(self, pairs: Sequence[tuple[str, str, str]]) -> None:
        """Large numbers: (title, value, definition on hover)."""
        cells = "".join(
            f'<div title="{text(tip)}"><dt>{text(title)}</dt><dd>{text(value)}</dd></div>'
            for title, value, tip in pairs
        )
        self.parts.append(f'<dl class="tiles">{cells}</dl>')

    def html(self) -> str:
        """The finished page."""
        figures = ",".join(f'"{name}":{figure}' for name, figure in self.figures.items())
        numbers = json.dumps(finite(self.numbers), indent=1, ensure_ascii=False)
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{text(self.title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
            + "\n".join(self.parts)
            + '\n<p class="soft"><a id="save" href="#" download="numbers.json">'
            "Save the numbers as JSON</a></p>\n</main>\n"
            f'<script type="application/json" id="numbers">{_inert(numbers)}</script>\n'
            f'<script type="application/json" id="figures">{_inert("{" + figures + "}")}</script>\n'
            f"<script>{get_plotlyjs()}</script>\n<script>{DRAW}</script>\n</body></html>\n"
        )


def words(value: Any) -> str:
    """A formatter for words, lists of them, and numbers among them."""
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def finite(value: Any) -> Any:
    """Plain JSON types: what JSON has no number for becomes None."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _inert(json_text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return (
        json_text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def _written(value: Any, write: Formatter) -> str:
    return "n/a" if _is_missing(value) else write(value)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _css_class(column: Column) -> str:
    return ' class="words"' if column.wraps else ""
