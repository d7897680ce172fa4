"""Two runs' texts compared: token by token, and word by word against what was really said.

In: token ids, or texts. Out: where they part, how many words are wrong, and both in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Return the index of the first token that differs or is missing; None if none does."""
    if list(a) == list(b):
        return None
    same = (left == right for left, right in zip(a, b, strict=False))
    return next((i for i, equal in enumerate(same) if not equal), min(len(a), len(b)))


def agreement_said(comparison: Mapping[str, Any]) -> str:
    """Say if two runs made the same tokens, and how many words are wrong where that is known."""
    said = "Both made the same tokens."
    if not comparison["tokens_identical"]:
        said = f"The tokens differ from the {_ordinal(comparison['first_difference'] + 1)} on."
    a, b = comparison.get("wer_a"), comparison.get("wer_b")
    if a is not None and b is not None:
        said += f" Words wrong: {100 * a:.1f} % for A, {100 * b:.1f} % for B."
    return said


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if 10 <= number % 100 <= 20 else ending}"
