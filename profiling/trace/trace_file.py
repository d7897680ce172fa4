"""A trace file -> the JSON in it, within limits and with errors a person can act on.

In: a path, bytes or an open file; gzip is told by content. Out: the decoded JSON value. The source
is only read, never unpacked beyond the limit; what is wrong with it is one :class:`TraceError`.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import UserError

# The first bytes -> what it is.
FOREIGN = (
    (b"PK\x03\x04", "a zip archive: unpack it and choose the trace in it"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"(\xb5/\xfd", "a zstd archive: unpack it first"),
    (b"\x80", "a pickle, such as a memory snapshot"),
    (b"<", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: git lfs pull fetches it"),
    (b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
)
MAX_OBJECTS, MAX_VALUES = 8_000_000, 60_000_000  # a gigabyte once parsed, however well they pack
# A string, which is left alone, or a bare word that C writes for what is no number.
_BARE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(-?\b(?:inf|nan)\b)', re.IGNORECASE | re.DOTALL)

TraceSource = str | os.PathLike[str] | bytes | BinaryIO


class TraceError(UserError):
    """A trace that cannot be read: what came, what was expected, what to do, in one line."""


def title_of(source: TraceSource) -> str:
    """Return what to call the source in a message."""
    return Path(source).name if isinstance(source, str | os.PathLike) else "the trace"


def load_json(source: TraceSource, max_bytes: int) -> tuple[Any, list[str]]:
    """Return the JSON value in ``source``, plain or gzipped, and notes of what was mended.

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
    _check_kind(data, title)
    return data.decode("utf-8-sig", errors="replace")


def _at_most(file: BinaryIO, limit: int) -> bytes:
    head = file.read(2)
    file = io.BufferedReader(_Rejoined(head, file))
    if head == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=file) as unpacked:
            return unpacked.read(limit + 1)
    return file.read(limit + 1)


def _check_kind(data: bytes, title: str) -> None:
    """Refuse by its name what people attach in place of a trace, and more objects than fit."""
    head = data[:64].lstrip()
    kind = next((kind for begin, kind in FOREIGN if head.startswith(begin)), None)
    if kind is None and any(byte < 9 for byte in head):
        kind = "a binary file, such as a Perfetto or XPlane trace"
    if kind is not None:
        raise TraceError(
            f"{title} is {kind}; expected a Chrome trace as JSON, plain or gzipped, as "
            "torch.profiler exports it"
        )
    num = data.count(b"{") + data.count(b"["), data.count(b",")
    if num[0] > MAX_OBJECTS or num[1] > MAX_VALUES:
        raise TraceError(
            f"{title} holds {num[0]:,} objects and lists and {num[1]:,} values; at most "
            f"{MAX_OBJECTS:,} and {MAX_VALUES:,} are read: record fewer steps"
        )


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


def _parsed(text: str, title: str) -> tuple[Any, list[str]]:
    """Parse JSON, with control characters in strings forgiven: stacks of Python hold some."""
    try:
        return _loaded(text), []
    except json.JSONDecodeError as error:
        for mended, note in _mended(text):
            try:
                return _loaded(mended), [note]
            except (json.JSONDecodeError, RecursionError):
                continue
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


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a whole number of more digits than Python reads: no time, no size
        return json.loads(text, strict=False, parse_int=float)


def _mended(text: str) -> Iterator[tuple[str, str]]:
    """Yield readings of the text: the format lets the list of events stand open."""
    inside = text.rstrip().removesuffix("]").rstrip().removesuffix(",").rstrip()
    if inside.endswith("}"):
        end = "]" if inside.lstrip().startswith("[") else "]}"
        yield inside + end, "the list of events was not closed; all of it was read"
    valued = _BARE.sub(lambda found: "null" if found[1] else found[0], text)
    yield valued, "bare inf and nan, which are not JSON, were read as missing"
