"""Repetition: finding where a decoder began to say the same thing over and over.

In: token ids. Out: how many of them to keep. Language models fall into loops on music, noise and
very long input; a transcript that says so is worth more than one that goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_PERIOD = 24  # tokens
MIN_REPEATS = 4
MIN_TOKENS = 32  # repeated tokens in all; numbers and chants repeat a little, and rightly


def length_before_loop(ids: Sequence[int]) -> int | None:
    """Count the tokens to keep if ``ids`` ends in a loop (one round of it stays), else None."""
    for period in range(1, LONGEST_PERIOD + 1):
        repeated = _tail_of_period(ids, period)
        if repeated >= max(MIN_REPEATS * period, MIN_TOKENS):
            return len(ids) - repeated + period
    return None


def _tail_of_period(ids: Sequence[int], period: int) -> int:
    """Measure the longest tail of ``ids`` that repeats with ``period``."""
    place = len(ids) - 1
    while place >= period and ids[place] == ids[place - period]:
        place -= 1
    return min(len(ids), len(ids) - 1 - place + period)
