"""A sweep: every combination of engine, LoRA, decoding, format, length and batch, measured once.

In: a waveform [N] and a :class:`Grid`. Out: runs in a store, one interleaved session for each
length and batch, so that what shares them is compared in pairs; and what cannot be measured, before
anything is. A combination whose workload is in the store already is not repeated.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from core import Lab, load
from core.audio.waveform import SAMPLE_RATE
from core.errors import UserError
from profiling.measure.length_table import tiled
from profiling.measure.machine import describe_machine
from profiling.measure.timed_pass import TimingSettings
from profiling.measure.timing import Cancelled
from profiling.measure.workload import ClipInfo, Workload, WorkloadChoices, workload_on
from profiling.runs.session import measure
from profiling.runs.store import RunStore
from profiling.statistics.run_table import machine_class, workload_key

CLIPS = ".clips"  # hidden: no run

Work = tuple[Lab, Workload]
OpenFormat = Callable[[str | None], Lab]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The choices to combine. adapters: LoRA on, off, or None for on where there is one.

    formats: a dtype, or "int8" and the like for what ``quantize`` takes; None for the usual dtype.

    lengths_s: of the recording, repeated or cut. batches: how often it stands in one pass. device:
    as ``core.load`` takes it. again: measure what is in the store already, too.
    """

    choices: WorkloadChoices
    engines: Sequence[str]
    adapters: Sequence[bool | None]
    decodings: Sequence[str]
    formats: Sequence[str | None]
    lengths_s: Sequence[float]
    batches: Sequence[int] = (1,)
    device: str | None = None
    again: bool = False


@dataclass(frozen=True)
class Plan:
    """The plan of a sweep. sessions: labs and workloads still to measure, by length and batch.

    done: ids of runs that are there already; not_possible: a sentence for each combination that
    this machine or model cannot do.
    """

    sessions: list[tuple[list[Lab], list[Workload]]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    not_possible: list[str] = field(default_factory=list)


def plan_sweep(
    grid: Grid, clip: Path, waveform: Tensor, store: RunStore, open_format: OpenFormat | None = None
) -> Plan:
    """Return what is to be measured, with each format of the model loaded once.

    Args:
        grid: what to combine.
        clip: the recording's name on disk; the lengths are named after it.
        waveform: [N], what it holds.
        store: where finished runs lie, and the cut recordings go.
        open_format: loads the model in a number format; by default from the grid's name of it.
    """
    plan, labs = Plan(), dict[str | None, Lab]()
    open_format = open_format or partial(_loaded, grid)
    for number_format in grid.formats:
        try:
            labs[number_format] = open_format(number_format)
        except UserError as error:
            plan.not_possible.append(f"{number_format}: {error}")
    if not labs:
        return plan
    there = {} if grid.again else _identities(store, next(iter(labs.values())).device)
    for seconds in grid.lengths_s:
        recording = ClipInfo.of(_clip_of(clip.name, waveform, seconds, store.root))
        for batch in grid.batches:
            _add_session(plan, _combinations(grid, labs, recording, batch), there)
    return plan


def _add_session(plan: Plan, combinations: Sequence[Work], there: Mapping[str, str]) -> None:
    """Sort combinations that share length and batch: done, not possible, still to measure."""
    wanted = dict[str, Work]()
    for lab, workload in combinations:
        try:
            workload.check(lab)
        except UserError as error:
            plan.not_possible.append(f"{workload.clip.seconds:g} s, {workload.label()}: {error}")
            continue
        key = workload_key(workload.to_json())
        if key in there:
            plan.done.append(there[key])
        else:
            wanted.setdefault(key, (lab, workload))
    if wanted:
        loaded, workloads = zip(*wanted.values(), strict=True)
        plan.sessions.append((list(loaded), list(workloads)))


def sweep(
    plan: Plan,
    store: RunStore,
    settings: TimingSettings,
    progress: Callable[[str, float], None],
    *,
    finished: Callable[[list[str]], None] = lambda ids: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[list[str], list[str]]:
    """Measure what a plan left to do; a session that fails does not stop the others.

    Args:
        plan: of :func:`plan_sweep`.
        store: where the runs go.
        settings: how to measure.
        progress: told what is being done, and the share of the whole sweep.
        finished: told all ids so far, after every session.
        cancelled: asked before every run; sessions that are over are kept.

    Returns:
        Ids of all runs of the sweep, finished earlier or now, and a sentence for each length and
        batch that was not measured.
    """
    ids, failed = list(plan.done), list[str]()
    for number, (labs, workloads) in enumerate(plan.sessions):
        first = workloads[0]
        told = partial(_tell, progress, number, len(plan.sessions), first)
        try:
            ids += measure(labs, workloads, store, settings, progress=told, cancelled=cancelled)
        except UserError as error:
            failed.append(f"{_session_said(first)}: {error}")
        except Cancelled:
            failed.append(f"{_session_said(first)}: stopped before it was over")
            break
        finished(ids)
    return ids, failed


def _session_said(one: Workload) -> str:
    several = f", batch of {one.batch}" if one.batch > 1 else ""
    return f"{one.clip.seconds:g} s{several}"


def _tell(
    progress: Callable[[str, float], None],
    number: int,
    num_sessions: int,
    first: Workload,
    share: float,
    text: str,
) -> None:
    progress(f"{text} ({_session_said(first)})", (number + share) / num_sessions)


def _combinations(
    grid: Grid, labs: Mapping[str | None, Lab], clip: ClipInfo, batch: int
) -> list[Work]:
    base = replace(grid.choices, batch=batch)
    return [
        (
            lab,
            workload_on(lab, clip, replace(base, engine=engine, lora=lora, decoding=decoding)),
        )
        for lab in labs.values()
        for engine in grid.engines
        for lora in grid.adapters
        for decoding in grid.decodings
    ]


def _identities(store: RunStore, device: torch.device) -> dict[str, str]:
    """Return id by workload of every whole run that a machine like this one made."""
    here, found = machine_class(describe_machine(device)), {}
    for name in (entry.id for entry in store.entries() if not (entry.broken or entry.stopped)):
        run = store.read(name)
        if machine_class(run["machine"]) == here:
            found[workload_key(run["workload"])] = name
    return found


def _clip_of(name: str, waveform: Tensor, seconds: float, root: Path) -> Path:
    """Write the waveform, repeated or cut to ``seconds``, as 16-bit PCM beside the runs."""
    samples = (tiled(waveform, seconds).clamp(-1, 1) * 32767).round().to(torch.int16)
    folder = root / CLIPS
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{Path(name).stem}-{seconds:g}s.wav"
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes(samples.numpy().astype("<i2").tobytes())
    return file


def _loaded(grid: Grid, number_format: str | None) -> Lab:
    quantize = number_format if number_format and number_format.startswith("int8") else None
    dtype = None if quantize else number_format
    name, revision = grid.choices.model, grid.choices.revision
    return load(name, device=grid.device, dtype=dtype, revision=revision, quantize=quantize)
