"""One measurement on the models' own thread: load, time, trace, compare, telling how far it is.

In: a recording and one or two :class:`app.service.settings.Settings`. Out: progress as it is made,
at last what was measured. Everything is measured by :mod:`profiling.runs.session`. No Gradio.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from threading import Lock
from typing import Any

from app.service.api_settings import known_text
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.updates import CancelledBeforeStart
from app.service.worker import CancelToken
from core import Lab
from core.errors import UserError
from profiling.measure.plan import workload_on
from profiling.measure.timed_pass import TimingSettings as Plan
from profiling.measure.timing import Cancelled
from profiling.measure.workload import ClipInfo, Workload
from profiling.roofline.machine_peaks import Ceilings, measure_ceilings
from profiling.runs.session import measure
from profiling.runs.store import RunStore
from profiling.statistics.compare import compare

LOADING = "loading the model and measuring what this machine can do"
WARMED_UP, TIMED = 0.2, 0.8  # shares of the bar at which profiling.measure has done this
LONGEST_S = 120.0  # a clip is run dozens of times
SAME_HERE = (
    "with this model A and B are identical (without a LoRA adapter there is nothing to switch, for "
    "example); change another setting"
)


@dataclass(frozen=True)
class MeasurementOptions:
    """How thoroughly. blocks: of two runs an arm; fixed_length: make exactly max_new_tokens."""

    blocks: int = 10
    fixed_length: bool = False


class MeasurementStage(Enum):
    """Which part of a measurement runs."""

    LOADING = auto()
    COMPILING = auto()
    WARMING_UP = auto()
    TIMING = auto()
    TRACING = auto()


@dataclass(frozen=True)
class MeasurementProgress:
    """Progress. share: 0 to 1; left_s: seconds still to wait, None where nobody can say."""

    stage: MeasurementStage
    share: float
    text: str
    left_s: float | None


@dataclass(frozen=True)
class MeasurementResult:
    """The end. keys: of the runs on the visitor's shelf, empty where nothing was kept there;
    comparison: B against A as JSON, None for a single run.
    """

    keys: tuple[str, ...]
    runs: tuple[dict[str, Any], ...]
    comparison: dict[str, Any] | None
    stopped: bool


MeasurementUpdate = MeasurementProgress | MeasurementResult | CancelledBeforeStart


class MeasurementJob:
    """Measurements on the models of a studio. quiet: held while something is timed, so that other
    heavy work can wait.
    """

    def __init__(self, service: TranscriptionService) -> None:
        self._service = service
        self._ceilings: dict[tuple[str, str], Ceilings] = {}
        self.quiet = Lock()

    def of(
        self,
        job: CancelToken,
        recording: Path,
        settings: tuple[Settings, ...],
        how: MeasurementOptions,
        store: RunStore,
        prefix: str,
    ) -> Callable[[Callable[[MeasurementUpdate], None]], None]:
        """The work of one job, which tells its progress; the runs go to ``store``.

        Its keys are the runs' ids with ``prefix``; without a prefix it has none. It raises a
        UserError that says why, where it cannot be done.
        """

        def work(tell: Callable[[MeasurementUpdate], None]) -> None:
            clip = _short_clip(recording)
            tell(MeasurementProgress(MeasurementStage.LOADING, 0.0, LOADING, None))
            labs = [self._service.lab(one) for one in settings]
            plans = _plans(labs, clip, settings, how)
            reference = known_text(recording)
            with self.quiet:
                plan = Plan(
                    blocks=how.blocks, reference=reference, ceilings=self._top(labs[0], plans),
                    keep=True,
                )  # fmt: skip
                ids, stopped = self._run(job, labs, plans, store, plan, tell)
            runs = tuple(store.read(one) for one in ids)
            found = compare(*runs, reference=reference).to_json() if len(runs) == 2 else None
            keys = tuple(prefix + one for one in ids) if prefix else ()
            tell(MeasurementResult(keys, runs, found, stopped))

        return work

    def _run(
        self,
        job: CancelToken,
        labs: list[Lab],
        plans: list[Workload],
        store: RunStore,
        plan: Plan,
        tell: Callable[[MeasurementUpdate], None],
    ) -> tuple[list[str], bool]:
        timed_from: list[float] = []

        def progress(share: float, text: str) -> None:
            now = time.monotonic()
            stage = _stage(share, plans)
            if stage is MeasurementStage.TIMING and not timed_from:
                timed_from.append(now)
            tell(MeasurementProgress(stage, share, text, _left_s(share, timed_from, now)))

        try:
            ids = measure(labs, plans, store, plan, progress=progress, cancelled=job.cancelled)
        except Cancelled:
            raise UserError(
                "stopped before one block of runs was done; there is nothing to show yet"
            ) from None
        return ids, job.cancelled()

    def _top(self, lab: Lab, plans: list[Workload]) -> Ceilings:
        """What the machine can do at most, measured once for each device and number format."""
        dtypes = tuple(dict.fromkeys(plan.dtype for plan in plans))
        key = (str(lab.device), ",".join(dtypes))
        if key not in self._ceilings:
            self._ceilings[key] = measure_ceilings(lab.device, dtypes)
        return self._ceilings[key]


def _short_clip(recording: Path) -> ClipInfo:
    """Raises:
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
    labs: list[Lab], clip: ClipInfo, settings: tuple[Settings, ...], how: MeasurementOptions
) -> list[Workload]:
    """What each of the settings means on its model.

    Raises:
        UserError: two of them mean the same.
    """
    plans = [
        workload_on(
            lab,
            clip,
            model=_model_name(one.model),
            engine=one.engine,
            lora=one.lora,
            adapter=one.adapter or None,
            decoding=one.decoding,
            max_new_tokens=int(one.max_new_tokens),
            ignore_eos=how.fixed_length,
        )
        for lab, one in zip(labs, settings, strict=True)
    ]
    if len(set(plans)) < len(plans):
        raise UserError(SAME_HERE)
    return plans


def _model_name(name: str) -> str:
    """The name as it is kept in a run; of a folder the last part: runs are passed on."""
    return Path(name).name if Path(name).is_dir() else name


def _stage(share: float, plans: list[Workload]) -> MeasurementStage:
    """Return the stage of a measurement that has done ``share`` of its work."""
    if share < WARMED_UP:
        plan = plans[round(share / WARMED_UP * len(plans))]
        compiling = plan.engine == "compile"
        return MeasurementStage.COMPILING if compiling else MeasurementStage.WARMING_UP
    return MeasurementStage.TIMING if share <= TIMED else MeasurementStage.TRACING


def _left_s(share: float, timed_from: list[float], now: float) -> float | None:
    """Seconds to the end at the pace of the timed runs; tracing is guessed to go on like them."""
    done = share - WARMED_UP  # warming up is of no steady length
    if not timed_from or done <= 0.02:
        return None
    return (now - timed_from[0]) / done * (1 - share)
