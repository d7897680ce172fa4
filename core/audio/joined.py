"""Files that were joined byte by byte -> where each of them begins and ends.

In: an open file that can seek. Out: one stretch of bytes for each recording in it. MP3, AAC and
FLAC are left whole, for FFmpeg reads them on; of WAV, AIFF, MP4, Matroska and chained Ogg it reads
the first, or two, and falls silent about the rest, so these are cut here. Only headers are read,
but for Matroska without lengths, as browsers record it, which is searched.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_PARTS = 1_000
# A larger claim is a placeholder of a program that wrote to a pipe: the data go on to the end.
PLACEHOLDER_BYTES = 0x7FFF_0000
# Tags of editors and players may follow the sound; what is longer than this is no tag.
MAX_TAG_BYTES = 65_536
EBML, SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"  # what a Matroska file and its body begin with
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Part:
    """One recording inside a file: bytes from ``start`` up to ``end``."""

    start: int
    end: int


@dataclass(frozen=True)
class JoinedFile:
    """The recordings in a file, in order, and the bytes after them that belong to none."""

    parts: tuple[Part, ...]
    unread_bytes: int


class FilePart(io.RawIOBase):
    """A stretch of an open file, read as if it were all of it."""

    def __init__(self, file: BinaryIO, part: Part) -> None:
        """Begin at the part's start."""
        self._file, self._part, self._at = file, part, 0

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes; all that is left when negative."""
        left = max(0, self._part.end - self._part.start - self._at)
        self._file.seek(self._part.start + self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to ``offset`` bytes from the start, the current place or the end."""
        base = {os.SEEK_CUR: self._at, os.SEEK_END: self._part.end - self._part.start}
        self._at = base.get(whence, 0) + offset
        return self._at

    def tell(self) -> int:
        """Return the current place."""
        return self._at


def find_parts(file: BinaryIO, size: int) -> JoinedFile:
    """Find the recordings in a file of ``size`` bytes; one that is not joined has one part."""
    head = _at(file, 0, 12)
    starts, end = [0], size
    if head[:4] in (b"RIFF", b"FORM"):
        walk = _iff_ends(file, size)
    elif head[4:8] == b"ftyp":
        walk = _mp4_ends(file, size)
    elif head[:4] == b"OggS":
        walk = _ogg_ends(file, size)
    elif head[:4] == EBML:
        walk = _matroska_ends(file, size)
    else:
        walk = iter(())
    for place in walk:
        if place.joined and len(starts) < MAX_PARTS:
            starts.append(place.offset)
        else:
            end = place.offset
            break
    ends = [*starts[1:], end]
    parts = tuple(Part(a, b) for a, b in zip(starts, ends, strict=True))
    unread = size - end
    return JoinedFile(parts, unread if unread > MAX_TAG_BYTES else 0)


@dataclass(frozen=True)
class _Place:
    """Where a recording ends: at the beginning of another (``joined``), or of something else."""

    offset: int
    joined: bool


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _iff_ends(file: BinaryIO, size: int) -> Iterator[_Place]:
    """Walk the chunks of WAV or AIFF. The form's own length is often wrong, so it is not used."""
    form = _at(file, 0, 4)
    order, sound = ("little", b"data") if form == b"RIFF" else ("big", b"SSND")
    place, has_sound = 12, False
    while place + 8 <= size:
        head = _at(file, place, 12)
        if has_sound and head[:4] == form:
            yield _Place(place, True)
            place, has_sound = place + 12, False
            continue
        claim = int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
        if not head[:4].isascii() or not head[:4].decode("ascii").isprintable():
            if has_sound:
                yield _Place(place, False)
            return
        if head[:4] == sound:
            has_sound = True
            if not claim or claim >= PLACEHOLDER_BYTES:
                return
        # Chunks begin at even places, which some programs forget.
        odd = claim % 2 and _at(file, place + 8 + claim, 4) != form
        place += 8 + claim + int(odd)


def _mp4_ends(file: BinaryIO, size: int) -> Iterator[_Place]:
    """Walk the boxes: a second ``ftyp`` after an index begins another recording."""
    place, has_index = 0, False
    while place + 8 <= size:
        head = _at(file, place, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # zero: up to the end of the file
            return
        if head[4:8] == b"ftyp" and has_index:
            yield _Place(place, True)
            has_index = False
        has_index = has_index or head[4:8] == b"moov"
        place += length


def _ogg_ends(file: BinaryIO, size: int) -> Iterator[_Place]:
    """Walk the pages: one that begins a stream after others went on begins a chained recording."""
    place, went_on = 0, False
    while place + 27 <= size:
        head = _at(file, place, 27 + 255)
        if head[:4] != b"OggS":
            return
        begins = bool(head[5] & 2)
        if begins and went_on:
            yield _Place(place, True)
        went_on = not begins
        num_segments = head[26]
        place += 27 + num_segments + sum(head[27 : 27 + num_segments])


def _matroska_ends(file: BinaryIO, size: int) -> Iterator[_Place]:
    """Walk header, body, header, body; a body without a length ends where the next header is."""
    place = 0
    while place + 12 <= size:
        head = _at(file, place, 12)
        if head[:4] == EBML and place:
            yield _Place(place, True)
        width = 9 - head[4].bit_length() if head[4] else 9
        length = int.from_bytes(head[4 : 4 + width], "big") - (1 << (7 * width))
        if width > 8 or head[:4] not in (EBML, SEGMENT):
            return
        if head[:4] == SEGMENT and length == (1 << (7 * width)) - 1:  # all ones: not known
            place = _next_header(file, place + 12, size)
        else:
            place += 4 + width + length


def _next_header(file: BinaryIO, place: int, size: int) -> int:
    """Find where the next Matroska header begins; ``size`` where there is none."""
    while place < size:
        block = _at(file, place, BLOCK_BYTES + 64)
        found = -1
        while (found := block.find(EBML, found + 1)) >= 0:
            if any(name in block[found : found + 64] for name in (b"webm", b"matroska")):
                return place + found
        place += BLOCK_BYTES
    return size
