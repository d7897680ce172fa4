"""Whether two runs said the same: token by token, and against what was really said.

In: token ids, or texts. Out: where they part, and how many words are wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


def first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Index of the first token that differs, a missing one included; None if none does."""
    if list(a) == list(b):
        return None
    same = (left == right for left, right in zip(a, b, strict=False))
    return next((i for i, equal in enumerate(same) if not equal), min(len(a), len(b)))


def word_errors(reference: str, heard: str) -> tuple[int, int]:
    """(errors, reference words): the fewest words to insert, drop or replace; case and punctuation
    do not count.
    """
    want, got = (re.findall(r"[\w']+", text.lower()) for text in (reference, heard))
    row = list(range(len(got) + 1))
    for i, word in enumerate(want, start=1):
        corner, row[0] = row[0], i
        for j, other in enumerate(got, start=1):
            corner, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, corner + (word != other)),
            )
    return row[-1], len(want)
