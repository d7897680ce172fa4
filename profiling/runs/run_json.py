"""The parts of a ``run.json``: what timing, tracing and counting found, as JSON.

In: samples, a trace, a model's dimensions. Out: plain dictionaries. What was not measured is None
or empty, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from core.audio.waveform import SAMPLE_RATE
from core.generation.greedy import padded_sizes
from core.lab import Lab
from core.model.config import ModelConfig
from core.model.features import num_audio_tokens
from core.model.lora import adapted_layers, is_merged
from core.phases import DECODE, VERIFY
from core.text.prompts import PromptBuilder
from core.transcription.autoregressive import AutoregressiveRecognizer
from core.transcription.granite_speech5 import CTCRecognizer
from core.transcription.granite_speech_nar import EditingRecognizer
from profiling.measure.capture import Capture
from profiling.measure.dispatch_overhead import dispatch_overhead_ms
from profiling.measure.memory_runs import memory_curve_of, memory_parts, memory_rows
from profiling.measure.metrics import acceptance, inter_token_ms, real_time_factor
from profiling.measure.timing import (
    Sample,
    phase_table,
    samples_by_phase,
    token_table,
    whole_spread,
)
from profiling.measure.workload import Workload
from profiling.roofline.counts import Cost, Shape, cache_bytes_per_token, count
from profiling.roofline.ctc_counts import count_ctc
from profiling.roofline.editor_counts import count_editor
from profiling.roofline.machine_peaks import GPUS, Ceilings
from profiling.roofline.roofline import expected_end_to_end_gain, roofline
from profiling.trace.breakdown import phase_table as trace_phases
from profiling.trace.events import read_trace


def timed_part(workload: Workload, blocks: Sequence[tuple[Sample, Sample]]) -> dict[str, Any]:
    """Return phases, totals, tokens, metrics, text and raw samples of the timed pass."""
    runs = [run for pair in blocks for run in pair]
    whole, other = whole_spread(blocks)
    last = runs[-1].transcript
    firsts = [run.first_token_ms for run in runs if run.first_token_ms is not None]
    speeds = [s for s in (run.transcript.new_tokens_per_s for run in runs) if s is not None]
    drafts = last.draft
    return {
        "phases": [asdict(row) for row in phase_table(blocks)],
        "end_to_end_ms": whole.median,
        "end_to_end": asdict(whole),
        "other_ms": other.median,
        "tokens": token_table(blocks),
        "metrics": {
            "rtf": real_time_factor(whole.median, workload.audio_s),
            "time_to_first_token_ms": median(firsts) if firsts else None,
            "inter_token_ms": inter_token_ms([gap for run in runs for gap in run.gap_ms]),
            "new_tokens": last.new_tokens,
            "new_tokens_per_s": workload.batch * median(speeds) if speeds else None,
            "peak_memory_bytes": max(run.transcript.peak_memory_bytes for run in runs),
            "acceptance": acceptance(drafts.drafted, drafts.accepted) if drafts else None,
        },
        "draft": asdict(drafts) if drafts else None,
        "transcript_text": last.text,
        "token_ids": list(last.token_ids),
        "same_tokens_every_time": len({run.transcript.token_ids for run in runs}) == 1,
        "samples": samples_by_phase(blocks),
    }


def traced_part(taken: Capture | None, trace: Path, timed: Mapping[str, Any]) -> dict[str, Any]:
    """Return launches per step and the profiler's overhead, if traced."""
    if taken is None:
        return {"profiler_tax": None, "trace": None}
    rows = trace_phases(read_trace(trace).index)
    steps = rows[rows["phase"].isin((DECODE, VERIFY))]
    launches, spans = int(steps["num_launches"].sum()), int(steps["num_spans"].sum())
    per_step = launches / spans if spans else None
    return {
        "metrics": {**timed["metrics"], "launches_per_token": per_step},
        "profiler_tax": taken.tax.ratio,
        "trace": taken.to_json(),
    }


def memory_part(
    lab: Lab, workload: Workload, taken: Capture | None, timed: Mapping[str, Any]
) -> dict[str, Any]:
    """Return memory by phase, by what it held and over time, of the profiled runs.

    Args:
        lab: the model.
        workload: what was profiled on it.
        taken: the profiled runs; None where there were none.
        timed: of :func:`timed_part`.
    """
    if taken is None or not taken.memory:
        return {"memory": [], "memory_parts": None, "memory_curve": None}
    process = int(timed["metrics"]["peak_memory_bytes"])
    cache = cache_bytes_of_run(lab, workload)
    return {
        "memory": memory_rows(taken.memory),
        "memory_parts": memory_parts(lab.model, taken.memory, cache, process),
        "memory_curve": memory_curve_of(taken.memory[-1]),
    }


