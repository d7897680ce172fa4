"""One measurement on the models' own thread: load, time, trace, compare.

In: a recording and one or two :class:`app.service.settings.Settings`. Out: progress as it is made,
at last what was measured. Everything is measured by :mod:`profiling.runs.session`. No Gradio.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

from app.service.api_settings import known_text
from app.service.pace import TIMED, WARMED_UP, MeasurementEstimate, PaceBook
from app.service.quiet_time import QuietTime
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.updates import CancelledBeforeStart, QueuePlace
from app.service.worker import CancelToken
from core import Lab
from core.errors import UserError
from profiling.measure.timed_pass import TimingSettings as Plan
from profiling.measure.timing import Cancelled
from profiling.measure.workload import ClipInfo, Workload, WorkloadChoices, workload_on
from profiling.roofline.machine_peaks import Ceilings, measure_ceilings
from profiling.runs.session import measure
from profiling.runs.store import RunStore
from profiling.statistics.compare import compare
from profiling.statistics.intervals import FEWEST_BLOCKS

LOADING = "loading the model and measuring what this machine can do"
LONGEST_S = 120.0  # a clip is run dozens of times
# Whoever presses a button waits: where runs are slow, fewer blocks, but enough for an interval.
TIMING_S = 20.0
SAME_HERE = (
    "with this model A and B are identical (without a LoRA adapter there is nothing to switch, for "
    "example); change another setting"
)


@dataclass(frozen=True)
class MeasurementOptions:
    """The effort of a measurement. blocks: of two runs an arm; fixed_length: no end of text.

    modules: the trace names the model's modules, in eager runs.
    reference: what is really said, for word error rates; empty where only examples' is known.
    """

    blocks: int = 10
    fixed_length: bool = False
    modules: bool = False
    reference: str = ""


class MeasurementStage(Enum):
    """Which part of a measurement runs."""

    LOADING = auto()
    COMPILING = auto()
    WARMING_UP = auto()
    TIMING = auto()
    TRACING = auto()


@dataclass(frozen=True)
class MeasurementProgress:
    """Progress. share: 0 to 1; left_s: seconds left, None where unknown."""

    stage: MeasurementStage
    share: float
    text: str
    left_s: float | None


@dataclass(frozen=True)
class MeasurementResult:
    """The last update. keys: of the runs in the visitor's library, empty where none were kept.

    comparison: B against A as JSON, None for a single run.
    """

    keys: tuple[str, ...]
    runs: tuple[dict[str, Any], ...]
    comparison: dict[str, Any] | None
    stopped: bool


MeasurementUpdate = MeasurementProgress | MeasurementResult | CancelledBeforeStart | QueuePlace


class MeasurementJob:
    """Measurements on the models of a service.

    quiet: says when something is timed, so that other heavy work waits. gives_way: transcriptions
    that wait run between the blocks.
    """

    def __init__(self, service: TranscriptionService, gives_way: bool = False) -> None:
        self._service, self._gives_way = service, gives_way
        self._ceilings: dict[tuple[str, str], Ceilings] = {}
        self._pace = PaceBook()
        self.quiet = QuietTime()

    def work_of(
        self,
        token: CancelToken,
        recording: Path,
        settings: tuple[Settings, ...],
        options: MeasurementOptions,
        store: RunStore,
        prefix: str,
    ) -> Callable[[Callable[[MeasurementUpdate], None]], None]:
        """Prepare the work of one measurement.

        Args:
            token: cancels it.
            recording: its path.
            settings: one or two.
            options: how thoroughly.
            store: where the runs go.
            prefix: of the runs' keys; empty where there are none.

        Returns:
            Work that reports to a function; raises a UserError where it cannot be done.
        """

        def work(report: Callable[[MeasurementUpdate], None]) -> None:
            clip = _short_clip(recording)
            report(MeasurementProgress(MeasurementStage.LOADING, 0.0, LOADING, None))
            labs = [self._service.lab(one) for one in settings]
            plans = _plans(labs, clip, settings, options)
            reference = options.reference or known_text(recording)
            with self.quiet.timed(), self._service.no_builders():
                plan = Plan(
                    blocks=options.blocks, reference=reference, ceilings=self._top(labs[0], plans),
                    keep=True, modules=options.modules, at_most_s=TIMING_S,
                    fewest=min(options.blocks, FEWEST_BLOCKS),
                )  # fmt: skip
                ids, stopped = self._run(token, labs, plans, store, plan, report)
            runs = tuple(store.read(one) for one in ids)
            found = compare(*runs, reference=reference).to_json() if len(runs) == 2 else None
            if found is not None:
                store.annotate(ids[0], verdict="baseline")
                store.annotate(ids[1], verdict=str(found["end_to_end"]["verdict"]))
            keys = tuple(prefix + one for one in ids) if prefix else ()
            report(MeasurementResult(keys, runs, found, stopped))

        return work

    def _run(
        self,
        token: CancelToken,
        labs: list[Lab],
        plans: list[Workload],
        store: RunStore,
        plan: Plan,
        report: Callable[[MeasurementUpdate], None],
    ) -> tuple[list[str], bool]:
        estimate = MeasurementEstimate(self._pace, tuple(plans), plan.blocks or 0, _built_s(labs))
        paused_s = 0.0

        def progress(share: float, text: str) -> None:
            now = time.monotonic() - paused_s
            left_s = estimate.left_s(share, now, _built_s(labs))
            self._service.worker.expect(
                left_s,
                gives_way=self._gives_way and estimate.has_pause(share),
                pause_s=estimate.pause_s(share, now),
            )
            report(MeasurementProgress(_stage(share, plans), share, text, left_s))

        def between() -> bool:
            nonlocal paused_s
            begin = time.monotonic()
            others_ran = self._service.worker.give_way()
            paused_s += time.monotonic() - begin
            return others_ran

        if self._gives_way:
            plan = replace(plan, between=between)
        try:
            ids = measure(labs, plans, store, plan, progress=progress, cancelled=token.cancelled)
        except Cancelled:
            raise UserError(
                "stopped before one block of runs was done; there is nothing to show yet"
            ) from None
        return ids, token.cancelled()

    def _top(self, lab: Lab, plans: list[Workload]) -> Ceilings:
        """Return the machine's peaks, measured once for each device and dtype."""
        dtypes = tuple(dict.fromkeys(plan.dtype for plan in plans))
        key = (str(lab.device), ",".join(dtypes))
        if key not in self._ceilings:
            self._ceilings[key] = measure_ceilings(lab.device, dtypes)
        return self._ceilings[key]


