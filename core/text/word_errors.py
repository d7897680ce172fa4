"""How many words (or characters) of a text are wrong, beside what was really said.

In: two texts. Out: jiwer's counts. Case and punctuation do not count.
"""

from __future__ import annotations

import re

import jiwer


def word_errors(reference: str, heard: str) -> tuple[int, int]:
    """Return (errors, reference words) of a text."""
    return _counts(jiwer.process_words(_plain(reference), _plain(heard)))


def character_errors(reference: str, heard: str) -> tuple[int, int]:
    """Return (errors, reference characters) of a text."""
    return _counts(jiwer.process_characters(_plain(reference), _plain(heard)))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))


def _counts(found: jiwer.WordOutput | jiwer.CharacterOutput) -> tuple[int, int]:
    errors = found.substitutions + found.deletions + found.insertions
    return errors, found.hits + found.substitutions + found.deletions
