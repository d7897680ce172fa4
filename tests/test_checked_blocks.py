"""Wrong arguments of a call: one line each, no ``null``, no stack.

Run alone: ``python -m pytest tests/test_checked_blocks.py``. The slow suite calls a whole app:
``test_generated_requests.py``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from app.components.checked_blocks import CheckedBlocks, refuse_body

BODIES = (b'{"data": NaN}', b'"\\ud800"', b'{"data": "\\ud800"}', b"[", b"")


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    with CheckedBlocks(analytics_enabled=False) as page:
        inputs = [gr.Radio(["a", "b"], label="choice"), gr.Slider(1, 3), gr.File()]
        gr.Button().click(lambda *_: None, inputs, [], api_name="choose")
        gr.Button().click(lambda *_: None, inputs, [], api_visibility="private")
    return page


def told(page: gr.Blocks, values: list[Any], number: int = 0) -> gr.Error:
    with pytest.raises(gr.Error) as caught:
        asyncio.run(page.preprocess_data(list(page.fns.values())[number], values, None))
    assert not caught.value.print_exception
    assert len(caught.value.message.splitlines()) == 1
    return caught.value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["<i>", 2, None], "'<i>' (type: <class 'str'>) is not in the list"),
        (["x" * 100_000, 2, None], "is not in the list"),
        (["a", 7, None], "greater than maximum value 3"),
        (["a", "two", None], "does not fit (TypeError)"),
        (["a", 2, {"path": 1}], "does not fit"),
        (["a"], "1 arguments came; expected 3"),
    ],
)
def test_a_value_that_does_not_fit_is_told_in_a_line(
    page: gr.Blocks, values: list[Any], said: str
) -> None:
    assert said in told(page, values).message


def test_what_a_person_reads_of_it_is_escaped(page: gr.Blocks) -> None:
    assert "&lt;i&gt;" in told(page, ["<i>", 2, None], number=1).message


@pytest.mark.parametrize(
    "body", [b'{"data": NaN}', b'"\\ud800"', b'{"data": "\\ud800"}', b"[", b""]
)
def test_a_body_that_is_no_call_is_refused_in_a_line(body: bytes) -> None:
    class Call(BaseModel):
        data: list[Any]

    app = FastAPI(exception_handlers={RequestValidationError: refuse_body})

    @app.post("/")
    async def call(content: Call) -> None:
        return None

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        headers = {"Content-Type": "application/json"}
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post("/", content=body, headers=headers)

    answer = asyncio.run(post())
    assert answer.status_code == 422
    assert "the body does not fit" in answer.json()["detail"]
