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


@dataclass(frozen=True)
class Example:
    """One recording. text: what is said in it."""

    path: str
    text: str


def read_examples(folder: Path = FOLDER) -> list[Example]:
    """Read the examples whose file is there, longest text first."""
    listing = folder / "transcripts.json"
    if not listing.is_file():
        return []
    texts = json.loads(listing.read_text(encoding="utf-8"))
    there = [Example(str(folder / n), text) for n, text in texts.items() if (folder / n).is_file()]
    return sorted(there, key=lambda example: (-len(example.text.split()), example.text))
