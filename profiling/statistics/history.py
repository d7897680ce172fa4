"""The same workload over days and commits -> its changes, told apart from noise.

In: runs as their ``run.json`` states them. Out: a :class:`History` for each workload and kind of
machine, runs in order of time.

A run counts as one value a phase, the median of its blocks. How fast the machine was on a day is
read off the other phases of the same run and taken off; the steps that remain are found by
:mod:`profiling.statistics.change_points`. The whole is searched as it is: a change of all phases
alike, of the machine or of what they share, shows there and in no phase.
Runs of a busy machine are kept, but no change is read off them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from statistics import median
from typing import Any

import numpy as np

from core.phases import PHASES
from profiling.measure.timing import END_TO_END, OTHER
from profiling.statistics.change_points import (
    FEWEST_A_SIDE,
    LEAST_SPREAD,
    Series,
    drift_of,
    find_steps,
    without_drift,
)
from profiling.statistics.compare import BUSY_SHARE
from profiling.statistics.intervals import Ratio, median_interval, noise_floor, verdict
from profiling.statistics.run_table import machine_class, versions, workload_key
from profiling.statistics.verdicts import Run, aa_ratios

TOO_FEW = "{n} runs on a quiet machine; at least {need} are needed to tell a change"
RESAMPLES = 1_000  # of a run's interval, which is only drawn


@dataclass(frozen=True)
class Point:
    """One run of a history. medians: by phase, (median, low, high) in milliseconds.

    busy: other processes took so much of the machine that no change is read off this run.
    """

    id: str
    created: str
    versions: dict[str, str]
    busy: bool
    medians: dict[str, tuple[float, float | None, float | None]]


@dataclass(frozen=True)
class ChangePoint:
    """A lasting change of a phase. at: number of the first run after it.

    ratio: after / before, what the machine did in the other phases taken off.
    """

    phase: str
    at: int
    ratio: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Change:
    """Steps at one place. between: ids of the last run before and the first after.

    new_versions: what differs between them, "name old -> new".
    """

    at: int
    between: tuple[str, str]
    created: str
    new_versions: tuple[str, ...]
    steps: tuple[ChangePoint, ...]


@dataclass(frozen=True)
class History:
    """A workload on one kind of machine. note: why no change can be told, None if it can."""

    workload: dict[str, Any]
    machine: dict[str, Any]
    points: tuple[Point, ...]
    changes: tuple[Change, ...]
    note: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def histories(runs: Sequence[Run]) -> list[History]:
    """Return a history a workload and kind of machine, the longest first, of whole timed runs."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if (run.get("samples") or {}).get(END_TO_END) and not run.get("stopped"):
            key = (workload_key(run["workload"]), machine_class(run["machine"]))
            groups.setdefault(key, []).append(run)
    return sorted(map(history, groups.values()), key=lambda found: -len(found.points))


def history(runs: Sequence[Run]) -> History:
    """Return the history of runs of one workload on one kind of machine."""
    runs = sorted(runs, key=lambda run: str(run.get("created", "")))
    points = tuple(map(_point, runs))
    calm = [at for at, point in enumerate(points) if not point.busy]
    quiet = [points[at] for at in calm]
    renewed = {at for at in range(1, len(quiet)) if quiet[at].versions != quiet[at - 1].versions}
    least = {name: _least_spread(runs, name) for name in (*PHASES, OTHER, END_TO_END)}
    steps = _steps(quiet, renewed, least)
    note = None
    if len(quiet) < 2 * FEWEST_A_SIDE:
        note = TOO_FEW.format(n=len(quiet), need=2 * FEWEST_A_SIDE)
    last = runs[-1]
    return History(
        workload=dict(last["workload"]),
        machine=dict(last["machine"]),
        points=points,
        changes=tuple(_changes(steps, quiet, renewed, calm)),
        note=note,
    )


def _point(run: Run) -> Point:
    medians = {
        name: (
            median(values),
            *(median_interval(values, resamples=RESAMPLES) if min(values) > 0 else (None, None)),
        )
        for name, values in run["samples"].items()
    }
    known = versions(run["machine"])
    busy = (run["machine"].get("others_cpu_share") or 0) > BUSY_SHARE
    return Point(str(run.get("id")), str(run.get("created", "")), known, busy, medians)


def _least_spread(runs: Sequence[Run], phase: str) -> float:
    """Return by how much, in logs, equal work usually differed within a session."""
    seen = [abs(log(found[phase].ratio)) for found in map(aa_ratios, runs) if phase in found]
    return max(median(seen) if seen else 0.0, LEAST_SPREAD)


def _steps(
    quiet: Sequence[Point], renewed: set[int], least: Mapping[str, float]
) -> list[ChangePoint]:
    """Return the steps of every phase, and of the whole, that all runs have."""
    names = [n for n in least if quiet and all(p.medians.get(n, (0.0,))[0] > 0 for p in quiet)]
    if not names:
        return []
    levels = np.log([[point.medians[name][0] for name in names] for point in quiet])
    phases = [at for at, name in enumerate(names) if name != END_TO_END]
    found = []
    for at, name in enumerate(names):
        own = levels[:, at]
        whole = name == END_TO_END
        drift = np.zeros(len(own)) if whole else drift_of(levels[:, phases], phases.index(at))
        series = Series(without_drift(own, drift), drift, own, renewed, least[name])
        for step in find_steps(series):
            low, high = exp(step.size - step.reach), exp(step.size + step.reach)
            ratio = Ratio(exp(step.size), low, high, len(quiet), paired=False)
            words = verdict(ratio, noise_floor(None))
            found.append(ChangePoint(name, step.at, ratio.ratio, ratio.low, ratio.high, words))
    return found


def _changes(
    steps: Sequence[ChangePoint], quiet: Sequence[Point], renewed: set[int], calm: Sequence[int]
) -> list[Change]:
    """Gather steps that lie within a run of each other; calm: what numbers quiet runs have."""
    left, found = sorted(steps, key=lambda step: step.at), []
    while left:
        group = [step for step in left if step.at - left[0].at <= 1]
        left = left[len(group) :]
        places = [step.at for step in group]
        at = max(places, key=lambda place: (place in renewed, places.count(place)))
        before, after = quiet[at - 1], quiet[at]
        names = dict.fromkeys([*before.versions, *after.versions])
        new = tuple(
            f"{name} {before.versions.get(name, 'unknown')[:12]} -> "
            f"{after.versions.get(name, 'unknown')[:12]}"
            for name in names
            if before.versions.get(name) != after.versions.get(name)
        )
        by_size = sorted(group, key=lambda step: (step.phase != END_TO_END, -abs(log(step.ratio))))
        found.append(Change(calm[at], (before.id, after.id), after.created, new, tuple(by_size)))
    return found
