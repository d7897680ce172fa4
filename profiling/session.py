"""One session of measuring: several workloads on one model, interleaved, each becoming a run.

In: a loaded model and workloads that share a recording. Out: the contents of a ``run.json`` per
workload, stored with its trace. The order is fixed: warm up and compile, time with the profiler
off, trace with it on; nothing timed was ever traced.

The first workload is the baseline and is timed a second time as the A/A arm; every run of the
session carries what that showed, and the session's id, so that :mod:`profiling.compare` can pair
them block by block.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.lab import Lab
from profiling.capture import TRACE_FILE, Capture, capture, kernels_visible
from profiling.ceilings import Ceilings
from profiling.compile_ledger import Ledger, Watch
from profiling.intervals import paired_ratio
from profiling.machine import Busyness, describe_machine
from profiling.run_json import roofline_part, timed_part, traced_part
from profiling.store import RunStore
from profiling.timing import (
    Arm,
    Cancelled,
    Sample,
    interleave,
    samples_by_phase,
    time_once,
    warm_up,
)
from profiling.workload import Workload

SCHEMA_VERSION = 1
BLOCKS = 20
AGAIN = "again"
COMPILED_WHILE_TIMED = "{n} graphs were compiled while timing: the times include compiling"

Blocks = list[tuple[Sample, Sample]]


@dataclass(frozen=True)
class Settings:
    """How to measure. blocks: of two runs an arm; again: with an A/A arm; trace: record one too.

    reference: what is really said in the recording, kept for word error rates.
    """

    blocks: int = BLOCKS
    again: bool = True
    trace: bool = True
    reference: str | None = None
    ceilings: Ceilings | None = None


@dataclass(frozen=True)
class Timings:
    """What the timed pass found, in the order of the workloads. again: the A/A arm's blocks."""

    warm_ups_ms: list[list[float]]
    blocks: list[Blocks]
    again: Blocks | None
    ledger: Ledger
    compiled_before: bool
    num_late_graphs: int
    machine: dict[str, Any]


