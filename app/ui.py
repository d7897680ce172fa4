"""The page: a heading and a tab per file. Assembles, nothing else."""

from __future__ import annotations

import gradio as gr

from app import wording
from app.endpoints import build_endpoints
from app.events import session_of
from app.live_tab import Onward, build_live_tab
from app.models_tab import build_models_tab
from app.studio import Studio
from app.transcribe_tab import build_transcribe_tab

UPLOADS_KEPT_S = 3600


def build_app(studio: Studio) -> gr.Blocks:
    """The app around ``studio``, ready for :func:`app.serving.serve`.

    Uploads and recordings are deleted an hour after they came. A closed page ends its request.
    """

    with gr.Blocks(
        title="Granite Speech Lab",
        analytics_enabled=False,
        delete_cache=(UPLOADS_KEPT_S // 6, UPLOADS_KEPT_S),
    ) as app:
        gr.HTML(wording.HEADING_HTML, elem_id="heading")
        with gr.Tabs() as tabs:
            with gr.Tab("Transcribe", id="transcribe"):
                page = build_transcribe_tab(studio)
            with gr.Tab("Live", id="live"):
                onward = Onward(tabs, page.recording, page.expected, page.result)
                live = build_live_tab(studio, page.settings, onward)
            with gr.Tab("Models", id="models") as tab:
                build_models_tab(studio, tab)
        build_endpoints(studio)

        def left(request: gr.Request) -> None:
            studio.leave(session_of(request))
            live.room.leave(session_of(request))

        app.unload(left)
    return app
