"""The job every worker of a bulk run gets: plain data that can be sent to another process.

In: nothing. Out: :class:`BulkJob`, the events that workers send, and the names of shards' files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Unpack

from torch import Tensor

from core.audio.container import Source
from core.transcription.options import Event, OptionFields

FORMATS = ("jsonl", "parquet")


class Transcriber(Protocol):
    """The methods a worker calls on a model; :class:`core.lab.Lab` is one."""

    def stream_batch(
        self,
        sources: Sequence[Source | Tensor],
        *,
        resume: Path | None = None,
        **options: Unpack[OptionFields],
    ) -> Iterator[Event]:
        """Stream several transcriptions as one batch."""

    def longest_pass_s(self, **options: Unpack[OptionFields]) -> float:
        """Return how long a recording one pass is trusted with, in seconds."""


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """One run.

    Attributes:
        folder: where the plan and the results are.
        identity: digest of plan, model, adapter and options; in the names of the shards' files.
        open_model: loads the model on a device (None: the default one).
        options: of every request.
        batch_size: clips of a batch at most.
        form: "jsonl" or "parquet".
    """

    folder: Path
    identity: str
    open_model: Callable[[str | None], Transcriber]
    options: OptionFields
    batch_size: int
    form: str

    def part(self, number: int) -> Path:
        """Return the file of a shard's rows."""
        return self.folder / f"part-{number:05d}-{self.identity[:8]}.{self.form}"


@dataclass(frozen=True, kw_only=True)
class Crew:
    """Who works. devices: of the model, taken by turns; None for the default one."""

    num_workers: int | None = None
    devices: tuple[str | None, ...] = (None,)


@dataclass(frozen=True)
class ShardBegun:
    """Shard ``number`` is begun, perhaps not for the first time."""

    number: int


@dataclass(frozen=True)
class BatchDone:
    """A batch of shard ``number`` is transcribed, but not yet kept."""

    number: int
    num_files: int
    seconds: float
    num_failed: int


@dataclass(frozen=True)
class ShardDone:
    """The rows of shard ``number`` are on disk."""

    number: int


@dataclass(frozen=True)
class ShardLost:
    """Shard ``number`` could not be finished; the others go on."""

    number: int
    why: str


WorkerEvent = ShardBegun | BatchDone | ShardDone | ShardLost
Row = dict[str, Any]
