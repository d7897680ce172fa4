"""The folder of a bulk run: one run at a time, one plan, one model, one set of options.

In: a path, and what the run is made of. Out: which shards are done. A shard is done only if its
file bears the run's identity and has all its rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from core.bulk.identify import Identified
from core.bulk.job import BulkJob
from core.bulk.plan import Plan, make_plan, read_plan, write_plan
from core.bulk.shard_rows import count_rows
from core.errors import UserError
from core.plain_json import parse_json
from core.saving import write_whole

try:
    import fcntl
except ImportError:  # Windows has no fcntl module
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

RUN = "run.json"
LOCK = ".lock"
ELSEWHERE = "use another --output-dir"


class OutputFolder:
    """A folder that this run alone writes to.

    Args:
        path: made if it is not there.

    Raises:
        UserError: it cannot be written to, or another run is at work in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> OutputFolder:
        """Make the folder and take it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (self.path / LOCK).open("a")
        except OSError as error:
            raise UserError(
                f"{self.path}: results cannot be written there ({error.strerror}); expected a "
                "folder that can be written to"
            ) from error
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._lock.close()
                raise UserError(
                    f"another run is at work in {self.path}; expected a folder of its own for "
                    f"every run: wait for it, or {ELSEWHERE}"
                ) from error
            except OSError:  # a file system without locks
                logger.warning("%s cannot be locked; see that one run at a time uses it", self.path)
        for cut_short in self.path.glob(".*.new"):
            cut_short.unlink(missing_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let other runs have it."""
        self._lock.close()

    def plan(
        self,
        found: Identified | None,
        *,
        shard_s: float | None,
        measured: Callable[[int], None],
    ) -> Plan:
        """Return the folder's plan; made now where there is none.

        Args:
            found: the recordings that the input names; None to take the folder's plan as it is.
            shard_s: seconds of work in a shard; None for a choice by the amount of it.
            measured: told of how many recordings the length is known by now.

        Raises:
            UserError: the folder was planned for other recordings, or has no plan to be kept.
        """
        kept = read_plan(self.path)
        if found is None:
            if kept is None:
                raise UserError(
                    f"{self.path} has no plan; --keep-plan expects a folder where bulk has begun"
                )
            return kept
        if kept is None:
            plan, data = make_plan(found, self.path, shard_s=shard_s, measured=measured)
            write_plan(plan, data)
            return plan
        if kept.digest != found.digest:
            raise UserError(refused_plan(self.path, kept, found))
        return kept

    def settle(self, record: Mapping[str, Any]) -> str:
        """Compare what decides the texts with what the folder was begun with.

        Args:
            record: plan, model and options, as JSON.

        Returns:
            The run's identity, a digest.

        Raises:
            UserError: the folder holds the results of another run.
        """
        text = json.dumps(record, indent=2, sort_keys=True)
        file = self.path / RUN
        if file.exists():
            try:
                known = parse_json(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{file} cannot be read; expected what bulk wrote: {ELSEWHERE}"
                ) from error
            if known != json.loads(text):
                raise UserError(
                    f"{self.path} holds the results of another run: {_difference(known, record)}; "
                    f"expected the same as before: {ELSEWHERE}"
                )
        else:
            write_whole(file, text.encode())
        return hashlib.sha256(text.encode()).hexdigest()


def refused_plan(folder: Path, kept: Plan, found: Identified) -> str:
    """Say that a folder was planned for other recordings."""
    came = sum(clip.num_files for clip in found.clips)
    return (
        f"{folder} was planned for other recordings, or the same ones before they changed "
        f"({kept.num_files} then, {came} now), or with another --ids or --shard-minutes; "
        f"{ELSEWHERE}, or --keep-plan to finish what was planned"
    )


def shards_done(job: BulkJob, plan: Plan) -> set[int]:
    """Find the shards whose rows are all there; a damaged file is removed, to be made again."""
    done = set()
    for number, shard in enumerate(plan.shards):
        file = job.part(number)
        if not file.is_file():
            continue
        if count_rows(file) == shard.num_files:
            done.add(number)
        else:
            logger.warning("%s is damaged; its recordings are transcribed again", file)
            file.unlink()
    return done


def _difference(known: Any, record: Mapping[str, Any]) -> str:
    """Name the first thing in which two runs differ."""
    before, now = _flat(known), _flat(json.loads(json.dumps(record)))
    for key in sorted({*before, *now}, key=lambda key: (key.startswith("plan"), key)):
        if before.get(key) != now.get(key):
            return f"{key} is {before.get(key)!r} there and {now.get(key)!r} here"
    return "its record differs"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: leaf
        for key, inner in value.items()
        for name, leaf in _flat(inner, f"{prefix}.{key}".lstrip(".")).items()
    }
