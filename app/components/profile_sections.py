"""The open run on the Profile tab: its head, and a tab for each section.

In: a :class:`app.service.profiles.view.ProfileView`. Out: what each component shows, as Gradio
updates. A section has slots for HTML and figures in turn; empty slots are hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.failures import Updates
from app.service.profiles.view import SECTIONS, ProfileView

FIGURES = {"Phases": 3, "Timeline": 1, "Operators": 2, "Memory": 2, "Roofline": 1, "Compiling": 1}


@dataclass(frozen=True)
class Sections:
    """The components. slots: section -> HTML, plot, HTML, ..., HTML."""

    head: gr.HTML
    slots: dict[str, list[gr.HTML | gr.Plot]]

    @property
    def outputs(self) -> list[Any]:
        """List everything :meth:`filled` changes."""
        return [self.head, *(slot for row in self.slots.values() for slot in row)]

    def filled(self, view: ProfileView) -> Updates:
        """Show this run."""
        changes: Updates = {self.head: view.head}
        for name, row in self.slots.items():
            turns = view.sections[name]
            for number, slot in enumerate(row):
                value = turns[number] if number < len(turns) else None
                there = value is not None and not (isinstance(value, str) and not value)
                changes[slot] = gr.update(value=value, visible=there)
        return changes


def build_sections() -> Sections:
    """Lay them out inside the current column."""
    head = gr.HTML(elem_id="profile-head", elem_classes="report")
    slots: dict[str, list[gr.HTML | gr.Plot]] = {}
    with gr.Tabs(elem_id="profile-sections", overflow_behavior="wrap"):
        for name in SECTIONS:
            with gr.Tab(name, id=f"profile-{name.lower()}"):
                slots[name] = _slots(name)
    return Sections(head, slots)


def _slots(name: str) -> list[gr.HTML | gr.Plot]:
    row: list[gr.HTML | gr.Plot] = [gr.HTML(elem_classes="report")]
    for number in range(FIGURES.get(name, 0)):
        row.append(
            gr.Plot(
                label=f"{name} {number + 1}",
                show_label=False,
                visible=False,
                elem_id=f"profile-{name.lower()}-{number}",
            )
        )
        row.append(gr.HTML(visible=False, elem_classes="report"))
    return row
