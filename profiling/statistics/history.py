"""The same workload over days and commits -> its changes, told apart from noise.

In: runs as their ``run.json`` states them. Out: a :class:`History` for each workload and kind of
machine, runs in order of time.

Runs of different days differ by more than the blocks of one do: machines are faster on some days.
So a run counts as one value, the median of its blocks. Of every split of the days, the one with the
largest step against what is left of the spread counts; how large that is where nothing changed is
simulated (:func:`critical_step`), with days that resemble their neighbours and outliers among them.
A step's interval is as wide as that, and never narrower than what the A/A arms of the sessions ask
for. It is a change by the rule that comparisons have; the days before and after are then searched
likewise.
Runs of a busy machine are kept, but no change is read off them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import exp, log, sqrt
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.phases import PHASES
from profiling.measure.timing import END_TO_END, OTHER
from profiling.statistics.compare import BUSY_SHARE
from profiling.statistics.intervals import (
    Ratio,
    is_shown,
    median_interval,
    middle_of_means,
    noise_floor,
    verdict,
)
from profiling.statistics.run_table import machine_class, versions, workload_key
from profiling.statistics.verdicts import Run, aa_ratios

FEWEST_A_SIDE = 3
TOO_FEW = "{n} runs on a quiet machine; at least {need} are needed to tell a change"
RESAMPLES = 1_000  # of a run's interval, which is only drawn
FALSE_ALARMS = 0.002  # per phase of a history without a change
SIMULATED = 5_000
SIMULATED_RUNS = (6, 7, 8, 10, 12, 16, 24, 32)
LIKE_THE_DAY_BEFORE = 0.3  # correlation of neighbouring days
TAIL = 5  # degrees of freedom of Student's t, which days are drawn from
NEARLY = 0.9  # of the largest step: a split at a new version is as likely the place
LEAST_SPREAD = 1e-6  # equal days to the last digit are no proof
WITHIN = 0.75  # the spread is the distance from the middle that this share of days keep

Values = NDArray[np.float64]


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
    """A lasting change of a phase. at: number of the first run after it; ratio: after / before."""

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
    steps = [
        step
        for name in (*PHASES, OTHER, END_TO_END)
        if quiet and all(point.medians.get(name, (0.0,))[0] > 0 for point in quiet)
        for step in _steps(
            name,
            np.log([point.medians[name][0] for point in quiet]),
            _least_spread(runs, name),
            renewed,
        )
    ]
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
    phase: str, levels: Values, least: float, renewed: set[int], begin: int = 0
) -> list[ChangePoint]:
    """Return the steps of ``levels`` [N], searching before and after each that is found."""
    if len(levels) < 2 * FEWEST_A_SIDE:
        return []
    sizes, errors = (values[0] for values in _split(levels[None], least))
    strength = np.abs(sizes) / errors
    near = [
        place
        for place in np.flatnonzero(strength >= NEARLY * strength.max())
        if begin + FEWEST_A_SIDE + int(place) in renewed
    ]
    best = int(max(near, key=lambda place: strength[place], default=strength.argmax()))
    at, size = FEWEST_A_SIDE + best, float(sizes[best])
    reach = critical_step(len(levels)) * float(errors[best])
    found = Ratio(exp(size), exp(size - reach), exp(size + reach), len(levels), paired=False)
    if not is_shown(found, noise_floor(None)):
        return []
    words = verdict(found, noise_floor(None))
    return [
        *_steps(phase, levels[:at], least, renewed, begin),
        ChangePoint(phase, begin + at, found.ratio, found.low, found.high, words),
        *_steps(phase, levels[at:], least, renewed, begin + at),
    ]


def _split(levels: Values, least: float = LEAST_SPREAD) -> tuple[Values, Values]:
    """Find the step at each split of rows of levels [R, N], and its error.

    Returns:
        Steps and errors, [R, S]; an error is the spread, ``least`` or more, over as many days as
        there are on each side. The spread is that around the two middles, or from day to day if
        that is less, for a slowdown that was repaired is far from both middles.
    """
    steps, errors, num_runs = [], [], levels.shape[1]
    from_day = np.quantile(np.abs(np.diff(levels, axis=1)), WITHIN, axis=1) / sqrt(2)
    for at in range(FEWEST_A_SIDE, num_runs - FEWEST_A_SIDE + 1):
        before, after = levels[:, :at], levels[:, at:]
        middles = [middle_of_means(part)[:, None] for part in (before, after)]
        apart = np.abs(np.hstack([before - middles[0], after - middles[1]]))
        spread = np.maximum(np.minimum(np.quantile(apart, WITHIN, axis=1), from_day), least)
        steps.append((middles[1] - middles[0])[:, 0])
        errors.append(spread * sqrt(1 / at + 1 / (num_runs - at)))
    return np.stack(steps, axis=1), np.stack(errors, axis=1)


def critical_step(num_runs: int) -> float:
    """Return the step, over its error, that hardly a history without a change goes beyond.

    Of histories longer than those simulated, the longest simulated counts: it knows its spread
    less well, which outweighs its fewer splits.
    """
    return _simulated_step(max(n for n in SIMULATED_RUNS if n <= num_runs))


@cache
def _simulated_step(num_runs: int) -> float:
    levels = np.random.default_rng(0).standard_t(TAIL, (SIMULATED, num_runs))
    for at in range(1, num_runs):
        levels[:, at] += LIKE_THE_DAY_BEFORE * levels[:, at - 1]
    steps, errors = _split(levels)
    return float(np.quantile((np.abs(steps) / errors).max(axis=1), 1 - FALSE_ALARMS))


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
