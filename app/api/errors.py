"""Errors -> an answer in OpenAI's shape: ``{"error": {message, type, param, code}}``.

In: an exception. Out: its JSON response. The words of a :class:`core.errors.UserError` reach the
caller; everything else is logged in full and told in general words.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi.responses import JSONResponse

from app.service.batching.waiting_line import QueueFull
from app.service.user_errors import user_message
from core import AudioError
from core.checkpoint.hub_errors import CheckpointNotFound
from core.errors import UserError

logger = logging.getLogger(__name__)

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
CODES = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "queue_full",
    500: "internal_error",
    503: "unavailable",
}


class ApiError(Exception):
    """A request that is refused. param: the field that is wrong; headers: of the answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or CODES.get(status, "invalid_value")
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """Return the JSON object of the answer."""
        kind = "server_error" if self.status >= 500 else TYPES.get(self.status)
        error = {
            "message": self.message,
            "type": kind or "invalid_request_error",
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.body(), self.status, self.headers)


def api_error(error: BaseException) -> ApiError:
    """Return the refusal that an exception means; log it where it is not the caller's mistake."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return ApiError(429, str(error), headers={"Retry-After": str(error.retry_after_s)})
    if isinstance(error, UserError):
        status = 415 if isinstance(error, AudioError) else 400
        if isinstance(error, CheckpointNotFound):
            status = 404
        param = "file" if status == 415 else "model" if status == 404 else None
        return ApiError(status, user_message(error), param=param)
    return ApiError(500, user_message(error))
