"""The open run on the Profile tab: its head, and a tab for each section.

In: a :class:`app.service.profiles.view.ProfileView`. Out: what each component shows, as Gradio
updates. A section has places for figures, each with HTML above and beside it; empty ones are
hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.failures import Updates
from app.service.profiles.view import SECTIONS, ProfileView
from app.wording.terms import TERMS, term_html
from profiling.report.sections import FlameGraph

FIGURES = {"Phases": 3, "Timeline": 1, "Operators": 3, "Memory": 4, "Roofline": 1, "Compiling": 1}
MOST_FLAMES = 2  # by time and by memory
Slot = tuple[gr.HTML, gr.Plot, gr.HTML]  # lead, figure, what stands beside it


@dataclass(frozen=True)
class Sections:
    """The components, by section; the last slot is for what follows without a figure.

    find: the search box of the flame graphs, which ``flames`` are.
    """

    head: gr.HTML
    slots: dict[str, list[Slot]]
    find: gr.Textbox
    flames: gr.State

    @property
    def outputs(self) -> list[Any]:
        """List everything :meth:`filled` changes."""
        slots = (part for row in self.slots.values() for slot in row for part in slot)
        return [self.head, self.find, self.flames, *slots]

    def filled(self, view: ProfileView) -> Updates:
        """Show this run."""
        found = gr.update(value="", visible=bool(view.flames))
        changes: Updates = {self.head: view.head, self.find: found, self.flames: view.flames}
        for name, row in self.slots.items():
            exhibits = [*view.sections[name], *[(None, None, None)] * len(row)]
            for slot, exhibit in zip(row, exhibits, strict=False):
                for part, value in zip(slot, exhibit, strict=True):
                    there = value is not None and not (isinstance(value, str) and not value)
                    changes[part] = gr.update(value=value, visible=there)
        return changes

    def wire_find(self, **usual: Any) -> None:
        """Search the flame graphs as the box changes. usual: settings of the event."""
        figures = [slot[1] for slot in self.slots["Operators"][:MOST_FLAMES]]

        def find(flames: Sequence[FlameGraph], text: str) -> Updates:
            pairs = zip(figures, flames, strict=False)
            return {figure: flame.figure(find=text.strip()) for figure, flame in pairs}

        self.find.change(find, [self.flames, self.find], figures, **usual)


def build_sections() -> Sections:
    """Lay them out inside the current column."""
    head = gr.HTML(elem_id="profile-head", elem_classes="report")
    slots: dict[str, list[Slot]] = {}
    with gr.Tabs(elem_id="profile-sections", overflow_behavior="wrap"):
        for name in SECTIONS:
            with gr.Tab(name, id=f"profile-{name.lower()}"):
                if name == "Operators":
                    find = gr.Textbox(
                        label="Find calls",
                        placeholder="part of a name, such as linear",
                        max_length=200,
                        visible=False,
                        elem_id="profile-find",
                    )
                if name.lower() in TERMS:
                    gr.HTML(f"<p class='note aside'>{name} {term_html(name.lower())}</p>")
                slots[name] = [_slot(name, n) for n in range(FIGURES.get(name, 0) + 1)]
    return Sections(head, slots, find, gr.State(()))


def _slot(name: str, number: int) -> Slot:
    lead = gr.HTML(visible=False, elem_classes="report")
    with gr.Row(elem_classes="exhibit"):
        figure = gr.Plot(
            label=f"{name} {number + 1}",
            show_label=False,
            visible=False,
            elem_id=f"profile-{name.lower()}-{number}",
        )
        beside = gr.HTML(visible=False, elem_classes="report")
    return lead, figure, beside
