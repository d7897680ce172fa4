"""A page whose wrong arguments are told in a line, to people and programs alike.

In: the values of an event, or of a call by name. Out: what Gradio makes of them, or ``gr.Error``.
Gradio itself answers some of them with ``null`` or status 500, and logs a stack for all.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from gradio.exceptions import InvalidPathError
from pydantic import ValidationError

from app.components.failures import gradio_error
from core.errors import UserError

LISTED = "/gradio_api/info lists what is expected"


class CheckedBlocks(gr.Blocks):
    """Blocks that say what is wrong with the values they are given."""

    async def preprocess_data(self, block_fn: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        """Read the values of one event, or say in ``gr.Error`` what is wrong with them."""
        try:
            return await super().preprocess_data(block_fn, inputs, *more, **named)
        except Exception as error:
            said = _reason(error, len(inputs), len(block_fn.inputs))
            on_page = block_fn.api_visibility == "private"
            raise gradio_error(str(UserError(said)), on_page=on_page) from error


def _reason(error: Exception, num_came: int, num_expected: int) -> str:
    """Say what is wrong with an event's values."""
    if isinstance(error, gr.Error):
        return str(error.message)
    if num_came < num_expected:
        return f"{num_came} arguments came; expected {num_expected}: {LISTED}"
    if isinstance(error, InvalidPathError):
        return "a file came that was not uploaded here; upload it first, to /gradio_api/upload"
    if isinstance(error, ValidationError):
        return f"an argument does not fit ({_first(error.errors())}); {LISTED}"
    return f"an argument does not fit ({type(error.__cause__ or error).__name__}); {LISTED}"


async def refuse_body(_request: Request, error: Exception) -> JSONResponse:
    """Answer for a body that is no call; FastAPI's own answer repeats it, which may not be JSON."""
    assert isinstance(error, RequestValidationError)
    said = f"the body does not fit ({_first(error.errors())}); expected an object with data, a list"
    return JSONResponse({"detail": str(UserError(said))}, 422)


def _first(errors: Any) -> str:
    """Say the first of pydantic's errors: where, and what was expected."""
    where = ".".join(str(part)[:40] for part in errors[0]["loc"] if part != "body")
    said = str(errors[0]["msg"]).encode("utf-8", "replace").decode()
    return f"{where}: {said}" if where else said
