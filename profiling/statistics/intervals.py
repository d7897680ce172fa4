"""Ratios of paired timings with an interval, and the words for what they show.

In: per-block times of two arms (milliseconds). Out: :class:`Ratio`, time of b over time of a, with
a 95 % interval. Arms that were run in the same blocks are paired, so that a machine that slows down
for a while slows both; the blocks are resampled, never the tokens or runs inside one, which are not
independent.

What was chosen here was tried on thousands of sessions cut out of recorded runs
(``docs/findings.md``): the middle of all means of two blocks varies less than the median of blocks
and shrugs off interruptions as well; and the resampled percentiles are spread as Student's t is
against the normal distribution, without which few blocks give intervals that are too narrow.

Below six blocks no 95 % interval of a median exists: even the whole range of n values misses the
true median with probability 2 * 0.5**n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4_000
LEVEL = 0.95
FEWEST_BLOCKS = 6
MOST_AT_ONCE = 2_000_000  # numbers held while resampling
NO_DIFFERENCE = "no difference shown"
TOO_FEW = "too few blocks ({n}) to say; at least {need} are needed"
# Differences below this are true but nobody would act on them.
WORTH_SAYING = 0.005
TIMES_AGREE_WITHIN = 0.02  # the ratio and the quotient of the medians beside it

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """Time of b over time of a: below 1, b is faster. n: blocks; paired: run in the same blocks."""

    ratio: float
    low: float
    high: float
    n: int
    paired: bool = True

    @property
    def has_interval(self) -> bool:
        """Return if there were blocks enough for an interval."""
        return self.n >= FEWEST_BLOCKS


def paired_ratio(
    a_ms: Sequence[float], b_ms: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> Ratio:
    """Return the Hodges-Lehmann estimate with a bootstrap interval over blocks.

    The estimate is exp(median of the means of all pairs of per-block log ratios).

    Args:
        a_ms: the baseline's time in each block.
        b_ms: the other's.
        resamples: draws of the bootstrap.
        seed: of the draws.

    Raises:
        ValueError: different numbers of blocks, none, or a time that is not above zero.
    """
    if len(a_ms) != len(b_ms):
        raise ValueError(f"{len(a_ms)} and {len(b_ms)} blocks came; expected as many of each")
    logs = _logs(b_ms) - _logs(a_ms)
    middle = float(middle_of_means(logs[None])[0])
    low, high = _percentiles(middle_of_means(_resampled(logs, resamples, seed)), len(logs))
    return Ratio(exp(middle), exp(low), exp(high), len(logs))


def unpaired_ratio(
    a_ms: Sequence[float], b_ms: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> Ratio:
    """Return the ratio of medians of arms measured apart; each is resampled on its own.

    The interval knows the noise within each arm, not what changed between the two.

    Args:
        a_ms: the baseline's time in each block.
        b_ms: the other's.
        resamples: draws of the bootstrap.
        seed: of the draws.
    """
    a, b = _logs(a_ms), _logs(b_ms)
    draws = [_resampled(logs, resamples, seed + number) for number, logs in enumerate((b, a))]
    fewest = min(len(a), len(b))
    low, high = _percentiles(np.median(draws[0], axis=1) - np.median(draws[1], axis=1), fewest)
    middle = float(np.median(b) - np.median(a))
    return Ratio(exp(middle), exp(low), exp(high), fewest, paired=False)


def median_interval(
    values_ms: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float | None, float | None]:
    """Return the 95 % interval of the median; None twice below six values.

    Args:
        values_ms: one a block.
        resamples: draws of the bootstrap.
        seed: of the draws.
    """
    if len(values_ms) < FEWEST_BLOCKS:
        return None, None
    draws = np.median(_resampled(_logs(values_ms), resamples, seed), axis=1)
    low, high = _percentiles(draws, len(values_ms))
    return exp(low), exp(high)


def _logs(values_ms: Sequence[float]) -> Values:
    if not values_ms:
        raise ValueError("no blocks came; expected at least one")
    if not all(isfinite(value) and value > 0 for value in values_ms):
        raise ValueError(f"times must be above 0 ms; the least that came is {min(values_ms)}")
    return np.array([log(value) for value in values_ms])


def _resampled(values: Values, resamples: int, seed: int) -> Values:
    """Draw [R, n] of n whole blocks, with replacement."""
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    return values[draws]


def middle_of_means(draws: Values) -> Values:
    """Return the median [R] of the means of every two of a row of draws [R, n]."""
    first, second = np.triu_indices(draws.shape[1])
    middles = [
        np.median((part[:, first] + part[:, second]) / 2, axis=1)
        for part in np.array_split(draws, max(1, len(draws) * len(first) // MOST_AT_ONCE))
    ]
    return np.concatenate(middles)


def _percentiles(values: Values, num_blocks: int) -> tuple[float, float]:
    tail = 100 * tail_share(num_blocks)
    low, high = np.percentile(values, (tail, 100 - tail)).tolist()
    return low, high


def tail_share(num_blocks: int) -> float:
    """Return the share to cut off at each end: that of the normal distribution beyond Student's t.

    T. Hesterberg, What Teachers Should Know About the Bootstrap, 2015, section 4.1.3 ("expanded
    percentile"); the quantile of t by the expansion of Abramowitz and Stegun, 26.7.5.
    """
    z, v = NormalDist().inv_cdf((1 + LEVEL) / 2), num_blocks - 1
    if v < 1:
        return 0.0
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return 1 - NormalDist().cdf(t * sqrt(num_blocks / v))


def noise_floor(again: Ratio | None) -> tuple[float, float]:
    """Return what equal work can look like here: from no difference to what the A/A arm showed.

    Its ratio, not its interval: the other ratio's interval knows the same noise already.
    """
    if again is None:
        return 1.0, 1.0
    return min(again.ratio, 1.0), max(again.ratio, 1.0)


def is_shown(found: Ratio, floor: tuple[float, float]) -> bool:
    """Find out if the interval lies wholly outside ``floor`` (see :func:`noise_floor`)."""
    low, high = floor
    inside = found.low <= high * (1 + WORTH_SAYING) and found.high >= low / (1 + WORTH_SAYING)
    return found.has_interval and not inside


def verdict(found: Ratio, floor: tuple[float, float]) -> str:
    """Say the ratio in words, or that no difference is shown."""
    if not found.has_interval:
        return TOO_FEW.format(n=found.n, need=FEWEST_BLOCKS)
    if not is_shown(found, floor):
        return NO_DIFFERENCE
    if found.ratio < 1:
        times, bounds, word = 1 / found.ratio, (1 / found.high, 1 / found.low), "faster"
    else:
        times, bounds, word = found.ratio, (found.low, found.high), "slower"
    digits = _digits(times, *bounds)
    least, most = (f"{bound:.{digits}f}" for bound in bounds)
    return f"{times:.{digits}f}x {word}, {least} to {most}"


def reason(found: Ratio, floor: tuple[float, float], quotient: float) -> str | None:
    """Return what makes a row look at odds with itself; None where nothing does.

    Args:
        found: the ratio and its interval.
        floor: of :func:`noise_floor`.
        quotient: median time of b over median time of a, as the row's times show it.
    """
    said = []
    if found.has_interval and not is_shown(found, floor) and not found.low <= 1 <= found.high:
        if found.low <= floor[1] and found.high >= floor[0]:
            said.append(f"running A twice gave up to {max(floor[1], 1 / floor[0]):.3f}x")
        else:
            said.append(f"less than {WORTH_SAYING:.1%} beyond the noise")
    if abs(log(found.ratio / quotient)) > log(1 + TIMES_AGREE_WITHIN):
        said.append(f"B / A is taken block by block; the medians alone give {quotient:.3f}")
    return "; ".join(said) or None


def _digits(*values: float) -> int:
    """Return decimals that keep the nearest value apart from 1, and values from each other."""
    nearest = min(abs(value - 1) for value in values)
    digits = 1 if nearest >= 0.15 else 2 if nearest >= 0.015 else 3
    while digits < 3 and len({f"{value:.{digits}f}" for value in values}) < 2:
        digits += 1
    return digits
