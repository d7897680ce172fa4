"""The one place where an exception becomes what Gradio shows.

In: whatever a handler raised. Out: ``gr.Error`` with a plain sentence, never a stack trace; what is
not the caller's mistake goes to the log in full. Gradio shows messages as HTML on the page, so they
are escaped there; programs get them as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr

from app.wording import phrases

logger = logging.getLogger(__name__)
SHOWN_S = 15


def user_message(error: Exception) -> str:
    """What went wrong, in words; what is not the caller's mistake goes to the log in full."""
    if not phrases.is_callers(error):
        logger.error("a request failed", exc_info=error)
    return phrases.failure(error)


def gradio_error(error: Exception, *, on_page: bool = True) -> gr.Error:
    """The error to raise in its place, escaped for the page or as it is for a program."""
    message = user_message(error)
    shown = escape(message) if on_page else message
    return gr.Error(shown, duration=SHOWN_S, print_exception=False)


@contextmanager
def plain_errors(*, on_page: bool = True) -> Iterator[None]:
    """Turn what the body raises into ``gr.Error``."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise gradio_error(error, on_page=on_page) from error
