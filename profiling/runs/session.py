"""One session of measuring: several workloads on one model, interleaved, each becoming a run.

In: a loaded model and workloads that share a recording. Out: the contents of a ``run.json`` per
workload, stored with its trace. The order is fixed: warm up and compile, time with the profiler
off, trace with it on; nothing timed was ever traced.

The first workload is the baseline and is timed a second time as the A/A arm; every run of the
session carries what that showed, and the session's id, so that :mod:`profiling.statistics.compare`
can pair them block by block.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from core.lab import Lab
from profiling.measure.capture import TRACE_FILE, Capture, TraceLimits, capture, kernels_visible
from profiling.measure.compiled_code import CODE_FILE, generated_code, pack_code
from profiling.measure.quiet_process import settled
from profiling.measure.timed_pass import Blocks, Timings, TimingSettings, time_all
from profiling.measure.timing import Cancelled, samples_by_phase
from profiling.measure.workload import Workload
from profiling.runs.run_json import memory_part, roofline_part, timed_part, traced_part
from profiling.runs.store import RunStore
from profiling.statistics.intervals import paired_ratio
from profiling.trace.memory_snapshot import SNAPSHOT_FILE

SCHEMA_VERSION = 1
RUNS_OF_A_TRACE = 2 + 4 * TraceLimits().tax_blocks  # with and without the profiler
FEW_PROFILED = TraceLimits(tax_blocks=1)
COMPILED_WHILE_TIMED = "{n} graphs were compiled while timing: the times include compiling"
GAVE_WAY = "other requests ran in {n} of the pauses between blocks; no block was shared with them"
STOPPED_EARLY = "stopped after {done} of {asked} blocks; nothing was traced"


def measure(
    lab: Lab | Sequence[Lab],
    workloads: Sequence[Workload],
    store: RunStore,
    settings: TimingSettings | None = None,
    *,
    progress: Callable[[float, str], None] = lambda share, text: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Return the ids of the runs measured and stored, in the order of ``workloads``.

    Args:
        lab: the model, loaded as the workloads say; or one for each of them.
        workloads: different ways of doing the same work on one recording.
        store: where the runs go; nothing is written unless all were measured.
        settings: how to measure.
        progress: told the share done, 0 to 1, and what is being done.
        cancelled: asked before every run of the model.

    Raises:
        ValueError: no workloads, equal ones, several recordings, or work the model cannot do.
        Cancelled: the caller asked to stop, and nothing is kept.
    """
    how = settings or TimingSettings()
    labs = [lab] * len(workloads) if isinstance(lab, Lab) else list(lab)
    _check(labs, workloads)
    recording = Path(workloads[0].clip.path).read_bytes()
    visible = kernels_visible() if labs[0].device.type == "cpu" else nullcontext()
    with settled(), visible, tempfile.TemporaryDirectory() as scratch:
        times = time_all(labs, workloads, recording, how, progress, cancelled)
        traced = how.trace and len(times.blocks[0]) == times.asked
        found = []
        for number, workload in enumerate(workloads):
            target = Path(scratch) / f"{number}-{TRACE_FILE}"
            taken = None
            if traced and not (how.keep and cancelled()):
                progress(0.8 + 0.2 * number / len(workloads), f"tracing {workload.label()}")
                limits = replace(
                    FEW_PROFILED if _is_slow(how, times.warm_ups_ms[number][-1]) else TraceLimits(),
                    modules=how.modules,
                )
                trace = partial(capture, labs[number], workload, recording, target, limits=limits)
                taken = _traced(trace, cancelled, how.keep)
            found.append((taken, target))
        session, now = uuid.uuid4().hex[:12], datetime.now(UTC)
        ids = []
        for number, (taken, target) in enumerate(found):
            run = _run(labs[number], workloads, number, times, how, (session, now), taken, target)
            files = _files(labs[number], workloads[number], taken)
            ids.append(store.write(run, trace=target if taken else None, files=files))
    progress(1.0, "done")
    return ids


def _is_slow(how: TimingSettings, run_ms: float) -> bool:
    """Return whether tracing all runs of a trace takes too long for whoever waits."""
    return how.at_most_s is not None and RUNS_OF_A_TRACE * run_ms / 1000 > how.at_most_s / 2


