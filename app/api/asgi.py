"""The speech API as one ASGI app: OpenAI's routes, and what operators ask for.

In: a service. Out: an app to be served alone (``python -m app.api``) or inside another
(:func:`routes_into`). The page's own API, Gradio's, is :mod:`app.api.endpoints`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from app.api.errors import ApiError
from app.api.form import TranscriptionForm, TranslationForm
from app.api.guard import Guard
from app.api.metrics import CONTENT_TYPE, Metrics
from app.api.models import ModelNames
from app.api.transcriptions import Transcriptions
from app.service.batching.queue import BatchingQueue
from app.service.batching.waiting_line import QueueLimits
from app.service.deployment import Deployment
from app.service.service import TranscriptionService
from app.service.worker import TRANSCRIPTION
from core.errors import UserError

HOST = "127.0.0.1"
PATHS = ("/v1/{rest:path}", "/healthz", "/readyz", "/metrics")


def create_api(
    service: TranscriptionService, deployment: Deployment, limits: QueueLimits | None = None
) -> FastAPI:
    """Make the app around ``service``; ``limits`` bound its queue, which is ``state.queue``."""
    metrics, models = Metrics(), ModelNames(service)

    def submit(turn: Callable[[], None]) -> object:
        return service.worker.submit(
            turn, TRANSCRIPTION, lambda: all(map(service.models.is_ready, queue.waiting_settings()))
        )

    queue = BatchingQueue(
        submit,
        service.lab,
        limits=limits,
        missing=service.missing,
        report=metrics.batch,
    )
    requests = Transcriptions(service, queue, deployment.max_upload_mb * 2**20)
    api = FastAPI(
        title="Granite Speech Lab", openapi_url="/v1/openapi.json", docs_url=None, redoc_url=None
    )
    api.state.queue = queue
    api.add_middleware(Guard, metrics=metrics, api_key=deployment.api_key)

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        """Answer for a path or a method that is none of ours."""
        message = f"{request.method} {request.url.path}: {error.detail}; see /v1/openapi.json"
        return ApiError(error.status_code, message, headers=dict(error.headers or {})).response()

    @api.post("/v1/audio/transcriptions", openapi_extra=_body(TranscriptionForm))
    async def transcriptions(request: Request) -> Response:
        """Write what is said in a recording."""
        return await requests.answer(request, TranscriptionForm)

    @api.post("/v1/audio/translations", openapi_extra=_body(TranslationForm))
    async def translations(request: Request) -> Response:
        """Write in English what is said in a recording."""
        return await requests.answer(request, TranslationForm)

    @api.get("/v1/models")
    async def listed() -> dict[str, Any]:
        """List the models and the aliases of the start model."""
        return {"object": "list", "data": models.listed()}

    @api.get("/v1/models/{name:path}")
    async def one(name: str) -> dict[str, Any]:
        """Show one model."""
        return models.one(name)

    def is_ready() -> bool:
        return service.models.holds(service.models.start)

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the server is up."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> JSONResponse:
        """Say whether the start model is in memory; 503 where it is not."""
        ready = is_ready()
        return JSONResponse({"status": "ready" if ready else "loading"}, 200 if ready else 503)

    @api.get("/metrics")
    async def shown() -> PlainTextResponse:
        """Show what this server did, for Prometheus."""
        return PlainTextResponse(metrics.page(queue, is_ready()), media_type=CONTENT_TYPE)

    return api


def routes_into(api: FastAPI) -> list[BaseRoute]:
    """Return routes that bring ``api`` into another app, at the same paths."""
    return [Route(path, endpoint=api) for path in PATHS]


def serve_api(api: FastAPI, *, host: str | None = None, port: int | None = None) -> None:
    """Serve ``api`` alone until it is stopped.

    Args:
        api: what :func:`create_api` made.
        host: address to listen on; None for this machine only.
        port: None for a free one; it is printed.

    Raises:
        UserError: the port is taken.
    """
    where = (host or HOST, port or 0)
    try:
        # With its protocol named: only then does asyncio send small answers without a delay.
        family, kind, protocol, _, address = socket.getaddrinfo(*where, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        message = f"port {port} cannot be used ({error.strerror}); choose another with --port"
        raise UserError(message) from error
    with listener:
        print(f"* Running the API on http://{where[0]}:{listener.getsockname()[1]}", flush=True)
        server = uvicorn.Server(uvicorn.Config(api, log_level="warning"))
        server.run(sockets=[listener])


def _body(form: type[TranscriptionForm]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a form."""
    schema = form.model_json_schema()
    schema["properties"]["file"] = {"type": "string", "format": "binary"}
    schema["required"] = ["file"]
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}
