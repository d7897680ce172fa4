"""The Models tab: every model, what it can do, what is in memory; load, unload, inspect, adapt.

In: the service. Out: components, wired; the list is fresh whenever the tab is opened.
"""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from app.components.adapters_panel import AdaptersPanel, build_adapters
from app.components.events import MODEL_EVENT, PAGE_EVENT
from app.components.failures import Updates, failures_shown
from app.service.deployment import Deployment
from app.service.model_actions import inspect_model, load_model, unload_model
from app.service.service import TranscriptionService
from app.wording import models, phrases
from app.wording.model_facts import facts_html
from app.wording.progress import progress_html

LOADING = (
    "Loading… a model that is not on this machine yet is downloaded first, which takes a while."
)
LOADED, UNLOADED, NOT_LOADED = "{} is loaded.", "{} is unloaded.", "{} was not loaded."
WORK = {"show_progress": "minimal", "api_visibility": "private", **MODEL_EVENT}


def build_models_tab(
    service: TranscriptionService, tab: gr.Tab, deployment: Deployment
) -> AdaptersPanel | None:
    """Lay the tab out and wire it; None where nobody adds adapters."""
    gr.HTML(phrases.aside_html(models.MODELS_NOTE))
    with gr.Row(elem_id="models-hand"):
        name = gr.Dropdown(
            [(c.title, c.name) for c in service.summaries()],
            value=service.model,
            label="Model",
            info=None if service.limits.only else phrases.MODEL_NOTE,
            allow_custom_value=service.limits.only is None,
            elem_id="models-name",
            scale=3,
            min_width=240,
        )
        with gr.Column(scale=2, min_width=240), gr.Row():
            load = gr.Button("Load", min_width=80, elem_id="models-load")
            unload = gr.Button(
                "Unload", min_width=80, elem_id="models-unload", visible=not deployment.public
            )
            look = gr.Button("Inspect", min_width=80, elem_id="models-inspect")
    status = gr.HTML(elem_id="models-status")
    adapters = None if service.limits.only else build_adapters(service, name, tab)
    facts = gr.HTML(elem_id="models-facts", elem_classes="report")
    listing = gr.HTML(models.models_html(service.summaries()), elem_id="models")
    outputs = [status, facts, listing]

    def fresh(said: str) -> Updates:
        return {
            status: phrases.status_html(said),
            listing: models.models_html(service.summaries()),
        }

    def failed(message: str) -> Updates:
        return {status: phrases.status_html(message, "error"), facts: ""}

    def loaded(chosen: str | None) -> Iterator[Updates]:
        yield {status: progress_html(LOADING)}
        yield fresh(LOADED.format(load_model(service, chosen or "").title))

    def inspected(chosen: str | None) -> Iterator[Updates]:
        yield {status: progress_html(LOADING)}
        found = inspect_model(service, chosen or "")
        yield fresh("") | {facts: facts_html(found), status: ""}

    def load_it(chosen: str | None) -> Iterator[Updates]:
        yield from failures_shown(failed, loaded, chosen)

    def look_in(chosen: str | None) -> Iterator[Updates]:
        yield from failures_shown(failed, inspected, chosen)

    def unload_it(chosen: str | None) -> Updates:
        title = service.summary(chosen or service.model).title
        gone = unload_model(service, chosen or service.model)
        return fresh((UNLOADED if gone else NOT_LOADED).format(title)) | {facts: ""}

    load.click(load_it, [name], outputs, **WORK)
    unload.click(unload_it, [name], outputs, **WORK)
    look.click(look_in, [name], outputs, **WORK)

    def listed() -> str:
        return models.models_html(service.summaries())

    tab.select(listed, None, [listing], **PAGE_EVENT)
    for changed in adapters.changed if adapters else ():
        changed.then(listed, None, [listing], **PAGE_EVENT)
    return adapters
