"""Recordings that came with their texts: a ``.txt`` of the same name beside a sound file.

In: paths of what was dropped. Out: :class:`Labelled` recordings in order, and what was left out. No
Gradio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from profiling.evaluate.data import named, read_text

TEXT = ".txt"


@dataclass(frozen=True)
class Labelled:
    """One recording. said: what is really said in it; None where that is not known."""

    path: str
    said: str | None = None


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
