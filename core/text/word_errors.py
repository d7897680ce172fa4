"""Word and character error rates of a text against a reference.

In: texts, and the name of a normaliser (:mod:`core.text.normalizers`). Out: jiwer's counts, and
rates over several recordings with 95 % intervals, for which whole recordings are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jiwer
import numpy as np
from numpy.typing import NDArray

from core.text.normalizers import normalize

Counts = NDArray[np.int64]
DRAWS = 2000
MOST_AT_ONCE = 2_000_000  # numbers held while resampling


@dataclass(frozen=True)
class ErrorRate:
    """An error rate in percent, its 95 % interval, and how many clips are exactly right."""

    percent: float
    low: float
    high: float
    num_clips: int
    num_exact: int


class WordRun(NamedTuple):
    """Words in a row that agree (``said == heard``), or that one text has in place of the other."""

    said: str
    heard: str


def word_errors(reference: str, heard: str, normalizer: str = "basic") -> tuple[int, int]:
    """Return (errors, reference words) of a text."""
    return _counts(
        jiwer.process_words(normalize(reference, normalizer), normalize(heard, normalizer))
    )


def character_errors(reference: str, heard: str, normalizer: str = "basic") -> tuple[int, int]:
    """Return (errors, reference characters) of a text."""
    return _counts(
        jiwer.process_characters(normalize(reference, normalizer), normalize(heard, normalizer))
    )


def aligned_words(reference: str, heard: str, normalizer: str = "basic") -> list[WordRun]:
    """Lay a text beside its reference, both normalised, as they are when errors are counted.

    Returns:
        Runs of words in order; a side is empty where the other has words of its own.
    """
    said, got = normalize(reference, normalizer), normalize(heard, normalizer)
    one, two = said.split(), got.split()
    return [
        WordRun(
            " ".join(one[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(two[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in jiwer.process_words(said, got).alignments[0]
    ]


def edit_counts(
    pairs: Sequence[tuple[str, str]], *, characters: bool = False
) -> tuple[Counts, Counts]:
    """Count the edits (insertions, deletions, substitutions) of each pair, as it is written.

    Args:
        pairs: N of (reference, hypothesis); at least one.
        characters: count characters in place of words.

    Returns:
        Edits [N], and words (or characters) of each reference [N].
    """
    process = jiwer.process_characters if characters else jiwer.process_words
    counts = [_counts(process(*pair)) for pair in pairs]
    edits, lengths = np.array(counts).T
    return edits, lengths


def error_rate(
    pairs: Sequence[tuple[str, str]], *, characters: bool = False, seed: int = 0
) -> ErrorRate:
    """Compute errors per reference word (or character); clips are resampled for the interval.

    Args:
        pairs: (reference, hypothesis); at least one.
        characters: count characters in place of words.
        seed: of the bootstrap.

    Returns:
        The rate over all pairs.
    """
    errors, lengths = edit_counts(pairs, characters=characters)
    low, high = ratio_interval(errors, lengths, seed=seed)
    percent = 100.0 * errors.sum() / max(1, lengths.sum())
    exact = sum(reference.split() == hypothesis.split() for reference, hypothesis in pairs)
    return ErrorRate(float(percent), 100 * low, 100 * high, len(pairs), exact)


def ratio_interval(
    above: NDArray[np.number], below: NDArray[np.number], *, tail: float = 0.025, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap the interval of sum(above) / sum(below) over N recordings.

    Args:
        above: [N], errors or seconds.
        below: [N], words or seconds.
        tail: the share to cut off at each end.
        seed: of the draws.

    Returns:
        Its ends.
    """
    draws, n = np.random.default_rng(seed), len(above)
    at_once = max(1, MOST_AT_ONCE // n)
    rates = []
    for begin in range(0, DRAWS, at_once):
        picks = draws.integers(0, n, (min(at_once, DRAWS - begin), n))
        sums = below[picks].sum(1)
        rates.append(above[picks].sum(1) / np.where(sums > 0, sums, 1))
    low, high = np.percentile(np.concatenate(rates), (100 * tail, 100 - 100 * tail)).tolist()
    return low, high


def _counts(found: jiwer.WordOutput | jiwer.CharacterOutput) -> tuple[int, int]:
    errors = found.substitutions + found.deletions + found.insertions
    return errors, found.hits + found.substitutions + found.deletions
