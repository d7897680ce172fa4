"""Callers of the app's two APIs in this process: OpenAI's routes, and Gradio's calls.

In: a request, however odd. Out: nothing, for an answer in the shape that was asked for; a
``UserError`` with the words of a refusal. Anything else, an answer "it went wrong here" included,
is a fault.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from core.errors import UserError

TRANSCRIBE, TRANSLATE = "/v1/audio/transcriptions", "/v1/audio/translations"
FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
DONE = "data: [DONE]"


@dataclass(frozen=True)
class Request:
    """One HTTP request. body: as it is sent, in pieces."""

    path: str
    body: tuple[bytes, ...]
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def form(fields: list[tuple[str, str]], file: bytes, path: str = TRANSCRIBE) -> Request:
    """A form with one recording, as clients write it."""
    files: list[Any] = [(_plain(name), (None, _plain(text))) for name, text in fields]
    files.append(("file", ("a.wav", file)))
    made = httpx.Request("POST", "http://here/", files=files)
    kind = {"Content-Type": made.headers["Content-Type"]}
    return Request(path, (made.read(),), headers=kind)


class HttpCaller:
    """Asks ``api`` on an event loop of its own, without a network."""

    def __init__(self, api: FastAPI) -> None:
        self._loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(api)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://here", timeout=30)

    def ask(self, request: Request) -> None:
        """Send one request; see the module."""
        self._loop.run_until_complete(self._ask(request))

    async def _ask(self, request: Request) -> None:
        async def body() -> Any:
            for piece in request.body:
                yield piece

        url = httpx.URL("http://here").copy_with(raw_path=request.path.encode("ascii", "replace"))
        answer = await self._client.request(
            request.method, url, content=body(), headers=request.headers
        )
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}, error
            assert answer.status_code < 500 or answer.status_code == 503, error
            raise UserError(error["message"])
        kind = answer.headers.get("content-type", "")
        if kind.startswith("application/json"):
            strict_json(answer.text)
        elif kind.startswith("text/event-stream"):
            *events, last = answer.text.strip().split("\n\n")
            for event in events:
                strict_json(event.removeprefix("data: "))
            assert last == DONE, last

    def close(self) -> None:
        """End the loop."""
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


class GradioCaller:
    """Calls the named functions of the app at ``address``."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=address.rstrip("/") + "/gradio_api", timeout=30)

    def upload(self, data: bytes, name: str) -> dict[str, Any]:
        """Send a file; what a call names it by."""
        (path,) = self._client.post("/upload", files={"files": (name, data)}).json()
        return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": name}

    def ask(self, name: str, content: bytes) -> None:
        """Call a function with the JSON of its arguments; see the module."""
        headers = {"Content-Type": "application/json"}
        begun = self._client.post(f"/call/{name}", content=content, headers=headers)
        if begun.status_code >= 400:
            assert begun.status_code < 500, begun.text
            raise UserError(" ".join(begun.text.split())[:300])
        answer = self._client.get(f"/call/{name}/{begun.json()['event_id']}").text
        event, _, data = answer.strip().split("\n\n")[-1].partition("\ndata: ")
        found = strict_json(data)
        if event == "event: error":
            assert found is not None, "an error without a word"
            said = found["error"] if isinstance(found, dict) else str(found)
            assert "went wrong here" not in said, said
            raise UserError(said)
        assert event == "event: complete", answer[-300:]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def strict_json(text: str) -> Any:
    """Read JSON as browsers do: without NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in {text[:200]}")

    return json.loads(text, parse_constant=refuse)


def _plain(text: str) -> str:
    """Return the text with "?" for what no encoding has."""
    return text.encode("utf-8", "replace").decode()
