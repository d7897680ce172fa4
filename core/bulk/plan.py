"""Clips -> a plan: which of them are worked through together. Made once, kept as one file.

In: clips with their ids. Out: :class:`Plan`, which reads shards from its file one at a time, so
that a worker's memory does not grow with the number of recordings.

The clips are sorted by length and cut into shards of equal work. The file's first line is its
header; where the input and the way it is divided are the same, so is the header's digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from core.audio.decode import probe
from core.bulk.identify import THREADS, Identified, PlannedClip, clip_line
from core.bulk.inputs import BulkItem
from core.errors import UserError
from core.saving import write_whole

PLAN = "plan.jsonl"
FILE_S = 0.5  # what a recording costs besides its length, in seconds of sound
BYTES_PER_S = 16_000  # a guess for files whose header says no length
SHARDS, SHORTEST_SHARD_S, LONGEST_SHARD_S = 200, 120.0, 3600.0


@dataclass(frozen=True)
class ShardPlace:
    """Where a shard stands in the plan's file: its first byte and what it holds."""

    begin: int
    end: int
    num_files: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A plan on disk.

    Attributes:
        file: its place.
        digest: of the input and the way it is divided.
        body_sha256: of the shards.
        num_folded: items that were left out because another named the same recording.
        shards: their places, from the shortest recordings to the longest.
    """

    file: Path
    digest: str
    body_sha256: str
    num_folded: int
    shards: tuple[ShardPlace, ...]

    @property
    def num_files(self) -> int:
        """Return how many rows there will be."""
        return sum(shard.num_files for shard in self.shards)

    @property
    def seconds(self) -> float:
        """Return how much sound there is, as far as is known before it is read."""
        return sum(shard.seconds for shard in self.shards)

    def clips(self, number: int) -> list[PlannedClip]:
        """Read the clips of one shard, the shortest first."""
        place = self.shards[number]
        with self.file.open("rb") as file:
            file.seek(place.begin)
            lines = file.read(place.end - place.begin).splitlines()
        return [_clip(json.loads(line)) for line in lines]


def make_plan(
    found: Identified, folder: Path, *, shard_s: float | None, measured: Callable[[int], None]
) -> tuple[Plan, bytes]:
    """Read the lengths that no manifest says from the headers, and divide the work.

    Args:
        found: the clips.
        folder: where the plan will be kept.
        shard_s: seconds of work in a shard; None for a choice by the amount of it.
        measured: told of how many clips the length is known by now.

    Returns:
        The plan, and what its file will hold.
    """
    clips = []
    with ThreadPoolExecutor(THREADS) as pool:
        for clip in pool.map(_measured, found.clips):
            clips.append(clip)
            measured(len(clips))
    clips.sort(key=lambda clip: (clip.seconds, clip.id))
    places, body = [], bytearray()
    for shard in _cut(clips, shard_s):
        begin = len(body)
        body += "".join(map(clip_line, shard)).encode("utf-8", "backslashreplace")
        count = sum(clip.num_files for clip in shard)
        places.append(ShardPlace(begin, len(body), count, sum(clip.seconds for clip in shard)))
    header = {
        "digest": found.digest,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "num_folded": found.num_folded,
        "shards": [[p.begin, p.end, p.num_files, p.seconds] for p in places],
    }
    data = json.dumps(header).encode() + b"\n" + bytes(body)
    return _plan(folder / PLAN, data.partition(b"\n")[0]), data


def read_plan(folder: Path) -> Plan | None:
    """Read the plan that a folder holds.

    Returns:
        The plan, or None where there is none.

    Raises:
        UserError: it cannot be read.
    """
    file = folder / PLAN
    if not file.exists():
        return None
    try:
        with file.open("rb") as opened:
            return _plan(file, opened.readline())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is not a plan that can be read ({type(error).__name__}); expected what bulk "
            "wrote: use another output folder"
        ) from error


def write_plan(plan: Plan, data: bytes) -> None:
    """Keep a plan."""
    write_whole(plan.file, data)


def _plan(file: Path, line: bytes) -> Plan:
    raw = json.loads(line)
    skip = len(line.rstrip(b"\n")) + 1
    shards = tuple(
        ShardPlace(skip + begin, skip + end, num_files, seconds)
        for begin, end, num_files, seconds in raw["shards"]
    )
    return Plan(file, raw["digest"], raw["body_sha256"], raw["num_folded"], shards)


def _cut(clips: Sequence[PlannedClip], shard_s: float | None) -> Iterable[list[PlannedClip]]:
    """Cut sorted clips into shards of equal work; a clip is never divided."""
    total = sum(map(_work, clips))
    target = shard_s or min(max(total / SHARDS, SHORTEST_SHARD_S), LONGEST_SHARD_S)
    count = max(1, round(total / target))
    shard: list[PlannedClip] = []
    done, number = 0.0, 1
    for clip in clips:
        shard.append(clip)
        done += _work(clip)
        if done >= number * total / count - 1e-6:
            yield shard
            shard = []
            number = int(done * count / total + 1e-6) + 1
    if shard:
        yield shard


def _work(clip: PlannedClip) -> float:
    return clip.seconds + FILE_S


def _measured(clip: PlannedClip) -> PlannedClip:
    """Fill in a clip's length; a file that cannot be opened gets none, and its error later."""
    item, seconds = clip.item, clip.item.duration
    if seconds is None:
        try:
            stated = probe(item.path).duration_s
            whole = os.path.getsize(item.path) / BYTES_PER_S if stated is None else stated
            seconds = max(0.0, whole - (item.offset or 0.0))
        except Exception:  # whatever is wrong with it is told when it is read
            seconds = 0.0
    return replace(clip, seconds=round(seconds, 3))


def _clip(raw: dict[str, Any]) -> PlannedClip:
    first, *rest = (BulkItem(**one) for one in chain([raw["item"]], raw["copies"]))
    return PlannedClip(raw["id"], raw["seconds"], first, tuple(rest))
