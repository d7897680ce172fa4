"""Timed comparisons and recorded profiles, on the models' own thread. Knows nothing of Gradio.

In: a recording and one or two :class:`app.settings.Settings`. Out: progress as it is made, at last
what was measured. Everything is measured by :mod:`profiling.session`; here is only who may ask, for
how much, and what becomes of the runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from app.asked import known_text
from app.jobs import Job
from app.run_shelf import RunShelf
from app.settings import Settings
from app.studio import Studio
from app.updates import NotBegun
from core import Lab
from core.choices import quantisers
from profiling.ceilings import Ceilings, measure_ceilings
from profiling.compare import compare
from profiling.plan import workload_on
from profiling.session import Settings as Plan
from profiling.session import measure
from profiling.store import RunStore
from profiling.timing import Cancelled
from profiling.workload import Clip, Workload

LONGEST_S = 120.0  # a clip is run dozens of times
FEWEST, MOST = 1, 50  # blocks
MEASURING = ":measure"  # added to a session's name: it may measure and read text meanwhile
SAME = "A and B are set alike; change one of them: engine, LoRA, decoding, weights or model"
SAME_HERE = (
    "A and B come to the same with this model: without a LoRA adapter, for one, there is nothing "
    "to switch; change another setting"
)


@dataclass(frozen=True)
class How:
    """How thoroughly. blocks: of two runs an arm; fixed_length: make exactly max_new_tokens."""

    blocks: int = 10
    fixed_length: bool = False


@dataclass(frozen=True)
class Doing:
    """Progress. share: 0 to 1; left_s: seconds still to wait, None where nobody can say."""

    share: float
    text: str
    left_s: float | None


@dataclass(frozen=True)
class Measured:
    """The end. keys: of the runs on the visitor's shelf, empty where nothing was kept there;
    comparison: B against A as JSON, None for a single run.
    """

    keys: tuple[str, ...]
    runs: tuple[dict[str, Any], ...]
    comparison: dict[str, Any] | None
    stopped: bool


Report = Doing | Measured | NotBegun


class Measuring:
    """Measurements of one studio.

    Args:
        studio: whose models and whose thread.
        shelf: where runs go.
        refusal: why nothing is measured here, None where it is.
    """

    def __init__(self, studio: Studio, shelf: RunShelf, refusal: str | None = None) -> None:
        self.studio, self.shelf, self.refusal = studio, shelf, refusal
        self._ceilings: dict[tuple[str, str], Ceilings] = {}
        self.quiet = Lock()  # held while something is timed: other heavy work waits

    def begin(self, session: str) -> None:
        """Announce a measurement, so that :meth:`stop` reaches it while it waits its turn."""
        self.studio.begin(session + MEASURING)

    def stop(self, session: str) -> bool:
        """End a measurement at its next run; what was measured by then is kept."""
        return self.studio.stop(session + MEASURING)

    def leave(self, session: str) -> None:
        """A page was closed: end its measurement, forget what was its own."""
        self.studio.leave(session + MEASURING)
        self.shelf.forget(session)

    def compare(
        self, session: str, recording: str | None, a: Settings, b: Settings, how: How
    ) -> Iterator[Report]:
        """Time two ways of transcribing one recording against each other; A is the baseline.

        Raises:
            ValueError: nothing to compare, or work a model cannot do; says what.
        """
        if a == b:
            raise ValueError(SAME)
        return self._measure(session, recording, (a, b), how)

    def profile(
        self, session: str, recording: str | None, settings: Settings, how: How
    ) -> Iterator[Report]:
        """Time and trace one way of transcribing a recording.

        Raises:
            ValueError: as for :meth:`compare`.
        """
        return self._measure(session, recording, (settings,), how)

    def once(
        self, recording: str | None, settings: tuple[Settings, ...], how: How, folder: Path
    ) -> Measured:
        """Measure for a caller without a page; the runs are written below ``folder``.

        Raises:
            ValueError: as for :meth:`compare`.
        """
        if len(set(settings)) < len(settings):
            raise ValueError(SAME)
        job = Job()
        path, blocks = self._checked(recording, settings, how)
        work = self._work(job, path, settings, How(blocks, how.fixed_length), RunStore(folder), "")
        for report in self.studio.worker.told(job, work):
            if isinstance(report, Measured):
                return report
        raise AssertionError("a measurement ended without a result")

    def _measure(
        self, session: str, recording: str | None, settings: tuple[Settings, ...], how: How
    ) -> Iterator[Report]:
        path, blocks = self._checked(recording, settings, how)
        store, prefix = self.shelf.store(session)
        job = self.studio.job_of(session + MEASURING)
        ended = False
        try:
            work = self._work(job, path, settings, How(blocks, how.fixed_length), store, prefix)
            for report in self.studio.worker.told(job, work):
                ended = isinstance(report, Measured)
                yield report
            if not ended:
                yield NotBegun()
        finally:
            self.studio.forget(session + MEASURING, job)

    def _checked(
        self, recording: str | None, settings: tuple[Settings, ...], how: How
    ) -> tuple[Path, int]:
        """What can be checked without a model.

        Raises:
            ValueError: nothing is measured here, no recording, no model, or a setting nobody has.
        """
        if self.refusal is not None:
            raise ValueError(self.refusal)
        path = self.studio.limits.check_recording(recording)
        if not FEWEST <= how.blocks <= MOST:
            raise ValueError(f"{how.blocks} blocks came; expected {FEWEST} to {MOST}")
        for one in settings:
            self.studio.limits.check(one)
            if one.quantize and one.quantize not in quantisers(one.device or None):
                known = ", ".join(quantisers(one.device or None))
                raise ValueError(f"weights {one.quantize!r} are not known here; expected {known}")
        return Path(path), int(how.blocks)

    def _work(
        self,
        job: Job,
        recording: Path,
        settings: tuple[Settings, ...],
        how: How,
        store: RunStore,
        prefix: str,
    ) -> Callable[[Callable[[Report], None]], None]:
        """On the models' thread: load, time, trace, compare; tells its progress."""

        def work(tell: Callable[[Report], None]) -> None:
            clip = Clip.of(recording)
            if clip.seconds > LONGEST_S:
                raise ValueError(
                    f"{clip.name} is {clip.seconds:.0f} s long; measuring runs it dozens of times, "
                    f"so at most {LONGEST_S:.0f} s are taken: cut a piece out of it"
                )
            tell(Doing(0.0, "loading and looking at what this machine can do", None))
            labs = [self.studio.lab(one) for one in settings]
            plans = [
                workload_on(
                    lab,
                    clip,
                    model=_model_name(one.model),
                    engine=one.engine,
                    lora=one.lora,
                    decoding=one.decoding,
                    max_new_tokens=int(one.max_new_tokens),
                    ignore_eos=how.fixed_length,
                )
                for lab, one in zip(labs, settings, strict=True)
            ]
            if len(set(plans)) < len(plans):
                raise ValueError(SAME_HERE)
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
            tell(Measured(keys, runs, found, stopped))

        return work

    def _run(
        self,
        job: Job,
        labs: list[Lab],
        plans: list[Workload],
        store: RunStore,
        plan: Plan,
        tell: Callable[[Report], None],
    ) -> tuple[list[str], bool]:
        timed_from: list[float] = []

        def progress(share: float, text: str) -> None:
            now = time.monotonic()
            if text.startswith("run ") and not timed_from:
                timed_from.append(now)
            tell(Doing(share, text, _left_s(share, timed_from, now)))

        try:
            ids = measure(labs, plans, store, plan, progress=progress, cancelled=job.cancelled)
        except Cancelled:
            raise ValueError(
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


def _model_name(name: str) -> str:
    """The name as it is kept in a run; of a folder the last part: runs are passed on."""
    return Path(name).name if Path(name).is_dir() else name


def _left_s(share: float, timed_from: list[float], now: float) -> float | None:
    """Seconds to the end at the pace of the timed runs; tracing is guessed to go on like them."""
    done = share - 0.2  # warming up is a fifth of the bar, and of no steady length
    if not timed_from or done <= 0.02:
        return None
    return (now - timed_from[0]) / done * (1 - share)
