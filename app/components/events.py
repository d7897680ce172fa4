"""How handlers are attached: which events wait for the model, and whose request one is.

Every event that runs a model shares one place in Gradio's queue, so that timings are of one
request at a time and a visitor sees the place in the queue.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

Updates = dict[Any, Any]  # component -> new value or gr.update(...)

MODEL_EVENT: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
PAGE_EVENT: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}
# For handlers that may end in a sentence: outside its queue Gradio answers an error with an HTTP
# status that browsers log as one of the page's.
TELLING_EVENT: dict[str, Any] = {
    "concurrency_limit": None,
    "show_progress": "hidden",
    "api_visibility": "private",
}


def session_of(request: gr.Request) -> str:
    """The visitor's page: one browser tab, or one API client."""
    return request.session_hash or "nobody"
