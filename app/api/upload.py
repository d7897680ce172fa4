"""The body of a request -> one recording and its fields, refused while it arrives, not after.

In: a request with ``multipart/form-data``. Out: :class:`Upload`; then its waveform [N] at 16 kHz.
Large files lie on disk, never whole in memory; they are deleted when the request is over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NoReturn

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.api.errors import ApiError
from core.audio.decode import load_audio, measure_seconds, probe
from core.audio.waveform import SAMPLE_RATE, RecordingTooLong

FILE = "file"
MAX_FIELDS = 100
MAX_FIELD_BYTES = 64 * 1024
FORM_BYTES = 256 * 1024  # of a body, besides its file
AHEAD_S = 60.0  # recordings up to this length are decoded before their turn
LONGEST_AHEAD_S = 600.0  # where a header that states less turns out to be wrong


@dataclass(frozen=True)
class Upload:
    """A request's body. fields: (name, text) in the order they came."""

    file: UploadFile
    fields: tuple[tuple[str, str], ...]


async def read_upload(request: Request, max_bytes: int) -> Upload:
    """Read a form with one file.

    Args:
        request: whose body was not read yet.
        max_bytes: of the file.

    Returns:
        The file, which the caller closes, and the fields.

    Raises:
        ApiError: 413 too large, 415 no form, 400 no file, several, or a form that is broken.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        message = f"the content type is {kind[:80]!r}; expected multipart/form-data with a file"
        raise ApiError(415, message)
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed) > max_bytes + FORM_BYTES:
        _refuse_size(max_bytes)
    parser = MultiPartParser(
        request.headers,
        _bounded(request, max_bytes),
        max_files=1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        _refuse_form(error)
    parts = form.multi_items()
    fields = tuple((name, value) for name, value in parts if isinstance(value, str))
    files = [(name, value) for name, value in parts if isinstance(value, UploadFile)]
    if not files:
        came = "a text" if any(name == FILE for name, _ in fields) else "nothing"
        raise ApiError(400, f"{came} came as 'file'; expected one recording", param=FILE)
    (name, file) = files[0]
    if name != FILE or not file.size:
        await file.close()
        came = f"a file came as {name[:40]!r}" if name != FILE else "the file is empty (0 bytes)"
        raise ApiError(400, f"{came}; expected one recording as 'file'", param=FILE)
    return Upload(file, fields)


def read_recording(file: UploadFile, max_audio_s: float | None) -> tuple[Any, float | None]:
    """Decode a short recording; leave a long one in its file, to be read piece by piece.

    Args:
        file: what came.
        max_audio_s: the longest recording that is taken, None for any length.

    Returns:
        A waveform [N] at 16 kHz or a binary file, and its length in seconds or None.

    Raises:
        AudioError: no readable recording.
        ApiError: 413, too long.
    """
    inner = file.file
    source: Any = SimpleNamespace(
        name=file.filename, read=inner.read, seek=inner.seek, tell=inner.tell, seekable=lambda: True
    )
    seconds = probe(source).duration_s
    try:
        if seconds is not None and seconds > AHEAD_S or seconds is max_audio_s is None:
            if max_audio_s is not None:  # a header may say less than there is
                seconds = measure_seconds(source, max_seconds=max_audio_s)
            return source, seconds
        waveform = load_audio(source, max_seconds=max_audio_s or LONGEST_AHEAD_S)
    except RecordingTooLong as error:
        if max_audio_s is None:
            return source, None
        raise ApiError(413, str(error), param=FILE) from error
    return waveform, waveform.shape[0] / SAMPLE_RATE


async def _bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives, up to the limit."""
    left = max_bytes + FORM_BYTES
    async for chunk in request.stream():
        left -= len(chunk)
        if left < 0:
            _refuse_size(max_bytes)
        yield chunk


def _refuse_size(max_bytes: int) -> NoReturn:
    """Refuse an upload for its size.

    Raises:
        ApiError: always; the connection is closed, so that no more is sent.
    """
    message = f"the upload is larger than {max_bytes / 2**20:.0f} MB; send a shorter or smaller one"
    raise ApiError(413, message, param=FILE, headers={"Connection": "close"})


def _refuse_form(error: MultiPartException) -> NoReturn:
    """Refuse a form for what its parser said.

    Raises:
        ApiError: always.
    """
    said, status, param = error.message, 400, None
    message = f"the form is broken ({said}); expected multipart/form-data with a file"
    if said.startswith("Too many files"):
        message, param = "several files came; expected one recording as 'file'", FILE
    elif said.startswith("Part exceeded"):
        status = 413
        message = f"a field is larger than {MAX_FIELD_BYTES // 1024} KB; send less text"
    elif said.startswith("Too many fields"):
        message = f"more than {MAX_FIELDS} fields came; send fewer"
    raise ApiError(status, message, param=param) from error
