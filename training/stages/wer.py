"""Word and character error rates, with bootstrap intervals.

In: pairs (reference, hypothesis) of plain text. Out: rates, and 95 % intervals over clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ErrorRate:
    """An error rate in percent, its 95 % interval, and how many clips are exactly right."""

    percent: float
    low: float
    high: float
    num_clips: int
    num_exact: int


def edit_counts(
    pairs: Sequence[tuple[str, str]], *, characters: bool = False
) -> tuple[Counts, Counts]:
    """Count the edits (insertions, deletions, substitutions) of each pair.

    Args:
        pairs: N of (reference, hypothesis); at least one.
        characters: count characters in place of words.

    Returns:
        Edits [N], and words (or characters) of each reference [N].
    """
    process = jiwer.process_characters if characters else jiwer.process_words
    found = process([reference for reference, _ in pairs], [text for _, text in pairs])
    edits = [
        sum(
            max(part.ref_end_idx - part.ref_start_idx, part.hyp_end_idx - part.hyp_start_idx)
            for part in alignment
            if part.type != "equal"
        )
        for alignment in found.alignments
    ]
    return np.array(edits), np.array([len(reference) for reference in found.references])


def error_rate(
    pairs: Sequence[tuple[str, str]], *, characters: bool = False, draws: int = 2000, seed: int = 0
) -> ErrorRate:
    """Compute errors per reference word (or character); clips are resampled for the interval.

    Args:
        pairs: (reference, hypothesis); at least one.
        characters: count characters in place of words.
        draws: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        The rate over all pairs.
    """
    errors, lengths = edit_counts(pairs, characters=characters)
    picks = np.random.default_rng(seed).integers(0, len(pairs), (draws, len(pairs)))
    rates = 100.0 * errors[picks].sum(1) / np.maximum(1, lengths[picks].sum(1))
    low, high = np.percentile(rates, [2.5, 97.5])
    percent = 100.0 * errors.sum() / max(1, lengths.sum())
    exact = sum(reference.split() == hypothesis.split() for reference, hypothesis in pairs)
    return ErrorRate(float(percent), float(low), float(high), len(pairs), exact)
