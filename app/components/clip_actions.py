"""Next steps for the clip on the Transcribe tab: compare engines on it, or profile it.

In: its recording and settings. Out: a button for each; a press opens another tab, with the clip and
the settings filled in, and that tab starts (:meth:`ClipActions.take`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.events import Dependency

from app.components.arm_panel import ArmPanel
from app.components.events import PAGE_EVENT
from app.components.failures import Updates
from app.components.settings_panel import SettingsPanel
from app.service.deployment import Deployment


@dataclass(frozen=True)
class ClipActions:
    """The buttons, and where the clip is. tabs: those of the page; said: its reference text."""

    compare: gr.Button
    profile: gr.Button
    tabs: gr.Tabs
    recording: gr.Audio
    said: gr.Textbox
    settings: SettingsPanel

    def take(
        self,
        button: gr.Button,
        tab: str,
        audio: gr.Audio,
        arms: Mapping[ArmPanel, dict[str, Any]],
        fixed: Updates | None = None,
        said: gr.State | None = None,
    ) -> Dependency:
        """Make ``button`` open a tab with the clip and the settings filled in.

        Args:
            button: one of the two.
            tab: the id of the tab.
            audio: the field there.
            arms: the settings there, each with what differs from the Transcribe tab's.
            fixed: what else is shown there.
            said: takes the reference text.

        Returns:
            The press, for what follows it.
        """

        def fill(recording: str | None, text: str | None, *values: Any) -> Updates:
            chosen = self.settings.read(values)
            changes: Updates = {self.tabs: gr.Tabs(selected=tab), audio: recording}
            changes |= {} if said is None else {said: text or ""}
            for arm, others in arms.items():
                changes |= arm.filled(replace(chosen, **others))
            return changes | (fixed or {})

        fields = [field for arm in arms for field in arm.inputs]
        outputs = [self.tabs, audio, *fields, *(fixed or {}), *([] if said is None else [said])]
        inputs = [self.recording, self.said, *self.settings.inputs]
        return button.click(fill, inputs, outputs, **PAGE_EVENT)


def build_clip_actions(deployment: Deployment) -> tuple[gr.Button, gr.Button]:
    """Lay the buttons out inside the current column; hidden where nothing can be timed."""
    timed = deployment.no_timing is None
    with gr.Row(elem_id="clip-actions", visible=timed):
        compare = gr.Button(
            "Compare eager and compiled",
            min_width=150,
            visible=deployment.no_compile is None,
            elem_id="clip-compare",
        )
        profile = gr.Button("Profile this clip", min_width=150, elem_id="clip-profile")
    return compare, profile
