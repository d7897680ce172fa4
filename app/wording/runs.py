"""The list of runs on the Profile tab.

In: what a visitor may look at. Out: HTML, everything from outside escaped; ``assets/runs.js`` finds
its buttons by their ``data-does``. No Gradio, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.service.profiles.library import ProfileChoice
from app.wording.phrases import breakable

EMPTY = "There is no run yet. Record one above, or drop in a trace."
HEAD = ("Run", "Clip", "Model", "Recorded", "Verdict", "")


def runs_html(choices: Sequence[ProfileChoice], shown: str) -> str:
    """Format the list, the run that is ``shown`` marked."""
    if not choices:
        return f"<p class='note aside'>{escape(EMPTY)}</p>"
    head = "".join(f"<th scope='col'>{title}</th>" for title in HEAD)
    rows = "".join(_row(one, one.key == shown) for one in choices)
    return (
        "<input type='search' placeholder='Filter runs' aria-label='Filter runs'>"
        f"<div class='scroll'><table class='batch'><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(one: ProfileChoice, shown: bool) -> str:
    key, title = escape(one.key, quote=True), escape(one.title, quote=True)
    current = " aria-current='true'" if shown else ""
    marks = "<b class='mark'>stopped early</b>" if one.stopped else ""
    marks += "<span class='mark'>an example</span>" if one.fixed else ""
    changes = "" if one.fixed else _button("delete", "Delete", key, title)
    if not one.fixed and not one.key.startswith("trace:"):
        changes = _button("edit", "Rename", key, title) + changes
    cells = (breakable(one.clip), *map(escape, (one.model, one.created, one.verdict)))
    return (
        f"<tr{current}><th scope='row'><button type='button' data-does='select' data-key='{key}'"
        f"{current}>{title}</button>{marks}</th>"
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}<td>{changes}</td></tr>"
    )


def _button(does: str, word: str, key: str, title: str) -> str:
    return (
        f"<button type='button' data-does='{does}' data-key='{key}' data-title='{title}' "
        f"aria-label='{word} {title}'>{word}</button>"
    )
