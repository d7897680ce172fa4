"""The outermost layer of every request: token, metrics, and the last handler of errors.

In: an ASGI app. Out: the same, behind a bearer token where one is set. Without the token no body is
read. Whatever the app raises becomes an answer in OpenAI's shape.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import ApiError, api_error
from app.api.metrics import Metrics

OPEN = ("/healthz", "/readyz")  # what asks for these has no tokens
CLIENT_LEFT = 499
ROUTES = (
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/models",
    "/metrics",
    *OPEN,
)


class Guard:
    """Stands before the routes. api_key: the token that is asked for, None for none."""

    def __init__(self, app: ASGIApp, metrics: Metrics, api_key: str | None) -> None:
        self._app, self._metrics = app, metrics
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception as error:
            if status:  # half an answer is out: the server cuts the connection and logs why
                raise
            await api_error(error).response()(scope, receive, sending)
        finally:
            path = scope["path"]
            known = next((route for route in ROUTES if path == route), None)
            known = known or ("/v1/models" if path.startswith("/v1/models/") else "other")
            self._metrics.requests.add(route=known, status=str(status or CLIENT_LEFT))

    def _check(self, scope: Scope) -> None:
        """See that the request has the token.

        Raises:
            ApiError: 401, none came, or another.
        """
        if self._key is None or scope["path"] in OPEN:
            return
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secrets.compare_digest(
            token.strip().encode(), self._key
        ):
            came = "another came" if token else "none came"
            raise ApiError(
                401,
                f"this server asks for its API key as a bearer token; {came}",
                headers={"WWW-Authenticate": "Bearer"},
            )
