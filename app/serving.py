"""How the app is served: looks, limits and privacy, in one place.

In: the built Blocks, where to listen. Out: a running server. Nothing is sent anywhere: no
analytics, no run history in the visitor's browser, fonts and scripts from Gradio's own bundle.
"""

from __future__ import annotations

import gradio as gr

from app.examples import FOLDER
from app.theme import theme
from core.catalog import ASSETS

MAX_WAITING = 64  # requests in the queue; the next is told to come back
MAX_UPLOAD = "200mb"


def serve(
    app: gr.Blocks,
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    block: bool = True,
) -> str:
    """Start the server; returns its address, at once if ``block`` is False.

    Args:
        app: what :func:`app.ui.build_app` made.
        host: address to listen on; None means GRADIO_SERVER_NAME, else this machine only.
        port: None means GRADIO_SERVER_PORT, else the first free one from 7860.
        share: open a public tunnel through gradio.live.
        block: stay until the server is stopped.
    """
    app.queue(default_concurrency_limit=None, max_size=MAX_WAITING)
    _, local, _ = app.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=not block,
        theme=theme(),
        css_paths=ASSETS / "style.css",
        footer_links=["api", "settings"],
        run_history=False,
        enable_monitoring=False,
        max_file_size=MAX_UPLOAD,
        allowed_paths=[str(FOLDER)],
        show_error=False,
        ssr_mode=False,
        pwa=False,
    )
    return local
