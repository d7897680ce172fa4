"""One bulk run from its input to its report.

In: what was asked for. Out: shards, ``report.json`` and ``failures.jsonl`` in a folder, lines of
progress for a person, and an :class:`Outcome`. A run that was stopped or killed goes on where it
was when it is started again in the same way.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from core.bulk.executors import ShardsLeft, executor_named
from core.bulk.folder import OutputFolder, refused_plan, shards_done
from core.bulk.identify import Identified, identify
from core.bulk.inputs import find_items
from core.bulk.job import BulkJob, Crew, Transcriber
from core.bulk.plan import Plan, make_plan, read_plan
from core.bulk.progress import RunProgress
from core.bulk.report import BulkReport, failures
from core.bulk.shard_rows import check_format, read_rows
from core.bulk.worker import UNFINISHED
from core.errors import UserError
from core.saving import write_whole
from core.transcription.options import OptionFields, TranscribeOptions
from core.transcription.resume import SPEED_ONLY

REPORT, FAILURES = "report.json", "failures.jsonl"
STOPPING = (
    "stopping: the running shards are finished first; press Ctrl-C again to end at once, and only "
    "their work is lost"
)


@dataclass(frozen=True, kw_only=True)
class BulkRequest:
    """The request of a bulk run.

    Attributes:
        inputs: folders, globs, manifests, recordings.
        folder: where the results go.
        ids: what makes two recordings the same, "stat" or "content".
        shard_s: seconds of work in a shard; None for a choice by the amount of it.
        keep_plan: finish the folder's plan, whatever became of the input since.
        executor: "local", "processes" or "ray".
        crew: how many workers, and their devices.
        model: what decides the model's texts, as JSON.
        open_model: loads it.
        options: of every request.
        batch_size: clips of a batch at most.
        form: "jsonl" or "parquet".
    """

    inputs: Sequence[str]
    folder: Path
    ids: str
    shard_s: float | None
    keep_plan: bool
    executor: str
    crew: Crew
    model: Mapping[str, Any]
    open_model: Callable[[str | None], Transcriber]
    options: OptionFields
    batch_size: int
    form: str

    def record(self, plan: Plan) -> dict[str, Any]:
        """Return what decides the results: a folder holds those of one record."""
        options = asdict(TranscribeOptions(**self.options))
        return {
            "plan": {"digest": plan.digest, "sha256": plan.body_sha256},
            "model": dict(self.model),
            "options": {key: value for key, value in options.items() if key not in SPEED_ONLY},
            "format": self.form,
        }

    def job(self, identity: str) -> BulkJob:
        """Return what a worker needs to know."""
        return BulkJob(
            folder=self.folder.resolve(),
            identity=identity,
            open_model=self.open_model,
            options=self.options,
            batch_size=self.batch_size,
            form=self.form,
        )

    def find(self) -> Identified | None:
        """Find the recordings; None where the folder's plan is kept."""
        if self.keep_plan:
            return None
        return identify(find_items(self.inputs), ids=self.ids, shard_s=self.shard_s)


@dataclass(frozen=True)
class Outcome:
    """The end of a run. lost: shards that no worker could finish."""

    files: int
    failed: int
    lost: int
    stopped: bool


def show_plan(asked: BulkRequest, say: Callable[[str], None]) -> None:
    """Say what a run would do; nothing is written.

    Raises:
        UserError: the folder was planned for other recordings.
    """
    found = asked.find()
    plan = read_plan(asked.folder)
    if plan is not None and found is not None and plan.digest != found.digest:
        raise UserError(refused_plan(asked.folder, plan, found))
    if plan is None:
        if found is None:
            raise UserError(f"{asked.folder} has no plan to be kept")
        plan, _ = make_plan(found, asked.folder, shard_s=asked.shard_s, measured=lambda _: None)
    for line in plan_lines(plan, asked.executor):
        say(line)


def plan_lines(plan: Plan, executor: str) -> Iterator[str]:
    """Write a plan for a person."""
    yield f"{plan.num_files:,} recordings, {plan.seconds / 3600:.2f} h by their headers"
    if plan.num_folded:
        yield f"{plan.num_folded:,} more name the same recordings and are left out"
    sizes = [shard.num_files for shard in plan.shards]
    yield (
        f"{len(sizes):,} shard{'s' if len(sizes) > 1 else ''} of {min(sizes):,} to {max(sizes):,} "
        f"recordings, the longest recordings first, executor {executor}"
    )


def run_bulk(
    asked: BulkRequest,
    *,
    say: Callable[[str], None],
    show: Callable[[str], None],
) -> Outcome:
    """Transcribe everything that is not transcribed yet.

    Args:
        asked: what to do.
        say: takes lines that stay.
        show: takes lines of progress, each in place of the last.

    Returns:
        How it ended.

    Raises:
        UserError: the input, the folder or the model cannot be used, or nothing can be written.
    """  # noqa: DOC502  (raised by what is called)
    check_format(asked.form)
    executor = executor_named(asked.executor)
    found = asked.find()
    with OutputFolder(asked.folder) as folder:
        plan = folder.plan(
            found,
            shard_s=asked.shard_s,
            measured=lambda count: show(f"planning: {count:,} recordings measured"),
        )
        job = asked.job(folder.settle(asked.record(plan)))
        done = shards_done(job, plan)
        for line in plan_lines(plan, asked.executor):
            say(line)
        if done:
            say(f"{len(done):,} shards are done already")
        todo = [number for number in reversed(range(len(plan.shards))) if number not in done]
        progress = RunProgress(plan, done)
        with asking_to_stop(say) as stop_asked:
            left = ShardsLeft(job, plan, todo)
            with closing(executor(left, asked.crew, stop_asked)) as events:
                for event in events if todo else ():
                    progress.add(event)
                    show(progress.line())
            stopped = stop_asked()
        finished = shards_done(job, plan)
        if len(finished) < len(plan.shards):
            say(
                f"{len(finished):,} of {len(plan.shards):,} shards are done; "
                "the same command goes on"
            )
            files = sum(plan.shards[number].num_files for number in finished)
            return Outcome(files, progress.failed, progress.num_lost, stopped)
        report = write_report(job, plan)
        for line in report.lines():
            say(line)
        if progress.files:
            say(f"{progress.seconds / progress.elapsed_s:.1f}x real time in this run, all included")
        return Outcome(report.files, report.failed, 0, stopped=False)


def write_report(job: BulkJob, plan: Plan) -> BulkReport:
    """Read all rows and write the report, and what failed as a manifest.

    Returns:
        The report.
    """
    report, failed = BulkReport(), list[str]()
    for number in range(len(plan.shards)):
        rows = list(read_rows(job.part(number)))
        for row in rows:
            report.add(row)
        failed += failures(plan.clips(number), rows)
    write_whole(job.folder / REPORT, json.dumps(report.to_dict(), indent=2).encode())
    if failed:
        write_whole(job.folder / FAILURES, "".join(failed).encode("utf-8", "backslashreplace"))
    with suppress(OSError):
        (job.folder / UNFINISHED).rmdir()
    return report


@contextmanager
def asking_to_stop(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Take the first Ctrl-C as a wish to stop, and the second as an order.

    Yields:
        A function that returns whether to stop.
    """
    asked = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        say(STOPPING)

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
