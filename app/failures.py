"""The one place where an exception becomes what Gradio shows.

In: whatever a handler raised. Out: ``gr.Error`` with a plain sentence, escaped, never a stack
trace; what is not the caller's mistake goes to the log in full.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr

from app import wording

logger = logging.getLogger(__name__)
SHOWN_S = 15


def spoken(error: Exception) -> gr.Error:
    """The error to raise in its place."""
    if not wording.is_callers(error):
        logger.error("a request failed", exc_info=error)
    message = escape(wording.failure(error))
    return gr.Error(message, duration=SHOWN_S, print_exception=False)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what the body raises into ``gr.Error``."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise spoken(error) from error
