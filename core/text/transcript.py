"""The result of transcribing one recording: text, times, and what it cost.

In: nothing; :mod:`core.transcription.transcribe` fills these frozen values and
:mod:`core.text.export` writes them. Out: :meth:`Transcript.to_dict`, the JSON object of ``python -m
core transcribe --format json``.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Word:
    """One word; times in seconds from the recording's start, None where none are known.

    speaker: who said it, numbered from 1; None where nobody is known.
    """

    text: str
    start: float | None
    end: float | None
    confidence: float | None
    speaker: int | None = None


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between two pauses, or one speaker's turn; times as of a word."""

    start: float
    end: float
    text: str
    confidence: float | None
    speaker: int | None = None


@dataclass(frozen=True)
class PhaseTime:
    """The duration of one phase; the names are those of :mod:`core.phases`."""

    name: str
    ms: float


@dataclass(frozen=True)
class DraftReport:
    """Drafts of the encoder: tokens drafted, tokens kept, passes through the decoder.

    text: the first hypothesis, where the decoder edited a whole text instead of continuing it.
    """

    drafted: int
    accepted: int
    passes: int
    text: str | None = None


@dataclass(frozen=True)
class Transcript:
    """The result for one recording.

    rtf: end-to-end time over the length of what was heard: all of the recording, or of one that was
    stopped the parts that are finished; 0 where nothing is. stopped: the caller ended it early.
    """

    file: str
    text: str
    segments: tuple[Segment, ...]
    words: tuple[Word, ...]
    language: str | None
    model: str
    engine: str
    lora: bool | None  # None: the model has no adapter
    decoding: str
    token_ids: tuple[int, ...]
    audio_s: float
    phases: tuple[PhaseTime, ...]
    end_to_end_ms: float
    rtf: float
    time_to_first_token_ms: float | None
    new_tokens: int
    new_tokens_per_s: float | None
    peak_memory_bytes: int
    draft: DraftReport | None
    warnings: tuple[str, ...]
    stopped: bool = False

    @property
    def has_speakers(self) -> bool:
        """Return whether it is known who said any of it."""
        speakers = (*(s.speaker for s in self.segments), *(w.speaker for w in self.words))
        return any(speaker is not None for speaker in speakers)

    def warned(self, warning: str) -> "Transcript":
        """Return it with one more warning."""
        return replace(self, warnings=(*self.warnings, warning))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object: its keys are the fields, in this order.

        Numbers that JSON does not know (NaN, infinity) become None. Segments and words have a
        speaker where the transcript has speakers, a draft its text where it was edited.
        """
        plain: dict[str, Any] = _plain(self)
        if self.draft is not None and self.draft.text is None:
            del plain["draft"]["text"]
        # Words are published with their keys in the order that segments have.
        keys = ("start", "end", "text", "confidence", *(("speaker",) if self.has_speakers else ()))
        for name in ("segments", "words"):
            plain[name] = [{key: part[key] for key in keys} for part in plain[name]]
        return plain


def _plain(value: Any) -> Any:
    """Turn dataclasses to dicts, tuples to lists, numbers unknown to JSON to None."""
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