def measure(
    lab: Lab,
    workloads: Sequence[Workload],
    store: RunStore,
    settings: Settings | None = None,
    *,
    progress: Callable[[float, str], None] = lambda share, text: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Measure and store; returns the ids of the runs, in the order of ``workloads``.

    Args:
        lab: the model, loaded as the workloads say.
        workloads: different ways of doing the same work on one recording.
        store: where the runs go; nothing is written unless all were measured.
        settings: how to measure.
        progress: told the share done, 0 to 1, and what is being done.
        cancelled: asked before every run of the model.

    Raises:
        ValueError: no workloads, equal ones, several recordings, or work the model cannot do.
        Cancelled: the caller asked to stop.
    """
    how = settings or Settings()
    _check(lab, workloads)
    recording = Path(workloads[0].clip.path).read_bytes()
    visible = kernels_visible() if lab.device.type == "cpu" else nullcontext()
    with visible, tempfile.TemporaryDirectory() as scratch:
        times = _time_all(lab, workloads, recording, how, progress, cancelled)
        found = []
        for number, workload in enumerate(workloads):
            target = Path(scratch) / f"{number}-{TRACE_FILE}"
            taken = None
            if how.trace:
                progress(0.8 + 0.2 * number / len(workloads), f"tracing {workload.label()}")
                taken = capture(lab, workload, recording, target, cancelled=cancelled)
            found.append((taken, target))
        session, now = uuid.uuid4().hex[:12], datetime.now(UTC)
        ids = []
        for number, (taken, target) in enumerate(found):
            run = _run(lab, workloads, number, times, how, (session, now), taken, target)
            ids.append(store.write(run, trace=target if taken else None))
    progress(1.0, "done")
    return ids


def _check(lab: Lab, workloads: Sequence[Workload]) -> None:
    if not workloads or len(set(workloads)) < len(workloads):
        raise ValueError(f"{len(workloads)} workloads came; expected one or more, all different")
    different = {name for other in workloads[1:] for name in workloads[0].same_work(other)}
    if different:
        raise ValueError(f"the workloads ask for different work: {', '.join(sorted(different))}")
    for workload in workloads:
        lab.check(**workload.options())


def _time_all(
    lab: Lab,
    workloads: Sequence[Workload],
    recording: bytes,
    how: Settings,
    progress: Callable[[float, str], None],
    cancelled: Callable[[], bool],
) -> Timings:
    def runner(workload: Workload) -> Callable[[], Sample]:
        def run() -> Sample:
            if cancelled():
                raise Cancelled("measuring was stopped")
            return time_once(lab, workload, recording)

        return run

    warm_ups, watch = [], Watch()
    for number, workload in enumerate(workloads):
        verb = "compiling and warming up" if workload.engine == "compile" else "warming up"
        progress(0.2 * number / len(workloads), f"{verb} {workload.label()}")
        warm_ups.append([run.end_to_end_ms for run in warm_up(runner(workload))])
    ledger = watch.read()
    before = not ledger.entries and any(w.engine == "compile" for w in workloads)
    arms = [Arm(str(number), runner(w)) for number, w in enumerate(workloads)]
    if how.again:
        arms.append(Arm(AGAIN, runner(workloads[0])))
    late, busy = Watch(), Busyness()
    blocks = interleave(
        arms,
        how.blocks,
        progress=lambda done, total: progress(0.2 + 0.6 * done / total, f"run {done} of {total}"),
    )
    machine = {**describe_machine(lab.device), **busy.read(), "threads": workloads[0].threads}
    return Timings(
        warm_ups_ms=warm_ups,
        blocks=[blocks[str(number)] for number in range(len(workloads))],
        again=blocks.get(AGAIN),
        ledger=Watch(from_start=True).read() if before else ledger,
        compiled_before=before,
        num_late_graphs=late.read().graphs,
        machine=machine,
    )


def _run(
    lab: Lab,
    workloads: Sequence[Workload],
    number: int,
    times: Timings,
    how: Settings,
    stamp: tuple[str, datetime],
    taken: Capture | None,
    trace: Path,
) -> dict[str, Any]:
    """The contents of one ``run.json``."""
    workload, blocks = workloads[number], times.blocks[number]
    session, now = stamp
    compiled = workload.engine == "compile"
    ledger = {**times.ledger.to_json(), "compiled_before": times.compiled_before}
    late = times.num_late_graphs
    timed = timed_part(workload, blocks)
    return {
        "schema_version": SCHEMA_VERSION,
        "id": _identity(workload, session, now),
        "created": now.isoformat(timespec="seconds"),
        "session": session,
        "baseline": number == 0,
        "workload": workload.to_json(),
        "machine": times.machine,
        **timed,
        "compile": ledger if compiled else None,
        "warm_up_ms": times.warm_ups_ms[number],
        "noise": _noise(times.blocks[0], times.again) if times.again else [],
        "samples_again": samples_by_phase(times.again) if times.again and number == 0 else None,
        "warnings": [COMPILED_WHILE_TIMED.format(n=late)] if late else [],
        "reference_text": how.reference,
        "roofline": roofline_part(lab, workload, timed, how.ceilings),
        **traced_part(taken, trace, timed),
    }


def _identity(workload: Workload, session: str, now: datetime) -> str:
    adapter = {None: "nolora", True: "lora", False: "loraoff"}[workload.lora]
    parts = (now.strftime("%Y%m%d-%H%M%S"), workload.engine, adapter, workload.decoding)
    return "-".join((*parts, session[:4]))


def _noise(first: Blocks, again: Blocks) -> list[dict[str, Any]]:
    """The A/A arm over the baseline, by phase."""
    one, two = samples_by_phase(first), samples_by_phase(again)
    return [
        {"name": name, **asdict(paired_ratio(one[name], two[name]))}
        for name in one
        if min(*one[name], *two.get(name, [0.0])) > 0
    ]
