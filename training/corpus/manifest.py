"""Manifests: what recordings there are and what is said in them, one JSON object a line.

In: a ``.jsonl`` file. Out: checked :class:`ManifestRow` objects, and the other way round. Columns:
audio (a path, relative to the manifest's folder), text, language, speaker, licence; where needed
also start and end (seconds within the recording) and split ("train", "dev" or another name for rows
that are kept apart). Every error is one line that names the file and the row (the first is row 1).

Only what stands in the manifest is looked at here; ``training.finetune.manifest_check`` opens
recordings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.saving import write_whole
from core.text.manifest import (
    ManifestError,
    RowError,
    manifest_lines,
    parse_object,
    seconds_of_column,
)

REQUIRED = ("audio", "text", "language", "speaker", "licence")
OPTIONAL = ("start", "end", "split")
TRAIN, DEV = "train", "dev"
MAX_SECONDS = 30.0  # the longest clip that is trained on unless a caller says otherwise


@dataclass(frozen=True)
class ManifestRow:
    """One recording. start and end in seconds, None for the whole; split None where unstated.

    source: the manifest's path; number: the row in it, from 1.
    """

    audio: Path
    text: str
    language: str
    speaker: str
    licence: str
    start: float | None = None
    end: float | None = None
    split: str | None = None
    source: Path = Path()
    number: int = 0

    def error(self, problem: str) -> RowError:
        """Return the error that says what is wrong with this row."""
        return RowError(self.source, self.number, problem)


def read_manifest(file: Path) -> list[ManifestRow]:
    """Read all rows of a manifest; empty lines are passed over.

    Returns:
        The rows.

    Raises:
        ManifestError: no such file, no rows, or the first row that is wrong.
    """
    rows = []
    for number, line in manifest_lines(file):
        rows.append(parse_row(line, file, number))
    if not rows:
        raise ManifestError(f"{file} has no rows; expected one JSON object a line")
    return rows


def problems_of(file: Path) -> tuple[list[ManifestRow], list[RowError]]:
    """Read a manifest and collect what is wrong with it.

    Returns:
        The rows that can be used, and an error for each of the others.

    Raises:
        ManifestError: the file itself cannot be read.
    """
    rows, problems = [], []
    for number, line in manifest_lines(file):
        try:
            rows.append(parse_row(line, file, number))
        except RowError as error:
            problems.append(error)
    return rows, problems


def parse_row(line: str, source: Path, number: int) -> ManifestRow:
    """Parse one line of a manifest.

    Returns:
        The row.

    Raises:
        RowError: not a JSON object, columns missing or unknown, or a value that cannot be.
    """
    raw = parse_object(line, source, number)
    _check_columns(raw, source, number)
    if not raw["text"].strip():
        raise RowError(source, number, "the text is empty; say what is heard, or leave the row out")
    start, end = (seconds_of_column(raw, key, source, number) for key in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        came = f"end is {end:g} s and start {start or 0.0:g} s"
        raise RowError(source, number, f"{came}; expected an end after the start")
    return ManifestRow(
        audio=source.parent / raw["audio"],
        text=" ".join(raw["text"].split()),
        language=raw["language"],
        speaker=raw["speaker"],
        licence=raw["licence"],
        start=start,
        end=end,
        split=raw.get("split"),
        source=source,
        number=number,
    )


def _check_columns(raw: dict[str, Any], source: Path, number: int) -> None:
    expected = f"expected {', '.join(REQUIRED)} (and {', '.join(OPTIONAL)} where needed)"
    missing = [key for key in REQUIRED if key not in raw]
    if missing:
        raise RowError(source, number, f"column {missing[0]!r} is missing; {expected}")
    unknown = sorted(set(raw) - {*REQUIRED, *OPTIONAL})
    if unknown:
        raise RowError(source, number, f"column {unknown[0]!r} is unknown; {expected}")
    for key in (*REQUIRED, "split"):
        if not isinstance(raw.get(key, ""), str | None) or (key in REQUIRED and raw[key] is None):
            raise RowError(source, number, f"{key} is {raw[key]!r}; expected text")


def with_splits(rows: Iterable[ManifestRow], names: Collection[str | None]) -> list[ManifestRow]:
    """Take the rows whose split is among ``names``."""
    return [row for row in rows if row.split in names]


def as_json(row: ManifestRow, folder: Path) -> str:
    """Write one line of a manifest; the audio's path is relative to its ``folder``."""
    audio = Path(os.path.relpath(row.audio, folder)).as_posix()
    values: dict[str, Any] = {"audio": audio}
    values |= {key: getattr(row, key) for key in REQUIRED[1:]}
    values |= {key: value for key in OPTIONAL if (value := getattr(row, key)) is not None}
    return json.dumps(values, ensure_ascii=False)


def write_manifest(file: Path, rows: Iterable[ManifestRow]) -> int:
    """Write rows, whole or not at all; returns how many."""
    lines = [as_json(row, file.parent) for row in rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(f"{line}\n" for line in lines).encode())
    return len(lines)
