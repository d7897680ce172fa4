"""One shard -> its rows on disk: read ahead by threads, transcribed in batches, written at the end.

In: a job and the number of a shard. Out: events while it runs, and the shard's file. The same
worker runs in this process, in others, or on other machines. What goes wrong with one recording is
in its row; what goes wrong with every one ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from core.audio.vad import NoSpeech
from core.bulk.job import BatchDone, BulkJob, Row, ShardBegun, ShardDone, WorkerEvent
from core.bulk.plan import Plan
from core.bulk.reading import ReadClip, error_text, group, read_batches
from core.bulk.shard_rows import write_rows
from core.errors import UserError
from core.text.transcript import Transcript
from core.transcription.options import Finished

UNFINISHED = "unfinished"  # folder of the finished spans of long recordings
MOST_FAULTS = 20  # recordings in a row that fail for no reason of their own
LONGEST_READ_S = 3600.0

Result = tuple[ReadClip, Transcript | str, float]  # what was read, what came of it, seconds of work


class ShardWorker:
    """A model and the plan it works through.

    Args:
        job: the run.
        plan: the plan of the run.
        device: of the model; None for the default one.
        threads: that read recordings.
    """

    def __init__(self, job: BulkJob, plan: Plan, *, device: str | None, threads: int) -> None:
        self._job, self._plan, self._threads = job, plan, threads
        self._model = job.open_model(device)
        self._longest_s = min(self._model.longest_pass_s(**job.options), LONGEST_READ_S)
        self._faults = 0

    def run(self, number: int) -> Iterator[WorkerEvent]:
        """Transcribe a shard and keep its rows.

        Yields:
            Its begin, batches as they are transcribed, at last that its file is there.

        Raises:
            SaveError: the file cannot be written.
            UserError: nothing can be transcribed any more.
        """  # noqa: DOC502  (raised by what is called)
        yield ShardBegun(number)
        clips, rows = self._plan.clips(number), list[Row]()
        with ThreadPoolExecutor(self._threads) as pool:
            size, longest_s = self._job.batch_size, self._longest_s
            for batch in read_batches(clips, pool, size=size, longest_s=longest_s):
                new = [row for result in self._results(batch) for row in rows_of(*result)]
                rows += new
                yield BatchDone(
                    number,
                    num_files=len(new),
                    seconds=sum(row["duration"] or 0.0 for row in new),
                    num_failed=sum(row["error"] is not None for row in new),
                )
        write_rows(self._job.part(number), rows)
        yield ShardDone(number)

    def _results(self, batch: Sequence[ReadClip]) -> list[Result]:
        """Transcribe what was read, in the batch's order."""
        results = [(read, read.error, 0.0) for read in batch if read.error is not None]
        found: dict[str, Result] = {result[0].clip.id: result for result in results}
        short = sorted((r for r in batch if r.waveform is not None), key=lambda r: r.seconds)
        groups = list(group(short, [r.seconds for r in short], self._job.batch_size))
        groups += [[read] for read in batch if read.file is not None]
        for reads in groups:
            found.update((result[0].clip.id, result) for result in self._transcribe(reads))
        return [found[read.clip.id] for read in batch]

    def _transcribe(self, reads: Sequence[ReadClip]) -> list[Result]:
        """Transcribe some clips as one batch; where that fails, each of them alone."""
        begin = time.perf_counter()
        try:
            transcripts = self._transcripts(reads)
        except Exception as error:
            if len(reads) > 1:
                return [result for read in reads for result in self._transcribe([read])]
            self._count_fault(error)
            text = error_text(error, reads[0].clip.item.path)
            return [(reads[0], text, time.perf_counter() - begin)]
        finally:
            for read in reads:
                if read.temporary and read.file is not None:
                    read.file.unlink(missing_ok=True)
        self._faults = 0
        took_s, total_s = time.perf_counter() - begin, sum(t.audio_s for t in transcripts)
        return [
            (read, transcript, took_s * transcript.audio_s / total_s)
            for read, transcript in zip(reads, transcripts, strict=True)
        ]

    def _transcripts(self, reads: Sequence[ReadClip]) -> list[Transcript]:
        sources = [read.waveform if read.file is None else read.file for read in reads]
        known = [source for source in sources if source is not None]
        resume = None
        if any(read.file is not None and not read.temporary for read in reads):
            resume = self._job.folder / UNFINISHED
        events = self._model.stream_batch(known, resume=resume, **self._job.options)
        return [event.transcript for event in events if isinstance(event, Finished)]

    def _count_fault(self, error: Exception) -> None:
        """Give up where recording after recording fails for a reason that is not its own."""
        if isinstance(error, UserError | OSError):
            return
        self._faults += 1
        if self._faults >= MOST_FAULTS:
            raise UserError(
                f"{self._faults} recordings in a row failed for a reason of this program's own "
                f"({type(error).__name__}: {error}); shards that were finished before are kept"
            ) from error


def rows_of(read: ReadClip, result: Transcript | str, time_s: float) -> list[Row]:
    """Make the rows of one pass: one, and one for every copy of its recording.

    Args:
        read: what was read.
        result: its transcript, or why there is none.
        time_s: seconds of the model's time.

    Returns:
        Rows with the columns that ``docs/bulk.md`` lists.
    """
    first, rows = read.clip.item, []
    for item in (first, *read.clip.copies):
        row: Row = {"audio_filepath": item.audio_filepath}
        if item.offset is not None:
            row["offset"] = item.offset
        row |= {"duration": item.duration, "time": 0.0, "text": item.text}
        if item.speaker is not None:
            row["speaker"] = item.speaker
        row |= {"pred_text": None, "words": [], "segments": [], "warnings": [], "error": None}
        if isinstance(result, str):
            row["error"] = result
        else:
            plain = result.to_dict()
            row |= {"duration": round(result.audio_s, 3), "pred_text": result.text}
            row |= {key: plain[key] for key in ("words", "segments")}
            row["warnings"] = warnings_of(read, result)
        if item is first:
            row["time"] = round(time_s, 4)
        else:
            row["copy_of"] = first.audio_filepath
        rows.append(row)
    return rows


def warnings_of(read: ReadClip, transcript: Transcript) -> list[str]:
    """Return what the reader of a text should know, of the recording and of the text."""
    report, warnings = read.report, list(transcript.warnings)
    if report is None:
        return warnings
    silent = {reason.value for reason in NoSpeech}
    if report.channels_cancel:
        told = NoSpeech.CANCELLING_CHANNELS.value
        warnings = [told if text in silent else text for text in warnings]
    return [*report.warnings, *warnings]
