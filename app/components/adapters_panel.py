"""Adapters of a model: what was added to it, one more, one less. Part of the Models tab.

In: the service, the model that is chosen on the tab. Out: components, wired; :func:`keep_fresh`
shows what was added wherever a request is set up. An adapter is a folder that ``python -m training
finetune`` or peft wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.events import Dependency

from app.components.arm_panel import ArmPanel
from app.components.events import MODEL_EVENT, PAGE_EVENT
from app.components.failures import Updates
from app.components.settings_panel import SettingsPanel
from app.service.model_actions import add_adapter, remove_adapter
from app.service.model_cache import plain_name
from app.service.service import TranscriptionService
from app.service.user_errors import user_message
from app.wording import phrases
from app.wording.progress import progress_html

NOTE = (
    "Adapters from fine-tuning on your own recordings (docs/finetune.md), or any LoRA adapter of "
    "this model in PEFT format. They stay until the app is closed; each request chooses one."
)
ADDING = "Adding… a model or an adapter that is not on this machine yet is downloaded first."
ADDED = "{name} was added to {title}; choose it under “Which adapter”, below the LoRA switch."
REMOVED = "{name} was removed from {title}."
NONE_YET = "None was added to {title} yet."
WORK = {"show_progress": "minimal", "api_visibility": "private", **MODEL_EVENT}


@dataclass(frozen=True)
class AdaptersPanel:
    """changed: events after which the list may be another one."""

    changed: tuple[Dependency, ...]


def build_adapters(service: TranscriptionService, model: gr.Dropdown, tab: gr.Tab) -> AdaptersPanel:
    """Lay the panel out inside the current column and wire it; ``tab`` is the tab around it."""
    with gr.Accordion(
        "Adapters of this model",
        open=False,
        visible=service.summary(service.model).takes_adapters,
        elem_id="adapters",
    ) as group:
        gr.HTML(phrases.aside_html(NOTE))
        listing = gr.HTML(list_html(service, service.model), elem_id="adapters-list")
        with gr.Row():
            with gr.Column(min_width=240):
                source = gr.Textbox(
                    label="Folder or repository id",
                    placeholder="mine, or owner/adapter",
                    elem_id="adapter-source",
                )
                name = gr.Textbox(
                    label="Name",
                    info="Adapter name; leave blank to use the folder's name.",
                    elem_id="adapter-name",
                )
            files = gr.File(
                label="Or its two files, or a zip of them",
                file_count="multiple",
                height=190,
                min_width=240,
                elem_id="adapter-files",
            )
        add = gr.Button("Add", elem_id="adapter-add")
        status = gr.HTML(elem_id="adapter-status")
        with gr.Row(visible=False, elem_id="adapters-leaving") as leaving:
            gone = gr.Dropdown(
                [],
                label="Added here",
                filterable=False,
                min_width=160,
                scale=3,
                elem_id="adapter-gone",
            )
            remove = gr.Button("Remove", min_width=80, elem_id="adapter-remove")

    def shown(chosen: str | None) -> Updates:
        summary = service.summary(chosen or service.model)
        names = summary.adapters
        return {
            group: gr.update(visible=summary.takes_adapters),
            listing: list_html(service, chosen or service.model),
            leaving: gr.update(visible=bool(names)),
            gone: gr.update(choices=list(names), value=names[-1] if names else None),
        }

    def add_it(
        chosen: str | None, source_said: str, paths: list[str] | None, wanted: str
    ) -> Iterator[Updates]:
        yield {status: progress_html(ADDING)}
        try:
            added = add_adapter(service, chosen or "", wanted or "", source_said or "", paths or [])
        except Exception as error:
            yield {status: phrases.status_html(user_message(error), "error")}
            return
        said = ADDED.format(name=added.name, title=service.summary(chosen or "").title)
        emptied = {source: "", files: None, name: ""}
        yield shown(chosen) | emptied | {status: phrases.status_html(said)}

    def remove_it(chosen: str | None, adapter: str | None) -> Updates:
        try:
            remove_adapter(service, chosen or "", adapter or "")
        except Exception as error:
            return {status: phrases.status_html(user_message(error), "error")}
        said = REMOVED.format(name=adapter, title=service.summary(chosen or "").title)
        return shown(chosen) | {status: phrases.status_html(said)}

    outputs = [group, listing, leaving, gone]
    added = add.click(
        add_it, [model, source, files, name], [*outputs, source, files, name, status], **WORK
    )
    removed = remove.click(remove_it, [model, gone], [*outputs, status], **WORK)
    for looked in (model.change, tab.select):
        looked(shown, [model], outputs, **PAGE_EVENT)
    return AdaptersPanel((added, removed))


def list_html(service: TranscriptionService, model: str) -> str:
    """List the adapters of a model: name, and where each came from."""
    added = service.models.adapters.of(plain_name(model))
    if not added:
        return phrases.aside_html(NONE_YET.format(title=service.summary(model).title))
    rows = (f"<li><b>{escape(one.name)}</b> from {escape(one.source)}</li>" for one in added)
    return f"<ul class='added'>{''.join(rows)}</ul>"


def keep_fresh(
    app: gr.Blocks,
    service: TranscriptionService,
    panel: AdaptersPanel,
    settings: SettingsPanel,
    arms: Sequence[ArmPanel],
) -> None:
    """Offer what was added wherever a request is set up, and whenever a page is loaded.

    Args:
        app: the Blocks around everything.
        service: whose adapters.
        panel: where they are added and removed.
        settings: those of the Transcribe tab, which the browser puts back when a page is loaded.
        arms: of measurements.
    """
    for event in panel.changed:
        _offer(event.then, service, [settings, *arms])
    if arms:
        _offer(app.load, service, arms)


def _offer(
    when: Any, service: TranscriptionService, panels: Sequence[SettingsPanel | ArmPanel]
) -> None:
    def fresh(*values: Any) -> Updates:
        changes: Updates = {}
        for part, model, adapter in zip(panels, values[::2], values[1::2], strict=True):
            changes |= part.adapters.fit(service.summary(model or service.model), adapter)
        return changes

    inputs = [field for part in panels for field in (part.model, part.adapters.adapter)]
    outputs = [field for part in panels for field in part.adapters.outputs]
    when(fresh, inputs, outputs, **PAGE_EVENT)
