"""Our engine as a system under measurement.

In: a checkpoint's folder and a :class:`System`. Out: :class:`Answer` objects. The clock is the
engine's own; a run begins with a waveform in memory and ends with the finished transcript.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch._dynamo.utils as dynamo
from torch import Tensor

import core
from benchmarks.clips import batch_of, clip_of
from benchmarks.systems import Answer, System
from core.memory import peak_memory_bytes
from core.text.transcript import Transcript
from core.transcription.options import Finished, OptionFields
from profiling.measure.quiet_process import undisturbed

CPU = torch.device("cpu")


def graphs_so_far() -> int:
    """Count the graphs that this process has compiled."""
    return int(dynamo.counters["stats"]["unique_graphs"])


class Ours:
    """A loaded checkpoint run as one system, on the CPU in float32."""

    def __init__(self, folder: Path, system: System, threads: int) -> None:
        self._system, self._threads = system, threads
        self._lab = core.load(folder, device="cpu", dtype="float32", quantize=system.quantize)

    def once(self, seconds: float, num_tokens: int) -> Answer:
        """Generate exactly ``num_tokens`` new tokens for a clip of ``seconds``."""
        (answer,) = self._run([clip_of(seconds)], self._forced(num_tokens))
        return answer

    def recording(self, file: Path, lora: bool | None = None) -> Answer:
        """Transcribe a real recording, to its own end."""
        options: OptionFields = {**self._plain(), "lora": lora}
        (answer,) = self._run([file], options)
        return answer

    def batch(self, seconds: float, rows: int, num_tokens: int) -> Answer:
        """Transcribe ``rows`` clips at once; the tokens are those of all rows, in turn."""
        return self._together(batch_of(seconds, rows), num_tokens)

    def one_by_one(self, seconds: float, rows: int, num_tokens: int) -> Answer:
        """Transcribe the same clips, each alone."""
        found = [self._together([clip], num_tokens) for clip in batch_of(seconds, rows)]
        return Answer(
            end_to_end_ms=sum(one.end_to_end_ms for one in found),
            phases_ms={},
            token_ids=tuple(token for one in found for token in one.token_ids),
            graphs=sum(one.graphs for one in found),
            peak_bytes=found[-1].peak_bytes,
        )

    def warm_up(self) -> Answer:
        """Compile every graph that single clips need."""
        before, begin = graphs_so_far(), time.perf_counter()
        self._lab.warm_up()
        spent_ms = 1000 * (time.perf_counter() - begin)
        return Answer(spent_ms, {}, (), graphs_so_far() - before, peak_memory_bytes(CPU))

    def lengths(self, shortest_s: float, longest_s: float, steps: int) -> Answer:
        """Transcribe clips of ``steps`` lengths, LoRA on and off where there is an adapter."""
        before, begin = graphs_so_far(), time.perf_counter()
        states = (True, False) if self._lab.has_adapter else (None,)
        for step in range(steps):
            seconds = shortest_s + (longest_s - shortest_s) * step / max(1, steps - 1)
            for lora in states:
                options: OptionFields = {**self._forced(8), "lora": lora}
                self._lab.transcribe(clip_of(seconds), **options)
        spent_ms = 1000 * (time.perf_counter() - begin)
        return Answer(spent_ms, {}, (), graphs_so_far() - before, peak_memory_bytes(CPU))

    def long(self, file: Path) -> Answer:
        """Transcribe a long recording, segment by segment."""
        (answer,) = self._run([file], {**self._plain(), "batch_size": 8})
        return answer

    def _together(self, clips: Sequence[Tensor], num_tokens: int) -> Answer:
        found = self._run(clips, self._forced(num_tokens))
        first = found[0]
        return Answer(
            end_to_end_ms=first.end_to_end_ms,
            phases_ms=first.phases_ms,
            token_ids=tuple(token for one in found for token in one.token_ids),
            graphs=first.graphs,
            peak_bytes=first.peak_bytes,
        )

    def _plain(self) -> OptionFields:
        return {"engine": self._system.engine, "decoding": self._system.decoding}

    def _forced(self, num_tokens: int) -> OptionFields:
        return {
            **self._plain(),
            "max_new_tokens": num_tokens,
            "ignore_eos": True,
            "skip_silence": False,
        }

    def _run(self, sources: Sequence[Path | Tensor], options: OptionFields) -> list[Answer]:
        before = graphs_so_far()
        with undisturbed(self._threads):
            events = self._lab.stream_batch(sources, **options)
            done = [event.transcript for event in events if isinstance(event, Finished)]
        return [_answer(transcript, graphs_so_far() - before) for transcript in done]


def _answer(transcript: Transcript, graphs: int) -> Answer:
    return Answer(
        end_to_end_ms=transcript.end_to_end_ms,
        phases_ms={phase.name: phase.ms for phase in transcript.phases},
        token_ids=transcript.token_ids,
        graphs=graphs,
        peak_bytes=peak_memory_bytes(CPU),
        passes=None if transcript.draft is None else transcript.draft.passes,
        text=transcript.text,
        extra={"audio_s": transcript.audio_s},
    )
