"""Manifests: one JSON object a line, read so that every error names the file and the row.

In: a ``.jsonl`` file, as any program writes it: with or without a byte order mark, lines ended by
LF or CRLF; other separators inside a text end no line. Out: numbered rows (the first is row 1).
Which columns there are is the reader's own affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.plain_json import parse_json


class ManifestError(UserError):
    """A manifest or one of its rows cannot be used; one line that names file and row."""


class RowError(ManifestError):
    """One row cannot be used. number: of the row, from 1."""

    def __init__(self, source: Path, number: int, problem: str) -> None:
        super().__init__(f"{source}, row {number}: {' '.join(problem.split())}")
        self.number = number


def manifest_text(file: Path) -> str:
    """Read a manifest as text, without a byte order mark.

    Returns:
        Its text, line ends as they are.

    Raises:
        ManifestError: the file cannot be read.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file} is not text in UTF-8; expected a .jsonl manifest") from error
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ManifestError(f"{file} cannot be read ({why}); give a .jsonl manifest") from error


def manifest_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of every line that is not empty.

    Yields:
        Numbers from 1, and lines.
    """
    for number, line in enumerate(manifest_text(file).split("\n"), start=1):
        if line.strip():
            yield number, line


def parse_object(line: str, source: Path, number: int) -> dict[str, Any]:
    """Parse one line of a manifest.

    Returns:
        The row's columns.

    Raises:
        RowError: not a JSON object.
    """
    try:
        raw = parse_json(line)
    except ValueError as error:
        raise RowError(source, number, f"not JSON ({error}); expected one object") from error
    if not isinstance(raw, dict):
        raise RowError(source, number, f"a {type(raw).__name__}; expected a JSON object")
    return raw


def seconds_of_column(raw: Mapping[str, Any], key: str, source: Path, number: int) -> float | None:
    """Return a column that holds seconds.

    Args:
        raw: the row's columns.
        key: the column's name.
        source: the manifest.
        number: of the row.

    Returns:
        Seconds; None where the row has no such column.

    Raises:
        RowError: no number, or less than nothing.
    """
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise RowError(source, number, f"{key} is {value!r}; expected seconds, 0 or more")
    return float(value)