def _traced(
    trace: Callable[..., Capture], cancelled: Callable[[], bool], keep: bool
) -> Capture | None:
    """Trace once; None if the caller asked to stop and what was timed is to be kept."""
    try:
        return trace(cancelled=cancelled)
    except Cancelled:
        if not keep:
            raise
        return None


def _check(labs: Sequence[Lab], workloads: Sequence[Workload]) -> None:
    if not workloads or len(set(workloads)) < len(workloads):
        raise ValueError(f"{len(workloads)} workloads came; expected one or more, all different")
    different = {name for other in workloads[1:] for name in workloads[0].same_work(other)}
    if different:
        raise ValueError(f"the workloads ask for different work: {', '.join(sorted(different))}")
    if len(labs) != len(workloads):
        raise ValueError(f"{len(labs)} models and {len(workloads)} workloads came; expected pairs")
    for lab, workload in zip(labs, workloads, strict=True):
        workload.check(lab)


def _run(
    lab: Lab,
    workloads: Sequence[Workload],
    number: int,
    times: Timings,
    how: TimingSettings,
    stamp: tuple[str, datetime],
    taken: Capture | None,
    trace: Path,
) -> dict[str, Any]:
    """Return the contents of one ``run.json``."""
    workload, blocks = workloads[number], times.blocks[number]
    session, now = stamp
    compiled = workload.engine == "compile"
    ledger = {
        **times.ledger.to_json(),
        "compiled_before": times.compiled_before,
        "packaged_seconds": lab.compile_ledger.packaged_seconds,
    }
    late = times.num_late_graphs
    warnings = [COMPILED_WHILE_TIMED.format(n=late)] if late else []
    if len(blocks) < times.asked:
        warnings.append(STOPPED_EARLY.format(done=len(blocks), asked=times.asked))
    if times.num_pauses:
        warnings.append(GAVE_WAY.format(n=times.num_pauses))
    timed = timed_part(workload, blocks)
    return {
        "schema_version": SCHEMA_VERSION,
        "id": _identity(workload, number, session, now),
        "created": now.isoformat(timespec="seconds"),
        "session": session,
        "baseline": number == 0,
        "stopped": len(blocks) < times.asked,
        "workload": workload.to_json(),
        "machine": times.machine,
        **timed,
        "compile": ledger if compiled else None,
        "warm_up_ms": times.warm_ups_ms[number],
        "noise": noise_rows(times.blocks[0], times.again) if times.again else [],
        "samples_again": samples_by_phase(times.again) if times.again and number == 0 else None,
        "warnings": warnings,
        "reference_text": how.reference,
        "roofline": roofline_part(lab, workload, timed, how.ceilings),
        **memory_part(lab, workload, taken, timed),
        **traced_part(taken, trace, timed),
    }


def _files(lab: Lab, workload: Workload, taken: Capture | None) -> dict[str, bytes]:
    """Return what a run keeps beside its JSON and its trace, by name."""
    codes = generated_code(lab.compile_ledger.code) if workload.engine == "compile" else []
    files = {CODE_FILE: pack_code(codes)} if codes else {}
    if taken is not None and taken.snapshot is not None:
        files[SNAPSHOT_FILE] = taken.snapshot
    return files


def _identity(workload: Workload, number: int, session: str, now: datetime) -> str:
    """Name a run: when, what, and which of its session, for arms may differ in more."""
    adapter = {None: "nolora", True: "lora", False: "loraoff"}[workload.lora]
    parts = (now.strftime("%Y%m%d-%H%M%S"), workload.engine, adapter, workload.decoding)
    return "-".join((*parts, f"{session[:4]}{number + 1}"))


def noise_rows(first: Blocks, again: Blocks) -> list[dict[str, Any]]:
    """Compare the A/A arm with the baseline, by phase."""
    one, two = samples_by_phase(first), samples_by_phase(again)
    return [
        {"name": name, **asdict(paired_ratio(one[name], two[name]))}
        for name in one
        if min(*one[name], *two.get(name, [0.0])) > 0
    ]
