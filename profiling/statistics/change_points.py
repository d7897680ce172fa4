"""One value a day -> the days on which it changed for good, told apart from noise and drift.

In: logarithms of the phases' times, [N, P], a row a day. Out: :class:`Step`, in logarithms.

Machines are faster on some days, and then in every phase: what the other phases did that day says
how fast the machine was (:func:`drift_of`), and is taken off (:func:`without_drift`). What is left
moves far less than the times themselves. A phase must have moved by itself too, or a change of most
phases would be read as the opposite change of the rest.

A step counts if hardly a series without one has a larger one, over its error, anywhere
(:func:`critical_step`). That is simulated, with days that resemble their neighbours and outliers
among them. Three questions are asked, and share the false alarms: is there a step where a version
is new, which leaves noise few places to be lucky at; is there one anywhere; and is there one among
many outliers, or one that was repaired later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from math import log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from profiling.statistics.intervals import WORTH_SAYING

FEWEST_A_SIDE = 3
FEWEST_OTHERS = 3  # phases that say how fast the machine was
FALSE_ALARMS = 0.001  # per phase of a history without a change
SIMULATED = 20_000
SIMULATED_DAYS = (6, 7, 8, 10, 12, 16, 24, 32)
LIKE_THE_DAY_BEFORE = 0.3  # correlation of neighbouring days
TAIL = 5  # degrees of freedom of Student's t, which days are drawn from
MOST_KNOWN = 8  # places with a new version; with more there is nothing to gain
NEARLY = 0.9  # of the largest step: a split at a new version is as likely the place
LEAST_SPREAD = 1e-6  # equal days to the last digit are no proof
TRIM = 10  # of so many days the quickest and the slowest are left out of the mean
WITHIN = 0.75  # the robust spread is what this share of days keep to
UNSURE = 0.3  # how far a phase may follow the machine otherwise than it did so far
MOVED_BY_ITSELF = 0.5  # of a step, before drift is taken off

Values = NDArray[np.float64]
Estimator = Callable[[Values, Values, Values], tuple[Values, Values]]


@dataclass(frozen=True)
class Step:
    """A lasting change. at: the first day after it; size and reach of its interval in logs."""

    at: int
    size: float
    reach: float


@dataclass(frozen=True)
class Series:
    """A phase's days. levels, drift and own are [N]: without drift, the drift, and as timed.

    renewed: days with a version that the day before did not have. least: spread that equal work
    has at least.
    """

    levels: Values
    drift: Values
    own: Values
    renewed: AbstractSet[int]
    least: float = LEAST_SPREAD

    def part(self, begin: int, end: int) -> Series:
        """Return the days from ``begin`` to before ``end``."""
        days = slice(begin, end)
        renewed = {day - begin for day in self.renewed if begin < day < end}
        return Series(self.levels[days], self.drift[days], self.own[days], renewed, self.least)


def drift_of(levels: Values, phase: int) -> Values:
    """Return how much slower than usual the other phases were, day by day [N].

    Args:
        levels: [N, P], all phases.
        phase: which column is not asked. With fewer than three others nothing is known: zeros.
    """
    others = np.delete(levels, phase, axis=1)
    if others.shape[1] < FEWEST_OTHERS:
        return np.zeros(len(levels))
    drift: Values = np.median(others - np.median(others, axis=0), axis=1)
    return drift


def without_drift(own: Values, drift: Values) -> Values:
    """Return ``own`` [N] less as much of ``drift`` [N] as it follows from day to day, 0 to 1 of it.

    That is the slope through the origin with the least absolute errors; from day to day because
    that is where a lasting change counts only once.
    """
    steps, of_machine = np.diff(own), np.diff(drift)
    weights = np.abs(of_machine)
    known = weights > LEAST_SPREAD
    if not known.any():
        return own
    slopes = steps[known] / of_machine[known]
    order = np.argsort(slopes)
    summed = np.cumsum(weights[known][order])
    slope = slopes[order][np.searchsorted(summed, summed[-1] / 2)]
    return own - np.clip(slope, 0, 1) * drift


def find_steps(series: Series, begin: int = 0) -> list[Step]:
    """Return the steps of a series in order, searching before and after each that is found."""
    num_days = len(series.levels)
    if num_days < 2 * FEWEST_A_SIDE:
        return []
    for found in _asked(series):
        return [
            *find_steps(series.part(0, found.at), begin),
            Step(begin + found.at, found.size, found.reach),
            *find_steps(series.part(found.at, num_days), begin + found.at),
        ]
    return []


def _asked(series: Series) -> Iterator[Step]:
    """Yield the largest step by each question that finds one."""
    num_days = len(series.levels)
    splits = np.arange(FEWEST_A_SIDE, num_days - FEWEST_A_SIDE + 1)
    is_new = np.isin(splits, list(series.renewed))
    known = tuple(splits[is_new].tolist())
    ask_known = 0 < len(known) <= min(MOST_KNOWN, len(splits) // 2)
    share = FALSE_ALARMS / (3 if ask_known else 2)
    own, drift = (_splits(days[None], efficient)[0][0] for days in (series.own, series.drift))
    for estimate, places in ((efficient, known), (efficient, None), (robust, None)):
        if places is not None and not ask_known:
            continue
        sizes, errors = (found[0] for found in _splits(series.levels[None], estimate, series.least))
        reach = critical_step(num_days, estimate, share, places) * errors + UNSURE * np.abs(drift)
        strength = (np.abs(sizes) - UNSURE * np.abs(drift)) / errors
        moved = np.sign(sizes) * own >= MOVED_BY_ITSELF * np.abs(sizes)
        shown = moved & (np.abs(sizes) - reach > log1p(WORTH_SAYING))
        if not (shown & is_new if places else shown).any():
            continue
        near = shown & is_new & (strength >= NEARLY * strength[shown].max())
        best = int(np.where(near if near.any() else shown, strength, -np.inf).argmax())
        yield Step(int(splits[best]), float(sizes[best]), float(reach[best]))


def efficient(levels: Values, before: Values, after: Values) -> tuple[Values, Values]:
    """Return steps and their errors, [R] each, by trimmed means and what is spread around them."""
    (low, squares, num), (high, more, num_more) = _trimmed(before), _trimmed(after)
    spread = np.sqrt((squares + more) / (num + num_more - 2))
    return high - low, spread * np.sqrt(1 / num + 1 / num_more)


def robust(levels: Values, before: Values, after: Values) -> tuple[Values, Values]:
    """Return steps and their errors, [R] each, by the middle half of the days.

    The spread is what ``WITHIN`` of the days keep to: around the two means, or from day to day if
    that is less, for a slowdown that was repaired is far from both means.
    """
    means = [_trimmed(days, 4)[0][:, None] for days in (before, after)]
    apart = np.abs(np.hstack([before - means[0], after - means[1]]))
    from_day = np.quantile(np.abs(np.diff(levels, axis=1)), WITHIN, axis=1) / sqrt(2)
    spread = np.minimum(np.quantile(apart, WITHIN, axis=1), from_day)
    return (means[1] - means[0])[:, 0], spread * sqrt(1 / before.shape[1] + 1 / after.shape[1])


def _trimmed(days: Values, cut_one_of: int = TRIM) -> tuple[Values, Values, int]:
    """Return the trimmed mean [R] of rows [R, n], their winsorised squares, and what is kept."""
    cut = days.shape[1] // cut_one_of
    ordered = np.sort(days, axis=1)
    inner = ordered[:, cut : days.shape[1] - cut]
    drawn_in = np.clip(ordered, inner[:, :1], inner[:, -1:])
    squares = ((drawn_in - drawn_in.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return inner.mean(axis=1), squares, inner.shape[1]


def _splits(
    levels: Values,
    estimate: Estimator,
    least: float = LEAST_SPREAD,
    places: tuple[int, ...] | None = None,
) -> tuple[Values, Values]:
    """Return the step at each split of rows of levels [R, N], and its error: both [R, S].

    An error is at least that of a spread of ``least``.
    """
    steps, errors, num_days = [], [], levels.shape[1]
    for at in places or range(FEWEST_A_SIDE, num_days - FEWEST_A_SIDE + 1):
        step, error = estimate(levels, levels[:, :at], levels[:, at:])
        steps.append(step)
        errors.append(np.maximum(error, least * sqrt(1 / at + 1 / (num_days - at))))
    return np.stack(steps, axis=1), np.stack(errors, axis=1)


def critical_step(
    num_days: int, estimate: Estimator, share: float, places: tuple[int, ...] | None = None
) -> float:
    """Return the step, over its error, that ``share`` of the series without a change go beyond.

    Where any place may be the one, series longer than those simulated are judged as the longest
    simulated: they know their spread better, which outweighs that they have more places.

    Args:
        num_days: of the series.
        estimate: of steps and errors.
        share: of false alarms.
        places: where a step is looked for; None for everywhere.
    """
    if places is None:
        num_days = max(n for n in SIMULATED_DAYS if n <= num_days)
    strongest = _simulated_strengths(num_days, estimate, places)
    return float(np.quantile(strongest, 1 - share))


@cache
def _simulated_strengths(
    num_days: int, estimate: Estimator, places: tuple[int, ...] | None
) -> Values:
    """Return the largest step over its error of each of many series without a change."""
    levels = np.random.default_rng(0).standard_t(TAIL, (SIMULATED, num_days))
    for at in range(1, num_days):
        levels[:, at] += LIKE_THE_DAY_BEFORE * levels[:, at - 1]
    sizes, errors = _splits(levels, estimate, places=places)
    strongest: Values = (np.abs(sizes) / errors).max(axis=1)
    return strongest
