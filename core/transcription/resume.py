"""A file that remembers the finished spans of a long recording, so that a stopped run can go on.

In: a folder, and spans with their transcripts as they finish. Out: the same transcripts on the next
run, if the recording, the model and the options are the same. One JSON line a span, written at
once; a last line that a crash cut short is ignored.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from core.audio.container import Source
from core.errors import UserError
from core.plain_json import parse_json
from core.text.transcript import DraftReport, PhaseTime, Segment, Transcript, Word
from core.transcription.options import TranscribeOptions

logger = logging.getLogger(__name__)

Key = tuple[float, float]


# Options that decide how fast the text comes, never which text.
SPEED_ONLY = ("engine", "batch_size")


def open_journal(
    folder: Path, source: Source | Tensor, model: dict[str, Any], options: TranscribeOptions
) -> Journal | None:
    """Open the journal of this recording, model and options in ``folder``.

    Args:
        folder: made if it is not there.
        source: the recording; only a path has a journal.
        model: what decides the text, besides the options.
        options: of the request.

    Returns:
        The journal, or None for a source that is no file.

    Raises:
        UserError: the folder cannot be written to.
    """
    if not isinstance(source, str | Path):
        return None
    with Path(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    wanted = {key: value for key, value in asdict(options).items() if key not in SPEED_ONLY}
    purpose = {"sha256": digest, "model": model, "options": wanted}
    # Runs with other options keep journals of their own: none may end another's.
    name = hashlib.sha256(json.dumps(purpose, sort_keys=True, default=str).encode()).hexdigest()
    try:
        return Journal(folder / f"{Path(source).stem}-{name[:16]}.jsonl", purpose)
    except OSError as error:
        raise UserError(
            f"{folder}: finished parts cannot be kept there ({error.strerror}); expected a folder "
            "that can be written to"
        ) from error


class Journal:
    """The finished spans of one recording. purpose: what a journal must have been made for."""

    def __init__(self, file: Path, purpose: dict[str, Any]) -> None:
        self._file = file
        self._purpose = json.loads(json.dumps(purpose, default=list))
        self._is_full = False
        self._known = self._read()

    def get(self, key: Key) -> Transcript | None:
        """Return the transcript of the span from key[0] to key[1] seconds, if it is finished."""
        return self._known.get(key)

    def add(self, key: Key, transcript: Transcript) -> None:
        """Remember a finished span; where the disk takes no more, the run goes on without."""
        line = {"span": list(key), "transcript": transcript.to_dict()}
        try:
            if not self._is_full:
                with self._file.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            self._is_full = True
            logger.warning(
                "%s: finished parts are kept no longer (%s)", self._file.name, error.strerror
            )
        self._known[key] = transcript

    def remove(self) -> None:
        """Delete the file: the recording is done."""
        self._file.unlink(missing_ok=True)

    def _read(self) -> dict[Key, Transcript]:
        lines = []
        data = self._file.read_bytes() if self._file.is_file() else b""
        for text in data.removesuffix(b"\n").split(b"\n"):  # a text may hold other line ends
            try:
                lines.append(parse_json(text))
            except ValueError:  # no JSON, or no UTF-8: cut inside a letter
                if text:
                    logger.warning("%s: a line cut short was left out", self._file.name)
        if data and not data.endswith(b"\n"):
            with self._file.open("ab") as out:
                out.write(b"\n")
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
    """Rebuild a transcript from the object ``Transcript.to_dict`` made of it."""
    known = {field.name: raw[field.name] for field in fields(Transcript) if field.name in raw}
    known["segments"] = tuple(Segment(**item) for item in raw["segments"])
    known["words"] = tuple(Word(**item) for item in raw["words"])
    known["phases"] = tuple(PhaseTime(**item) for item in raw["phases"])
    known["draft"] = None if raw["draft"] is None else DraftReport(**raw["draft"])
    known["token_ids"] = tuple(raw["token_ids"])
    known["warnings"] = tuple(raw["warnings"])
    return Transcript(**known)
