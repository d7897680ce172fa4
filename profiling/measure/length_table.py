"""One model at several clip lengths: total, encoder, decoder, real-time factor, speed, memory.

In: a loaded model, a workload and its recording, repeated or cut to each length. Out: one
:class:`LengthRow` per length, medians of several runs with the profiler off, to stand beside
:mod:`profiling.statistics.baseline`. Encoder and decoder are those of the report: the encoder's own
phase, and everything from the prefill to the last token. The projector belongs to neither and is
given apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from core import phases
from core.audio.waveform import SAMPLE_RATE
from core.lab import Lab
from profiling.measure.metrics import real_time_factor
from profiling.measure.quiet_process import settled
from profiling.measure.timing import Sample, time_once, warm_up
from profiling.measure.workload import Workload

LENGTHS_S = (3, 10, 30)
RUNS = 5
_DECODER = (phases.DRAFT, phases.PREFILL, phases.VERIFY, phases.DECODE)


@dataclass(frozen=True)
class LengthRow:
    """One length. num_passes: more than one where the model is not trusted with so long a clip.

    limited: the text was cut at the most tokens allowed, so that the real-time factor is that of a
    text cut short. prefill_ms is part of decoder_ms.
    """

    seconds: float
    n: int
    total_ms: float
    encoder_ms: float
    projector_ms: float
    decoder_ms: float
    prefill_ms: float
    decoder_share: float
    rtf: float | None
    new_tokens: int
    limited: bool
    num_passes: int
    tokens_per_s: float | None
    peak_memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def tiled(waveform: Tensor, seconds: float) -> Tensor:
    """Return ``waveform`` [N], again and again, cut to ``seconds``.

    Raises:
        ValueError: nothing to repeat.
    """
    wanted = round(seconds * SAMPLE_RATE)
    if not waveform.numel() or wanted < 1:
        raise ValueError(f"{waveform.numel()} samples and {seconds} s came; expected more than 0")
    return torch.cat([waveform] * -(-wanted // waveform.numel()))[:wanted]


def length_table(
    lab: Lab,
    workload: Workload,
    waveform: Tensor,
    *,
    lengths_s: Sequence[float] = LENGTHS_S,
    runs: int = RUNS,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[list[LengthRow], list[str]]:
    """Measure ``workload`` at each length, warmed up.

    Args:
        lab: the model.
        workload: what to do at each length.
        waveform: [N], repeated or cut to each length.
        lengths_s: the lengths in seconds.
        runs: timed runs a length.
        progress: told what is being done.

    Returns:
        A row for each length that fits the model, and a sentence for each that does not.

    Raises:
        ValueError: the model cannot do what the workload asks.
    """
    lab.check(**workload.options())
    rows, notes = [], []
    for seconds in lengths_s:
        clip = tiled(waveform, seconds)

        def once(recording: Tensor = clip) -> Sample:
            return time_once(lab, workload, recording)

        progress(f"{seconds:g} s: warming up")
        try:
            warm_up(once)
        except ValueError as error:
            notes.append(f"{seconds:g} s: {error}")
            continue
        progress(f"{seconds:g} s: {runs} runs")
        with settled():
            rows.append(_row(seconds, workload, [once() for _ in range(runs)]))
    return rows, notes


def _row(seconds: float, workload: Workload, runs: Sequence[Sample]) -> LengthRow:
    def middle(*names: str) -> float:
        return median(sum(run.phases_ms.get(name, 0.0) for name in names) for run in runs)

    last = runs[-1].transcript
    total, decoder = median(run.end_to_end_ms for run in runs), middle(*_DECODER)
    speeds = [s for s in (run.transcript.new_tokens_per_s for run in runs) if s is not None]
    return LengthRow(
        seconds=seconds,
        n=len(runs),
        total_ms=total,
        encoder_ms=middle(phases.ENCODER),
        projector_ms=middle(phases.PROJECTOR),
        decoder_ms=decoder,
        prefill_ms=middle(phases.PREFILL),
        decoder_share=decoder / total,
        rtf=real_time_factor(total, seconds),
        new_tokens=last.new_tokens,
        limited=last.new_tokens >= workload.max_new_tokens,
        num_passes=runs[-1].num_prefills,
        tokens_per_s=median(speeds) if speeds else None,
        peak_memory_bytes=max(run.transcript.peak_memory_bytes for run in runs),
    )
