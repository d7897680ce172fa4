"""A planned clip -> its waveform, read beside the model by other threads.

In: a clip, and how long a recording one pass takes. Out: :class:`ReadClip`: a waveform [N] at
16 kHz, or a file that is too long for one pass, or why it cannot be read. No more than one pass's
worth of a file is ever in memory.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import soundfile
import torch
from torch import Tensor

from core.audio.decode import stream_audio
from core.audio.report import DecodeReport
from core.audio.waveform import SAMPLE_RATE, AudioError
from core.bulk.identify import PlannedClip
from core.errors import UserError

logger = logging.getLogger(__name__)
T = TypeVar("T")

CHUNK_S = 30.0
MOST_PADDED_S = 240.0  # of one batch, its clips taken as long as the longest
AHEAD = 2  # batches that are read while another one runs
LIKE = 2.0  # a clip waits for the next batch where it would be padded to more than so many times
OWN_FAULT = "an error of this program's own ({kind}); the log says more"


@dataclass(frozen=True)
class ReadClip:
    """A clip that was read.

    Attributes:
        clip: as planned.
        waveform: [N] at 16 kHz, where one pass takes it.
        file: what holds a longer one.
        temporary: whether ``file`` was made for it, and goes with it.
        report: what is worth knowing of how it was read.
        error: why it cannot be read.
    """

    clip: PlannedClip
    waveform: Tensor | None = None
    file: Path | None = None
    temporary: bool = False
    report: DecodeReport | None = None
    error: str | None = None

    @property
    def seconds(self) -> float:
        """Return the length of its waveform."""
        return 0.0 if self.waveform is None else self.waveform.shape[0] / SAMPLE_RATE


def error_text(error: Exception, path: str) -> str:
    """Return what a row says of an error; what is no fault of the file is logged in full."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{Path(path).name}: {error.strerror or error}"
    logger.error("%r", path, exc_info=error)
    return OWN_FAULT.format(kind=type(error).__name__)


def read_batches(
    clips: Sequence[PlannedClip], pool: ThreadPoolExecutor, *, size: int, longest_s: float
) -> Iterator[list[ReadClip]]:
    """Read clips in batches of like length, some batches ahead.

    Args:
        clips: sorted by length.
        pool: reads them.
        size: the most clips of a batch.
        longest_s: what one pass takes, in seconds.

    Yields:
        Batches as planned; what was really read may be of other lengths.
    """
    waiting: deque[list[Future[ReadClip]]] = deque()
    try:
        for batch in group(clips, [clip.seconds for clip in clips], size):
            waiting.append([pool.submit(read_clip, clip, longest_s) for clip in batch])
            if len(waiting) > AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        for future in chain.from_iterable(waiting):
            future.cancel()


def group(items: Sequence[T], seconds: Sequence[float], size: int) -> Iterator[list[T]]:
    """Divide items that are sorted by their lengths into batches of bounded size and padding."""
    batch: list[T] = []
    shortest = 0.0
    for item, length in zip(items, seconds, strict=True):
        padded = (len(batch) + 1) * length
        unlike = length > LIKE * shortest + 1
        if batch and (len(batch) == size or padded > MOST_PADDED_S or unlike):
            yield batch
            batch = []
        if not batch:
            shortest = length
        batch.append(item)
    if batch:
        yield batch


def read_clip(clip: PlannedClip, longest_s: float) -> ReadClip:
    """Read one clip; whatever goes wrong is in its ``error``."""
    report = DecodeReport()
    try:
        return _read(clip, report, longest_s)
    except Exception as error:
        return ReadClip(clip, error=error_text(error, clip.item.path))


def _read(clip: PlannedClip, report: DecodeReport, longest_s: float) -> ReadClip:
    whole = clip.item.offset is None
    stream = stream_audio(clip.item.path, chunk_s=min(CHUNK_S, longest_s), report=report)
    pieces, num_samples = [], 0
    parts = stream if whole else _part(stream, clip)
    for piece in parts:
        pieces.append(piece)
        num_samples += piece.shape[0]
        if num_samples > longest_s * SAMPLE_RATE:
            if whole:
                return ReadClip(clip, file=Path(clip.item.path))
            return ReadClip(clip, file=_keep(chain(pieces, parts)), temporary=True, report=report)
    if not num_samples:
        raise AudioError(
            Path(clip.item.path).name,
            f"it ends before offset {clip.item.offset:g} s",
            "an offset within the recording",
            "correct the manifest",
        )
    return ReadClip(clip, torch.cat(pieces), report=report)


def _part(stream: Iterable[Tensor], clip: PlannedClip) -> Iterator[Tensor]:
    """Cut a stream of chunks to the part that a manifest's row means."""
    begin = round((clip.item.offset or 0.0) * SAMPLE_RATE)
    length = clip.item.duration
    end = None if length is None else begin + round(length * SAMPLE_RATE)
    here = 0
    for chunk in stream:
        part = chunk[max(0, begin - here) : None if end is None else max(0, end - here)]
        if part.shape[0]:
            yield part
        here += chunk.shape[0]
        if end is not None and here >= end:
            return


def _keep(parts: Iterable[Tensor]) -> Path:
    """Write a long part of a file to one of its own, chunk by chunk."""
    number, name = tempfile.mkstemp(suffix=".w64")
    os.close(number)
    with soundfile.SoundFile(name, "w", SAMPLE_RATE, 1, subtype="FLOAT", format="W64") as out:
        for part in parts:
            out.write(part.numpy())
    return Path(name)
