"""An exception -> what Gradio shows: one sentence, never a stack trace.

In: whatever a handler raised. Out: ``gr.Error`` with the words of :mod:`app.service.user_errors`.
Gradio shows messages as HTML on the page, so they are escaped there; programs get them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import gradio as gr

from app.service.user_errors import user_message

Updates = dict[Any, Any]  # component -> new value or gr.update(...)
SHOWN_S = 15


def gradio_error(message: str, *, on_page: bool = True) -> gr.Error:
    """Return the error that shows ``message``: escaped on the page, as it is for a program."""
    shown = escape(message) if on_page else message
    return gr.Error(shown, duration=SHOWN_S, print_exception=False)


def failures_shown(
    failed: Callable[[str], Updates], run: Callable[..., Iterator[Updates]], *values: Any
) -> Iterator[Updates]:
    """Yield the updates of ``run(*values)``; ``failed`` and ``gr.Error`` show its exception."""
    try:
        yield from run(*values)
    except Exception as error:
        message = user_message(error)
        yield failed(message)
        raise gradio_error(message) from error


@contextmanager
def plain_errors(*, on_page: bool = True) -> Iterator[None]:
    """Turn what the body raises into ``gr.Error``."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise gradio_error(user_message(error), on_page=on_page) from error
