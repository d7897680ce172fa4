"""A trace file -> the JSON in it, within limits and with errors a person can act on.

In: a path, bytes or an open file; gzip is told by content. Out: the decoded JSON value. The source
is only read, never unpacked beyond the limit; what is wrong with it is one :class:`TraceError`.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import UserError

TraceSource = str | os.PathLike[str] | bytes | BinaryIO


class TraceError(UserError):
    """A trace that cannot be read: what came, what was expected, what to do, in one line."""


def title_of(source: TraceSource) -> str:
    """Return what to call the source in a message."""
    return Path(source).name if isinstance(source, str | os.PathLike) else "the trace"


def load_json(source: TraceSource, max_bytes: int) -> Any:
    """Return the JSON value in ``source``, plain or gzipped.

    Raises:
        TraceError: not readable, damaged, truncated, not JSON, or more than ``max_bytes`` of it.
    """
    title = title_of(source)
    return _parsed(_unpacked(source, title, max_bytes), title)


def _unpacked(source: TraceSource, title: str, limit: int) -> str:
    """Return the JSON text, never more than ``limit`` bytes of it."""
    try:
        if isinstance(source, bytes):
            data = _at_most(io.BytesIO(source), limit)
        elif isinstance(source, str | os.PathLike):
            with open(source, "rb") as file:
                data = _at_most(file, limit)
        else:
            data = _at_most(source, limit)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(
            f"{title} is a damaged or truncated gzip file ({error}); copy or record it again"
        ) from None
    except OSError as error:
        raise TraceError(
            f"{title} cannot be read: {error.strerror or error}; expected a .json or .json.gz file"
        ) from None
    if len(data) > limit:
        raise TraceError(
            f"{title} holds more than {limit / 1e6:.0f} MB of JSON, the most that is read; "
            "record fewer steps, or leave out stacks and shapes"
        )
    return data.decode("utf-8-sig", errors="replace")


def _at_most(file: BinaryIO, limit: int) -> bytes:
    head = file.read(2)
    file = io.BufferedReader(_Rejoined(head, file))
    if head == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=file) as unpacked:
            return unpacked.read(limit + 1)
    return file.read(limit + 1)


class _Rejoined(io.RawIOBase):
    """A file whose first bytes were already taken: not every upload can seek."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _parsed(text: str, title: str) -> Any:
    """Parse JSON, with control characters in strings forgiven: stacks of Python hold some."""
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        if text.rstrip()[-1:] not in ("}", "]"):
            raise TraceError(
                f"{title} ends in the middle, after {len(text):,} characters of JSON; "
                "the recording was cut short: copy or record it again"
            ) from None
        raise TraceError(
            f"{title} is not JSON ({error.msg} at line {error.lineno}, column {error.colno}); "
            "expected a Chrome trace as torch.profiler exports it"
        ) from None
    except RecursionError:
        raise TraceError(
            f"{title} nests too deeply for a Chrome trace; expected a flat list of events"
        ) from None