def _short_clip(recording: Path) -> ClipInfo:
    """Read how long a recording is.

    Returns:
        The clip.

    Raises:
        UserError: it is too long to be run dozens of times.
    """
    clip = ClipInfo.of(recording)
    if clip.seconds > LONGEST_S:
        raise UserError(
            f"{clip.name} is {clip.seconds:.0f} s long; measuring runs it dozens of times, "
            f"so at most {LONGEST_S:.0f} s are taken: cut a piece out of it"
        )
    return clip


def _plans(
    labs: list[Lab], clip: ClipInfo, settings: tuple[Settings, ...], options: MeasurementOptions
) -> list[Workload]:
    """Return what each of the settings means on its model.

    Returns:
        One workload for each.

    Raises:
        UserError: two of them mean the same.
    """
    plans = [
        workload_on(
            lab,
            clip,
            WorkloadChoices(
                model=_model_name(one.model),
                engine=one.engine,
                lora=one.lora,
                adapter=one.adapter or None,
                decoding=one.decoding,
                max_new_tokens=int(one.max_new_tokens),
                ignore_eos=options.fixed_length,
            ),
        )
        for lab, one in zip(labs, settings, strict=True)
    ]
    if len(set(plans)) < len(plans):
        raise UserError(SAME_HERE)
    return plans


def _model_name(name: str) -> str:
    """Return the name as a run keeps it; of a folder only the last part, for runs are passed on."""
    return Path(name).name if Path(name).is_dir() else name


def _stage(share: float, plans: list[Workload]) -> MeasurementStage:
    """Return the stage of a measurement that has done ``share`` of its work."""
    if share < WARMED_UP:
        plan = plans[round(share / WARMED_UP * len(plans))]
        compiling = plan.engine == "compile"
        return MeasurementStage.COMPILING if compiling else MeasurementStage.WARMING_UP
    return MeasurementStage.TIMING if share <= TIMED else MeasurementStage.TRACING


def _built_s(labs: list[Lab]) -> float:
    """Return the seconds that these models have spent on compiling so far."""
    return sum(sum(lab.compile_ledger.seconds.values()) for lab in labs)
