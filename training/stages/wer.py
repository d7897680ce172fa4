"""Word and character error rates, with bootstrap intervals.

In: pairs (reference, hypothesis) of plain text. Out: rates, and 95 % intervals over clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rate:
    """An error rate in percent, its 95 % interval, and how many clips came out exactly right."""

    percent: float
    low: float
    high: float
    num_clips: int
    num_exact: int


def distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions from one sequence to the other."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, got in enumerate(hypothesis, start=1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != got))
            diagonal, row[j] = row[j], best
    return row[-1]


def error_rate(
    pairs: Sequence[tuple[str, str]], *, characters: bool = False, draws: int = 2000, seed: int = 0
) -> Rate:
    """Errors per reference word (or character); clips are resampled for the interval.

    Args:
        pairs: (reference, hypothesis); at least one.
        characters: count characters in place of words.
        draws: bootstrap samples.
        seed: of the bootstrap.
    """
    split = list if characters else str.split
    errors = np.array([distance(split(r), split(h)) for r, h in pairs])
    lengths = np.array([len(split(r)) for r, _ in pairs])
    picks = np.random.default_rng(seed).integers(0, len(pairs), (draws, len(pairs)))
    rates = 100.0 * errors[picks].sum(1) / np.maximum(1, lengths[picks].sum(1))
    low, high = np.percentile(rates, [2.5, 97.5])
    percent = 100.0 * errors.sum() / max(1, lengths.sum())
    exact = sum(r.split() == h.split() for r, h in pairs)
    return Rate(float(percent), float(low), float(high), len(pairs), exact)
