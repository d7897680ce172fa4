"""The recordings that come with the app, and what is said in them.

In: a folder with sound files and ``transcripts.json`` ({file name: text}). Out: :class:`Example`.
A folder that is missing means no examples, not an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from core.checkpoint.catalog import ASSETS

FOLDER = ASSETS / "examples"
# Shown before "more": digits and phrases, short and long, and one that is not voice-menu English.
FIRST = (
    *("string_three_one_eight", "phrase_your_message_has_been_saved", "string_three_six"),
    *("string_six_three_oh_seven_zero_six", "phrase_press_star_to_cancel"),
    "outside_weasels_have_eaten_our_phone_system",
)


@dataclass(frozen=True)
class Example:
    """One recording. text: what is said in it."""

    path: str
    text: str


def read_examples(folder: Path = FOLDER) -> list[Example]:
    """Read the examples that are there: those of :data:`FIRST`, then the longest text first."""
    listing = folder / "transcripts.json"
    if not listing.is_file():
        return []
    texts = json.loads(listing.read_text(encoding="utf-8"))
    there = [Example(str(folder / n), text) for n, text in texts.items() if (folder / n).is_file()]

    def place(example: Example) -> tuple[int, int, str]:
        name = Path(example.path).stem
        return (
            FIRST.index(name) if name in FIRST else len(FIRST),
            -len(example.text.split()),
            example.text,
        )

    return sorted(there, key=place)
