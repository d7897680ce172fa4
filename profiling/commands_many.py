"""The commands about many runs: ``runs``, ``sweep``, ``history``.

In: parsed arguments and somebody to tell the progress. Out: a :class:`CommandResult`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.audio.decode import load_audio
from core.audio.waveform import SAMPLE_RATE
from core.model.quantize import MODES
from core.transcription.options import DECODINGS, ENGINES
from profiling.commands import ALL_WELL, LORA, WORTH_A_LOOK, CommandResult, Say, chosen, stored_run
from profiling.measure.timed_pass import TimingSettings
from profiling.measure.workload import WorkloadChoices
from profiling.plain_text_many import history_text, runs_text
from profiling.report.many_runs import history_report, runs_report, sweep_report
from profiling.runs.run_file import RunError
from profiling.runs.store import RunStore
from profiling.runs.sweep import Grid, plan_sweep
from profiling.runs.sweep import sweep as run_sweep
from profiling.statistics.history import histories
from profiling.statistics.run_table import run_table, sweep_table

FORMATS = ("float32", "bfloat16", "float16", *MODES)


def runs(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Tabulate stored runs: those named, or all, the earliest first."""
    found, notes = _read(parsed.ids, parsed.out)
    rows = run_table(found)
    text = [runs_text(rows), *(f"  not read: {note}" for note in notes)]
    text += _written(parsed.html, runs_report(rows, notes)) if parsed.html else []
    status = WORTH_A_LOOK if notes else ALL_WELL
    return CommandResult(status, {"runs": rows, "not_read": notes}, "\n".join(text))


def sweep(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Measure every combination that is not in the store, and tabulate them all."""
    store, waveform = RunStore(parsed.out), load_audio(parsed.clip)
    plan = plan_sweep(_grid(parsed, waveform), parsed.clip, waveform, store)
    for reason in plan.not_possible:
        say(f"not possible: {reason}")
    left = sum(len(workloads) for _, workloads in plan.sessions)
    say(f"{left} runs to measure, {len(plan.done)} measured already")
    how = TimingSettings(blocks=parsed.repeats, trace=not parsed.no_trace)
    ids, failed = run_sweep(plan, store, how, say)
    notes = [*plan.not_possible, *failed]
    if not ids:
        raise RunError(f"nothing was measured: {'; '.join(notes)}")
    rows = sweep_table([store.read(name) for name in ids])
    text = [runs_text(rows), *(f"  not measured: {note}" for note in notes)]
    text += _written(parsed.html, sweep_report(rows, notes)) if parsed.html else []
    status = WORTH_A_LOOK if notes else ALL_WELL
    return CommandResult(status, {"runs": rows, "not_measured": notes}, "\n".join(text))


def history(parsed: argparse.Namespace, say: Say) -> CommandResult:
    """Tell, for each workload measured on several days, what changed and when."""
    runs, notes = _read([], parsed.out)
    found = [one.to_json() for one in histories(runs) if len(one.points) > 1]
    if not found:
        raise RunError(f"no workload was measured twice in {parsed.out}; measure one again")
    text = [*map(history_text, found), *(f"not read: {note}" for note in notes)]
    if parsed.html is not None:
        parsed.html.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(found, 1):
            text += _written(parsed.html / f"history-{number}.html", history_report(one))
    status = WORTH_A_LOOK if notes or any(one["changes"] for one in found) else ALL_WELL
    return CommandResult(status, {"histories": found, "not_read": notes}, "\n".join(text))


def _grid(parsed: argparse.Namespace, waveform: Tensor) -> Grid:
    lengths = parsed.seconds or [waveform.shape[0] / SAMPLE_RATE]
    if parsed.repeats is not None and parsed.repeats < 1:
        raise ValueError(f"--repeats is {parsed.repeats}; expected 1 or more")
    if min(parsed.batch) < 1:
        raise ValueError(f"--batch holds {min(parsed.batch)}; expected 1 or more")
    if min(lengths) <= 0:
        raise ValueError(f"--seconds holds {min(lengths):g}; expected more than 0")
    if parsed.threads is not None:
        if parsed.threads < 1:
            raise ValueError(f"--threads is {parsed.threads}; expected 1 or more")
        torch.set_num_threads(parsed.threads)
    formats = chosen(parsed.format, FORMATS, "--format") if parsed.format else (parsed.dtype,)
    asked = chosen(parsed.lora, tuple(LORA), "--lora") if parsed.lora else []
    adapters: list[bool | None] = [LORA[name] for name in asked] or [None]
    return Grid(
        choices=WorkloadChoices(
            model=parsed.model,
            revision=parsed.revision,
            max_new_tokens=parsed.max_new_tokens,
            ignore_eos=parsed.force_tokens,
            seed=parsed.seed,
        ),
        engines=chosen(parsed.engine, ENGINES, "--engine"),
        adapters=adapters,
        decodings=chosen(parsed.decoding, DECODINGS, "--decoding"),
        formats=formats,
        lengths_s=list(dict.fromkeys(lengths)),
        batches=list(dict.fromkeys(parsed.batch)),
        device=parsed.device,
        again=parsed.again,
    )


def _read(ids: Sequence[str], root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the runs named, in that order, or all by time; and what could not be read."""
    if ids:
        return [stored_run(name, root) for name in ids], []
    store, found, notes = RunStore(root), [], []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        try:
            found.append(store.read(folder.name))
        except RunError as error:
            notes.append(f"{folder.name}: {error}")
    if not found:
        raise RunError(f"there are no runs in {root}; expected some made by `python -m profiling`")
    return sorted(found, key=_by_time), notes


def _by_time(run: Mapping[str, Any]) -> tuple[str, bool]:
    return str(run.get("created", "")), not run.get("baseline")


def _written(file: Path, page: str) -> list[str]:
    file.write_text(page, encoding="utf-8")
    return [f"  page: {file}"]
