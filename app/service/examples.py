"""Recordings whose text is known: those that come with the app, and files dropped with texts.

In: a folder with sound files and ``transcripts.json`` ({file name: text}); or paths of what was
dropped, a ``.txt`` of the same name beside a sound file. Out: :class:`Example`,
:class:`Labelled`. A folder that is missing means no examples, not an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.checkpoint.catalog import ASSETS
from core.errors import UserError
from profiling.evaluate.data import named, read_text

FOLDER = ASSETS / "examples"
# Shown before "more": digits and phrases, short and long, and one that is not voice-menu English.
FIRST = (
    *("string_three_one_eight", "phrase_your_message_has_been_saved", "string_three_six"),
    *("string_six_three_oh_seven_zero_six", "phrase_press_star_to_cancel"),
    "outside_weasels_have_eaten_our_phone_system",
)

TEXT = ".txt"


@dataclass(frozen=True)
class Example:
    """One recording. text: what is said in it."""

    path: str
    text: str


@dataclass(frozen=True)
class Labelled:
    """One recording. said: what is really said in it; None where that is not known."""

    path: str
    said: str | None = None


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


def with_texts(paths: Sequence[str]) -> tuple[list[Labelled], list[str]]:
    """Give each recording the text of the same name.

    Args:
        paths: recordings and texts, in any order.

    Returns:
        The recordings, and a warning for each kind of file that has no partner or cannot be read.
    """
    texts, warnings = dict[str, str](), list[str]()
    files = [path for path in paths if not path.lower().endswith(TEXT)]
    stems = {Path(path).stem for path in files}
    alone = [
        Path(path).name for path in paths if path not in files and Path(path).stem not in stems
    ]
    for path in map(Path, paths):
        if path.suffix.lower() == TEXT and path.stem in stems:
            try:
                texts[path.stem] = read_text(path).strip()
            except UserError as error:
                warnings.append(str(error).replace(str(path), path.name))
    silent = [Path(path).name for path in files if Path(path).stem not in texts]
    warnings += named(alone, "text", "without a recording, left out")
    warnings += named(silent, "recording", "without a text") if len(files) < len(paths) else []
    return [Labelled(path, texts.get(Path(path).stem)) for path in files], warnings
