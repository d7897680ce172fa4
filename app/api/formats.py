"""A transcript -> an answer in OpenAI's formats, and the events of its stream.

In: :class:`core.text.transcript.Transcript`; events of a transcription. Out: JSON objects, text of
a file, lines of ``text/event-stream``. Times in seconds. What is not known is 0 or [], for clients
read every field.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from typing import Any

from app.api.form import DIARIZED, TranscriptionForm, TranslationForm
from core import Transcript
from core.text.export import to_srt, to_txt, to_vtt
from core.text.speaker_turns import unmarked
from core.text.transcript import Segment, Word
from core.transcription.options import Event, Finished, PartialText

# response_format -> how it is written, and as what it is sent
TEXT_FORMATS = {
    "text": (to_txt, "text/plain"),
    "srt": (to_srt, "text/plain"),
    "vtt": (to_vtt, "text/vtt"),
}
DONE = "data: [DONE]\n\n"
KEEP_ALIVE = ": keep-alive\n\n"


def json_answer(transcript: Transcript, form: TranscriptionForm) -> dict[str, Any]:
    """Return the body for response_format ``json``; a silent recording says so in ``warnings``."""
    body: dict[str, Any] = {"text": transcript.text, "usage": usage(transcript)}
    if transcript.language is not None:
        body["languages"] = [{"code": transcript.language}]
    if form.include:
        body["logprobs"] = logprobs(transcript.words)
    return body | _warnings(transcript)


def verbose_answer(transcript: Transcript, form: TranscriptionForm) -> dict[str, Any]:
    """Return the body for response_format ``verbose_json``; words only where they were asked for.

    A word without a known time (a translation has none) is left out: a time would be made up.
    """
    body: dict[str, Any] = {
        "task": "translate" if isinstance(form, TranslationForm) else "transcribe",
        "language": transcript.language or "",
        "duration": transcript.audio_s,
        "text": transcript.text,
        "segments": verbose_segments(transcript, form.temperature or 0.0),
        "usage": usage(transcript),
    }
    if "word" in form.timestamp_granularities:
        body["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            for word in transcript.words
            if word.start is not None and word.end is not None
        ]
    return body | _warnings(transcript)


def diarized_answer(transcript: Transcript, form: TranscriptionForm) -> dict[str, Any]:
    """Return the body for response_format ``diarized_json``: one segment a turn."""
    return {
        "task": "transcribe",
        "duration": transcript.audio_s,
        "text": transcript.text,
        "segments": [turn(*numbered) for numbered in enumerate(transcript.segments)],
        "usage": usage(transcript),
    } | _warnings(transcript)


def turn(number: int, segment: Segment) -> dict[str, Any]:
    """Return a segment as streams and ``diarized_json`` have it; speakers are A, B, and so on."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number}",
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "speaker": _letters(segment.speaker or 0),
    }


def verbose_segments(transcript: Transcript, temperature: float) -> list[dict[str, Any]]:
    """Return the segments with all ten fields; token ids are known where there is one segment."""
    alone = len(transcript.segments) == 1
    return [
        {
            "id": number,
            "seek": round(100 * segment.start),
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "tokens": list(transcript.token_ids) if alone else [],
            "temperature": temperature,
            "avg_logprob": _log(segment.confidence),
            "compression_ratio": _compression(segment),
            "no_speech_prob": 0.0,
        }
        for number, segment in enumerate(transcript.segments)
    ]


def logprobs(words: tuple[Word, ...]) -> list[dict[str, Any]]:
    """Return the mean log-probability of the tokens of each word."""
    return [
        {"token": word.text, "bytes": list(word.text.encode()), "logprob": _log(word.confidence)}
        for word in words
    ]


def usage(transcript: Transcript) -> dict[str, Any]:
    """Return what the request is counted as."""
    return {"type": "duration", "seconds": transcript.audio_s}


def sse(event: dict[str, Any]) -> str:
    """Write one event of a stream."""
    return f"data: {json.dumps(event, ensure_ascii=False, allow_nan=False)}\n\n"


class StreamWriter:
    """Turns a transcription's events into those of a stream.

    Deltas only add to what was sent. A text that changed behind it (a beam that overtook another, a
    repetition that was cut) is not sent again: the text of ``transcript.text.done`` is the one.
    Marks of speakers are left out of deltas; the segments say who spoke.
    """

    def __init__(self, form: TranscriptionForm) -> None:
        self._form, self._sent = form, ""

    def write(self, event: Event) -> Iterator[str]:
        """Write what there is to say after ``event``."""
        if isinstance(event, PartialText):
            marked = self._form.response_format == DIARIZED
            yield from self._delta(unmarked(event.text) if marked else event.text.strip())
        elif isinstance(event, Finished):
            done = event.transcript
            yield from self._delta(done.text)
            for number, segment in enumerate(done.segments):
                yield sse(turn(number, segment))
            whole = json_answer(done, self._form)
            del whole["usage"]  # a stream counts tokens of another kind, or nothing
            yield sse({"type": "transcript.text.done", **whole})
            yield DONE

    def _delta(self, text: str) -> Iterator[str]:
        if text.startswith(self._sent) and len(text) > len(self._sent):
            delta, self._sent = text[len(self._sent) :], text
            yield sse({"type": "transcript.text.delta", "delta": delta})


JSON_FORMATS = {"json": json_answer, "verbose_json": verbose_answer, DIARIZED: diarized_answer}


def _letters(number: int) -> str:
    """Return 1 as A, 26 as Z, 27 as AA, 0 as nothing."""
    higher, last = divmod(number - 1, 26)
    return _letters(higher) + chr(ord("A") + last) if number else ""


def _warnings(transcript: Transcript) -> dict[str, Any]:
    return {"warnings": list(transcript.warnings)} if transcript.warnings else {}


def _log(probability: float | None) -> float:
    return math.log(probability) if probability else 0.0


def _compression(segment: Segment) -> float:
    """Return bytes over compressed bytes, as Whisper counts them: high where text repeats."""
    text = segment.text.encode()
    return len(text) / len(zlib.compress(text)) if text else 0.0
