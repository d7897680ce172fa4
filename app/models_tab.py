"""The Models tab: what this app knows, what each can do, what is in memory now.

In: a studio. Out: a list, fresh whenever the tab is opened.
"""

from __future__ import annotations

import gradio as gr

from app import model_wording, wording
from app.events import PAGE_EVENT
from app.studio import Studio


def build_models_tab(studio: Studio, tab: gr.Tab) -> gr.HTML:
    """Lay the tab out and wire its refresh."""
    gr.HTML(wording.aside_html(model_wording.MODELS_NOTE))
    listing = gr.HTML(model_wording.models_html(studio.cards()), elem_id="models")
    tab.select(lambda: model_wording.models_html(studio.cards()), None, [listing], **PAGE_EVENT)
    return listing
