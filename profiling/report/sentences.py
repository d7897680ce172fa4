"""Sentences and rows of a comparison or a history, shared by page, report and terminal.

In: a comparison of :mod:`profiling.statistics.compare`, or a history, as its JSON states it. Out:
plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.units import format_ms
from profiling.figures.style import END_TO_END, title_of
from profiling.statistics.intervals import FEWEST_BLOCKS

ALIKE = "no phase more than the others"


def end_to_end_said(comparison: Mapping[str, Any], a: str = "A", b: str = "B") -> str:
    """Return how B compares with A; names and times stand in one order, B before A.

    Args:
        comparison: as JSON.
        a: what to call the baseline.
        b: what to call the other run.
    """
    whole = comparison["end_to_end"]
    verdict, times = str(whole["verdict"]), [format_ms(whole[key]) for key in ("b_ms", "a_ms")]
    if comparison["num_blocks"] < FEWEST_BLOCKS:
        return f"{capital(verdict)}. So far: {b} {times[0]}, {a} {times[1]}."
    if whole["shown"]:
        said = f"{capital(b)} is {verdict}, than {a}"
    else:
        said = f"{capital(verdict)} between {b} and {a}"
    said += f": {times[0]} against {times[1]} from end to end."
    return f"{said} {capital(whole['reason'])}." if whole.get("reason") else said


def verdict_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per phase and one for the whole; a verdict that may surprise has its reason."""
    rows = [*comparison["phases"], {"name": END_TO_END, **comparison["end_to_end"]}]
    return [
        {**row, "verdict": "; ".join(filter(None, (row["verdict"], row.get("reason"))))}
        for row in rows
    ]


def changes_said(history: Mapping[str, Any]) -> list[str]:
    """Return a line a change: when, which phases by how much, and what was new; or that none is."""
    if history.get("note"):
        return [capital(history["note"])]
    if not history["changes"]:
        return ["No change shown"]
    return [
        f"From {change['between'][1]} on, {'; '.join(map(_step_said, change['steps']))} "
        f"({', '.join((*(change['new_versions'] or ('same versions',)), *_alike(change)))})"
        for change in history["changes"]
    ]


def _alike(change: Mapping[str, Any]) -> list[str]:
    """Say that no phase changed more than the others did, where that is so."""
    return [ALIKE] if {step["phase"] for step in change["steps"]} == {END_TO_END} else []


def _step_said(step: Mapping[str, Any]) -> str:
    return f"{title_of(step['phase'])} {step['verdict']}"


def capital(text: str) -> str:
    """Return ``text`` with a capital at its beginning."""
    return text[:1].upper() + text[1:]
