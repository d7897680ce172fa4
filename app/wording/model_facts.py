"""The facts about a model as a table: those of :func:`core.inspection.inspect` in HTML.

In: those facts. Out: HTML, everything from outside escaped. No Gradio, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from app.wording import models
from app.wording.phrases import definitions_html
from core.units import format_bytes


def facts_html(facts: Mapping[str, Any]) -> str:
    """Format parts, adapter, files and abilities of one model."""
    part_rows = "".join(
        _row(name, f"{part['parameters']:,}", format_bytes(part["bytes"]))
        for name, part in facts["parts"].items()
    )
    total = sum(part["bytes"] for part in facts["parts"].values())
    part_rows += _row("together", f"{facts['parameters']:,}", format_bytes(total))
    if facts["adapter"]:
        adapter = facts["adapter"]
        where = f"on {adapter['layers']} layers"
        part_rows += _row("LoRA adapter", f"{adapter['parameters']:,}", where)
    if facts["bpe_ctc_head"]:
        head = facts["bpe_ctc_head"]
        part_rows += _row("BPE CTC head", f"{head['parameters']:,}", format_bytes(head["bytes"]))
    return (
        f"<h2>{escape(str(facts['title']))}</h2>"
        "<div class='scroll'><table><thead><tr><th scope='col'>part</th>"
        "<th scope='col'>parameters</th><th scope='col'>in memory</th></tr></thead>"
        f"<tbody>{part_rows}</tbody></table></div>"
        f"{definitions_html(_facts(facts))}"
    )


def _row(name: str, parameters: str, size: str) -> str:
    cells = f"<td>{escape(parameters)}</td><td>{escape(size)}</td>"
    return f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>"


def _facts(facts: Mapping[str, Any]) -> dict[str, str]:
    can, tensors = facts["capabilities"], facts["tensors"]
    unused = len(tensors["unused"])
    left = f", {unused} left unread" if unused else ", none left unread"
    return {
        "Licence": str(facts["licence"]),
        "Family": str(facts["family"]),
        "Runs on": f"{facts['device']} in {facts['dtype']}",
        "Stored": f"{format_bytes(facts['stored_bytes'])} in {len(facts['shards'])} files",
        "Tensors": f"{tensors['used']} used{left}",
        "Tasks": ", ".join(can["tasks"]),
        "Hears": ", ".join(models.language(code) for code in can["languages"]),
        "Recordings": f"one pass holds {can['max_audio_s']:.0f} s; longer ones are cut at pauses",
    }
