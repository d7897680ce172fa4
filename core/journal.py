"""A file that remembers the finished spans of a long recording, so that a stopped run can go on.

In: spans and their transcripts as they finish. Out: the same transcripts on the next run, if the
recording, the model and the options are the same. One JSON line a span, written at once; a last
line that a crash cut short is ignored.
"""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

from core.transcript import DraftReport, PhaseTime, Segment, Transcript, Word

logger = logging.getLogger(__name__)

Key = tuple[float, float]


class Journal:
    """The finished spans of one recording. purpose: what a journal must have been made for."""

    def __init__(self, file: Path, purpose: dict[str, Any]) -> None:
        self._file = file
        self._purpose = json.loads(json.dumps(purpose))
        self._known = self._read()

    def get(self, key: Key) -> Transcript | None:
        """The transcript of the span from key[0] to key[1] seconds, if it is finished."""
        return self._known.get(key)

    def add(self, key: Key, transcript: Transcript) -> None:
        """Remember a finished span."""
        line = {"span": list(key), "transcript": transcript.to_dict()}
        with self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._known[key] = transcript

    def remove(self) -> None:
        """Delete the file: the recording is done."""
        self._file.unlink(missing_ok=True)

    def _read(self) -> dict[Key, Transcript]:
        lines = []
        if self._file.is_file():
            for text in self._file.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(json.loads(text))
                except json.JSONDecodeError:
                    logger.warning("%s: a line cut short was left out", self._file.name)
        if lines and lines[0].get("purpose") == self._purpose:
            return {
                (line["span"][0], line["span"][1]): read_transcript(line["transcript"])
                for line in lines[1:]
            }
        if lines:
            logger.warning("%s belongs to another run; starting anew", self._file.name)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({"purpose": self._purpose}) + "\n", encoding="utf-8")
        return {}


def read_transcript(raw: dict[str, Any]) -> Transcript:
    """A transcript from the object ``Transcript.to_dict`` made of it."""
    known = {field.name: raw[field.name] for field in fields(Transcript)}
    known["segments"] = tuple(Segment(**item) for item in raw["segments"])
    known["words"] = tuple(Word(**item) for item in raw["words"])
    known["phases"] = tuple(PhaseTime(**item) for item in raw["phases"])
    known["draft"] = None if raw["draft"] is None else DraftReport(**raw["draft"])
    known["token_ids"] = tuple(raw["token_ids"])
    known["warnings"] = tuple(raw["warnings"])
    return Transcript(**known)
