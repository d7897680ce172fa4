"""The timed pass of a session: every arm warmed up and compiled, then all of them interleaved.

In: loaded models and workloads, one pair an arm, and the recording's bytes. Out: :class:`Timings`.
The profiler stays off throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.lab import Lab
from profiling.measure.compile_stats import Ledger, Watch
from profiling.measure.machine import Busyness, describe_machine
from profiling.measure.timing import Arm, Cancelled, Sample, interleave, time_once, warm_up
from profiling.measure.workload import Workload
from profiling.roofline.machine_peaks import Ceilings

# Where nobody says how many blocks: as many as fit into so many seconds, within these bounds.
FEWEST_BLOCKS, MOST_BLOCKS, SPENT_S = 20, 60, 20.0
AGAIN = "again"

Blocks = list[tuple[Sample, Sample]]


@dataclass(frozen=True)
class TimingSettings:
    """Settings. again: with an A/A arm; trace: record one too, with modules if ``modules``.

    blocks: of two runs an arm, None for what :func:`blocks_that_fit` says. reference: what is
    really said in the recording, kept for word error rates. keep: when stopped, store the blocks
    that were done, if there are any. at_most_s: where ``blocks`` would take longer, as many as fit
    into so many seconds, but ``fewest``; None for no such limit. between: called between two
    blocks, as :func:`interleave` does.
    """

    blocks: int | None = None
    again: bool = True
    trace: bool = True
    reference: str | None = None
    ceilings: Ceilings | None = None
    keep: bool = False
    modules: bool = False
    at_most_s: float | None = None
    fewest: int = 1
    between: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Timings:
    """The results of a timed pass, in the order of the workloads. again: the A/A arm's blocks.

    asked: how many blocks there were to be. num_pauses: between how many other requests ran.
    """

    asked: int
    warm_ups_ms: list[list[float]]
    blocks: list[Blocks]
    again: Blocks | None
    ledger: Ledger
    compiled_before: bool
    num_late_graphs: int
    num_pauses: int
    machine: dict[str, Any]


def blocks_that_fit(run_ms: Sequence[float]) -> int:
    """Return how many blocks fit into ``SPENT_S``; run_ms: one run of each arm, A/A too.

    Known before anything is timed: the number never depends on what the blocks show.
    """
    return min(MOST_BLOCKS, max(FEWEST_BLOCKS, int(SPENT_S / _block_s(run_ms))))


def _block_s(run_ms: Sequence[float]) -> float:
    return 2 * sum(run_ms) / 1000


def blocks_asked(how: TimingSettings, run_ms: Sequence[float]) -> int:
    """Return how many blocks ``how`` means; run_ms: one run of each arm, A/A too."""
    if how.blocks is None:
        return blocks_that_fit(run_ms)
    if how.at_most_s is None:
        return how.blocks
    return min(how.blocks, max(how.fewest, int(how.at_most_s / _block_s(run_ms))))


def time_all(
    labs: Sequence[Lab],
    workloads: Sequence[Workload],
    recording: bytes,
    how: TimingSettings,
    progress: Callable[[float, str], None],
    cancelled: Callable[[], bool],
) -> Timings:
    """Return timings of every workload on its model, of the first twice if ``how`` has an A/A arm.

    Args:
        labs: a model for each workload.
        workloads: what to time; the first is the baseline.
        recording: the clip's bytes.
        how: how to measure.
        progress: told the share done and what is being done.
        cancelled: asked before every run.

    Raises:
        Cancelled: the caller asked to stop, and nothing is kept.
    """

    def runner(number: int) -> Callable[[], Sample]:
        return lambda: time_once(labs[number], workloads[number], recording)

    def unless_cancelled(run: Callable[[], Sample]) -> Callable[[], Sample]:
        def checked() -> Sample:
            if cancelled():
                raise Cancelled("measuring was stopped")
            return run()

        return checked

    warm_ups, watch = [], Watch()
    for number, workload in enumerate(workloads):
        verb = "compiling and warming up" if workload.engine == "compile" else "warming up"
        progress(0.2 * number / len(workloads), f"{verb} {workload.label()}")
        done = warm_up(unless_cancelled(runner(number)))
        warm_ups.append([run.end_to_end_ms for run in done])
    ledger = watch.read()
    before = not ledger.entries and any(
        workload.engine == "compile" and not lab.compile_ledger.packaged
        for lab, workload in zip(labs, workloads, strict=True)
    )
    arms = [Arm(str(number), runner(number)) for number in range(len(workloads))]
    if how.again:
        arms.append(Arm(AGAIN, runner(0)))
    ready = [runs[-1] for runs in (*warm_ups, *(warm_ups[:1] if how.again else ()))]
    asked = blocks_asked(how, ready)
    late, busy, graphs_between = Watch(), Busyness(), list[int]()

    def between() -> bool:
        watched = Watch()
        others_ran = how.between()
        if others_ran:
            graphs_between.append(watched.read().graphs)
        return others_ran

    blocks = interleave(
        arms,
        asked,
        progress=lambda done, total: progress(0.2 + 0.6 * done / total, f"run {done} of {total}"),
        cancelled=cancelled,
        keep=how.keep,
        between=between,
    )
    machine = {**describe_machine(labs[0].device), **busy.read(), "threads": workloads[0].threads}
    return Timings(
        asked=asked,
        warm_ups_ms=warm_ups,
        blocks=[blocks[str(number)] for number in range(len(workloads))],
        again=blocks.get(AGAIN),
        ledger=Watch(from_start=True).read() if before else ledger,
        compiled_before=before,
        num_late_graphs=late.read().graphs - sum(graphs_between),
        num_pauses=len(graphs_between),
        machine=machine,
    )
