"""Measurements, kept as they come: one JSON object a variant and recording, in one file.

In: rows. Out: ``results.jsonl`` in a folder. Rows are appended and flushed to the disk pass by
pass; a row that was cut off by a kill is dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.plain_json import parse_json
from core.saving import SaveError

RESULTS = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One recording under one variant.

    Attributes:
        variant: its name.
        recording: its name.
        key: of the recording's file as it was.
        text: the reference.
        pred_text: what was written; None where that failed.
        error: why it failed.
        audio_s: length of the recording.
        time_s: its share of the pass, by its length.
        latency_ms: the whole pass, which every recording of a batch waits for.
        first_text_ms: until its first token.
        peak_bytes: the most memory during the pass; None where that cannot be told apart.
        joules: its share of the energy of the pass; None where nothing counts it.
        energy_method: what counted it.
        machine: device, number format, torch, threads.
    """

    variant: str
    recording: str
    key: str
    text: str
    pred_text: str | None = None
    error: str | None = None
    audio_s: float = 0.0
    time_s: float = 0.0
    latency_ms: float = 0.0
    first_text_ms: float | None = None
    peak_bytes: int | None = None
    joules: float | None = None
    energy_method: str | None = None
    machine: str = ""


class ResultFile:
    """The rows of a folder, by variant and recording; the last of several rows counts.

    Args:
        folder: made where it is not there.

    Raises:
        UserError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / RESULTS
        self.rows: dict[tuple[str, str], Result] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            whole = self.file.read_bytes() if self.file.exists() else b""
            if whole and not whole.endswith(b"\n"):
                whole = whole[: whole.rfind(b"\n") + 1]
                os.truncate(self.file, len(whole))
        except OSError as error:
            raise UserError(
                f"{folder} cannot be used ({error.strerror}); expected a folder for results"
            ) from error
        known = {field.name for field in fields(Result)}
        for number, line in enumerate(whole.split(b"\n"), start=1):
            if line.strip():
                self._take(self._parsed(line, number, known))

    def _parsed(self, line: bytes, number: int, known: set[str]) -> Result:
        try:
            raw: dict[str, Any] = parse_json(line)
            return Result(**{key: value for key, value in raw.items() if key in known})
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.file}, row {number} is no result ({error}); expected the rows of an "
                "evaluation: name another folder"
            ) from error

    def _take(self, row: Result) -> None:
        self.rows[row.variant, row.key] = row

    def has(self, variant: str, key: str) -> bool:
        """Return whether there is a text already; what failed is tried again."""
        row = self.rows.get((variant, key))
        return row is not None and row.error is None

    def add(self, rows: Iterable[Result]) -> None:
        """Append the rows of one pass.

        Raises:
            SaveError: they cannot be written.
        """
        new = list(rows)
        lines = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in new)
        try:
            with self.file.open("ab") as out:
                out.write(lines.encode("utf-8", "backslashreplace"))
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise SaveError(
                f"{self.file} could not be written ({error.strerror}); make room, then start again"
            ) from error
        for row in new:
            self._take(row)
