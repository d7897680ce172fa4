"""Recordings -> clips to transcribe: each gets an id, and those that are the same become one.

In: items, in any order. Out: :class:`Identified`. Items that name the same recording (and part) are
one. By content, recordings of equal bytes share one pass and keep a row each.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from core.bulk.inputs import BulkItem

IDS = ("stat", "content")
THREADS = 8  # that read headers or contents
VERSION = 1  # of the plan's file


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """One pass of work. seconds: its length, by manifest, header or size.

    copies: other recordings of the same content, which get the same text.
    """

    id: str
    seconds: float
    item: BulkItem
    copies: tuple[BulkItem, ...] = ()

    @property
    def num_files(self) -> int:
        """Return how many rows it makes."""
        return 1 + len(self.copies)


@dataclass(frozen=True)
class Identified:
    """The clips of an input, each with its id but without its length, and the input's digest."""

    clips: list[PlannedClip]
    digest: str
    num_folded: int


def identify(items: Sequence[BulkItem], *, ids: str, shard_s: float | None) -> Identified:
    """Give every recording its id and fold those that are the same.

    Args:
        items: as :func:`core.bulk.inputs.find_items` finds them.
        ids: "stat" (path, size, time of the last change) or "content".
        shard_s: seconds of work in a shard; None for a choice by the amount of it.

    Returns:
        The clips that are left, their lengths unknown as yet.
    """
    places: dict[tuple[Any, ...], BulkItem] = {}
    for item in items:
        places.setdefault((item.path, *_part(item)), item)
    unique = list(places.values())
    identity = _content_of if ids == "content" else _stat_of
    with ThreadPoolExecutor(THREADS) as pool:
        keys = list(pool.map(identity, [item.path for item in unique], chunksize=64))
    groups: dict[str, list[BulkItem]] = {}
    for item, key in zip(unique, keys, strict=True):
        groups.setdefault(_sha([key, *_part(item)])[:20], []).append(item)
    clips = [PlannedClip(key, 0.0, first, tuple(rest)) for key, (first, *rest) in groups.items()]
    listing = sorted(clip_line(clip) for clip in clips)
    digest = _sha([VERSION, ids, shard_s, *listing])
    return Identified(clips, digest, len(items) - len(unique))


def clip_line(clip: PlannedClip) -> str:
    """Write a clip as a line of the plan's file."""
    return json.dumps(asdict(clip), ensure_ascii=False) + "\n"


def _part(item: BulkItem) -> tuple[float, float | None] | tuple[()]:
    """Return which part of its file is meant; nothing for all of it."""
    return () if item.offset is None else (item.offset, item.duration)


def _stat_of(path: str) -> str:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return _sha([path])
    return _sha([path, stat.st_size, stat.st_mtime_ns])


def _content_of(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return _sha([path])


def _sha(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