def cache_bytes_of_run(lab: Lab, workload: Workload) -> int:
    """Return the bytes of a request's keys and values; 0 for a model without a decoder."""
    recognizer, cuts = lab.session.recognizer, workload.clip.seconds > lab.model_info.reliable_s
    if not isinstance(recognizer, AutoregressiveRecognizer) or cuts:
        return 0
    options = lab.session.request(lab.check(**workload.options())).options
    shape = shape_of_run(lab, workload, 0)
    _, slots = padded_sizes(
        recognizer.engine(workload.engine),
        lab.config.decoder,
        shape.num_prompt_tokens,
        options.max_new_tokens,
    )
    rows = workload.batch
    rows *= (options.num_beams or 1) if options.decoding == "beam" else 1
    return rows * slots * cache_bytes_per_token(lab.config.decoder, lab.dtype.itemsize)


def roofline_part(
    lab: Lab, workload: Workload, timed: Mapping[str, Any], ceilings: Ceilings | None
) -> dict[str, Any] | None:
    """Return rows, ceilings and, for eager runs, what compiling is expected to gain.

    None without ceilings, for recordings so long that they are cut into several passes, for
    batches, for quantised weights and for families whose bytes and operations are not counted.

    Args:
        lab: the model.
        workload: what was timed on it.
        timed: of :func:`timed_part`.
        ceilings: what the machine can do at most.
    """
    if ceilings is None or workload.quantize or workload.batch > 1:
        return None
    if workload.clip.seconds > lab.model_info.reliable_s:
        return None
    costs = costs_of_run(lab, workload, timed)
    if costs is None:
        return None
    measured = {row["name"]: row["median_ms"] for row in timed["phases"]}
    # What compiling gains can be foretold for single eager steps; drafts have passes of any width.
    autoregressive = DECODE in costs
    foretold = (
        autoregressive and workload.engine == "eager" and workload.decoding in ("greedy", "sample")
    )
    overhead = dispatch_overhead_ms(lab) if foretold else None
    rows = roofline(
        costs,
        ceilings,
        workload.dtype,
        measured_ms=measured,
        overhead_ms=overhead,
        row_loops=lab.device.type == "cpu",
    )
    return {
        "rows": [row.to_json() for row in rows],
        "ceilings": asdict(ceilings),
        "expected_gain": expected_end_to_end_gain(rows, timed["end_to_end_ms"]),
        "paper": [on_paper(costs, gpu, workload.dtype) for gpu in GPUS.values()],
    }


def costs_of_run(lab: Lab, workload: Workload, timed: Mapping[str, Any]) -> dict[str, Cost] | None:
    """Count what a timed workload needs on ``lab``; None for a family that is not counted."""
    if isinstance(lab.config, ModelConfig):
        return count(
            lab.config,
            shape_of_run(lab, workload, tokens_made(timed)),
            element_bytes=lab.dtype.itemsize,
            adapter_parameters=adapter_parameters(lab) if workload.lora else 0,
        )
    recognizer, samples = lab.session.recognizer, round(workload.clip.seconds * SAMPLE_RATE)
    if isinstance(recognizer, EditingRecognizer):
        drafted = timed["draft"] or {"drafted": 0, "passes": 0}
        return count_editor(
            lab.config,
            recognizer.feature_extractor.config.num_frames(samples),
            drafted["drafted"],
            rounds=drafted["passes"],
            element_bytes=lab.dtype.itemsize,
        )
    if isinstance(recognizer, CTCRecognizer):
        rows = recognizer.feature_extractor.config.num_frames(samples)
        return count_ctc(lab.config, rows, element_bytes=lab.dtype.itemsize)
    return None


def tokens_made(timed: Mapping[str, Any]) -> int:
    """Count computed tokens: a step that finds the end of the text is as much work as any."""
    return max(int(timed["metrics"]["new_tokens"]), 1 + len(timed["tokens"]))


def on_paper(costs: Mapping[str, Cost], gpu: Ceilings, dtype: str) -> dict[str, Any]:
    """Return the least time the same work could take on a GPU, by its data sheet."""
    floors = {row.name: row.floor_ms for row in roofline(costs, gpu, dtype)}
    steps = costs[DECODE].calls if DECODE in costs else 0
    return {
        "machine": gpu.machine,
        "floor_ms": sum(floors.values()),
        "ms_per_token": floors[DECODE] / steps if steps else None,
        "phases": floors,
    }


def shape_of_run(lab: Lab, workload: Workload, num_new_tokens: int) -> Shape:
    """Return frames, prompt and new tokens of a workload on ``lab``."""
    part = lab.config.projector
    frames = lab.feature_extractor.config.num_frames(round(workload.clip.seconds * SAMPLE_RATE))
    places = num_audio_tokens(frames, window=part.window_size, downsample=part.downsample_rate)
    if lab.tokenizer is None:
        raise ValueError(f"{lab.files.source} has no tokenizer.json; expected a whole checkpoint")
    prompts = PromptBuilder(lab.files, lab.tokenizer, lab.model_info, lab.config.audio_token_id)
    ids = prompts.speech(lab.check(**workload.options()).request(), places)
    return Shape(frames, len(ids), num_new_tokens)


def adapter_parameters(lab: Lab) -> int:
    """Return weights of an unmerged adapter on the decoder: it is read with every token."""
    if is_merged(lab.model):
        return 0
    pairs = [(layer.lora_a, layer.lora_b) for _, layer in adapted_layers(lab.model.decoder)]
    return sum(weight.numel() for pair in pairs for weight in pair if weight is not None)
