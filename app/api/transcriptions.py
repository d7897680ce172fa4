"""One request for a transcription: read, queued, followed, answered.

In: an HTTP request. Out: its response. A caller that disconnects loses its place in the queue, and
the model ends its work at the next step.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from app.api.errors import ApiError, api_error
from app.api.form import DIARIZED, TranscriptionForm, TranslationForm, read_form
from app.api.formats import (
    JSON_FORMATS,
    KEEP_ALIVE,
    TEXT_FORMATS,
    StreamWriter,
    sse,
)
from app.api.models import ModelNames
from app.api.upload import Upload, read_recording, read_upload
from app.service.batching.queue import BatchingQueue
from app.service.batching.waiting_line import Failed, QueuedClip
from app.service.service import TranscriptionService
from core import Transcript
from core.transcription.options import Event, Finished

T = TypeVar("T")

KEEP_ALIVE_S = 15.0
IGNORED_HEADER = "X-Ignored-Fields"
NO_SPEAKERS = (
    "{model} does not tell speakers apart, which response_format 'diarized_json' needs; choose "
    "'verbose_json'"
)


class Transcriptions:
    """Answers requests. max_upload_bytes bounds the recording as it is sent."""

    def __init__(
        self, service: TranscriptionService, queue: BatchingQueue, max_upload_bytes: int
    ) -> None:
        self._service, self._queue = service, queue
        self._models = ModelNames(service)
        self._max_upload_bytes = max_upload_bytes

    async def answer(self, request: Request, kind: type[TranscriptionForm]) -> Response:
        """Answer one request.

        Returns:
            The transcript in the format that was asked for, or a stream of events.

        Raises:
            ApiError: it is refused; says why.
            ClientDisconnect: the caller left.
        """
        client = request.client.host if request.client else ""
        self._queue.check_room(client)  # before the body is read
        with ExitStack() as ending:
            upload = await read_upload(request, self._max_upload_bytes)
            ending.callback(upload.file.file.close)
            form, unknown = read_form(kind, upload.fields)
            clip, events = self._checked(client, form)
            ending.callback(self._queue.cancel, clip)
            await self._put(clip, upload)
            first = await _unless_gone(request, events.get())
            response: Response
            if form.stream and not isinstance(first, Failed):
                response = EventStream(streamed(form, first, events), ending.pop_all().close)
            else:
                response = written(await _unless_gone(request, _end(first, events)), form)
        if ignored := [*unknown, *form.unused(self._models.info(clip.settings.model))]:
            response.headers[IGNORED_HEADER] = _names(ignored)
        return response

    def _checked(
        self, client: str, form: TranscriptionForm
    ) -> tuple[QueuedClip, asyncio.Queue[Event | Failed]]:
        """Check what can be checked without the recording; the clip still lacks it."""
        model = self._models.resolve(form.model)
        info, translate = self._models.info(model), isinstance(form, TranslationForm)
        if form.response_format == DIARIZED and info is not None and "speakers" not in info.tasks:
            message = NO_SPEAKERS.format(model=model)
            raise ApiError(400, message, param="response_format")
        settings = form.settings(model, info, translate=translate)
        self._models.check(settings)
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event | Failed]()

        def tell(event: Event | Failed) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        clip = QueuedClip(client=client, settings=settings, tell=tell, stream=form.stream)
        return clip, events

    async def _put(self, clip: QueuedClip, upload: Upload) -> None:
        """Decode the recording and have it wait for its turn."""

        def read(clip: QueuedClip) -> None:
            clip.source, clip.seconds = read_recording(
                upload.file, self._service.limits.max_audio_s
            )

        await run_in_threadpool(self._queue.put, clip, read)


class EventStream(StreamingResponse):
    """A stream of events. on_end: called once it is over, however that came."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[str], on_end: Callable[[], None]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def streamed(
    form: TranscriptionForm, first: Event, events: asyncio.Queue[Event | Failed]
) -> AsyncIterator[str]:
    """Write a stream's events; what goes wrong once it has begun is its last."""
    writer = StreamWriter(form)
    event: Event | Failed | None = first
    while not isinstance(event, Failed):
        if event is None:
            yield KEEP_ALIVE
        else:
            for text in writer.write(event):
                yield text
        if isinstance(event, Finished):
            return
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                event = await events.get()
        except TimeoutError:
            event = None
    yield sse(api_error(event.error).body())


def written(transcript: Transcript, form: TranscriptionForm) -> Response:
    """Return the answer in the format that was asked for."""
    if form.response_format in TEXT_FORMATS:
        write, media_type = TEXT_FORMATS[form.response_format]
        return Response(write(transcript), media_type=media_type)
    return JSONResponse(JSON_FORMATS[form.response_format](transcript, form))


async def _end(first: Event | Failed, events: asyncio.Queue[Event | Failed]) -> Transcript:
    """Wait for the end.

    Returns:
        The transcript of the last event.

    Raises:
        Exception: what the work raised.
    """
    event = first
    while not isinstance(event, Finished | Failed):
        event = await events.get()
    if isinstance(event, Failed):
        raise event.error
    return event.transcript


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for ``work`` for as long as the caller is there.

    Returns:
        What it gives.

    Raises:
        ClientDisconnect: the caller left first.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())  # the body is read: what comes is the end
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


def _names(fields: Sequence[str]) -> str:
    """Return names as a header may hold them."""
    return ", ".join(dict.fromkeys(re.sub(r"[^\w.\[\]-]", "?", n, flags=re.A)[:40] for n in fields))
