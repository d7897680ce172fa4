"""Names of recordings -> names of the files that their transcripts become, no two alike.

In: names as they came, in order: two recorders both count from 001. Out: a name for each, that fits
a file system and meets no other where letters differ in case or accents in encoding only. Callers
say which differ from what came.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

MAX_NAME_BYTES = 255  # of a file's name, on every common file system


def unique_names(wanted: Sequence[str], endings: Sequence[str]) -> tuple[str, ...]:
    """Give every recording a name of its own; the first of equal names keeps it.

    Args:
        wanted: names that the outputs would have, without ending; may repeat.
        endings: what is appended to each of them, such as ".srt".

    Returns:
        The names in the same order, without ending.
    """
    room = MAX_NAME_BYTES - max(len(ending.encode()) for ending in endings)
    first_places: dict[str, int] = {}
    for place, name in enumerate(wanted):
        first_places.setdefault(_folded(name), place)
    taken: set[str] = set()
    names: list[str] = []
    for place, name in enumerate(wanted):
        number, given = 1, _fitting(name, "", room)
        while _folded(given) in taken or first_places.get(_folded(given), place) != place:
            number += 1
            given = _fitting(name, f"-{number}", room)
        taken.add(_folded(given))
        names.append(given)
    return tuple(names)


def printable(text: str) -> str:
    """Escape what cannot be shown on one line: line ends, controls, bytes that are no letters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _fitting(name: str, number: str, room: int) -> str:
    """Shorten ``name`` until it and its number fit ``room`` bytes."""
    while len((name + number).encode("utf-8", "surrogatepass")) > room:
        name = name[:-1]
    return name + number
