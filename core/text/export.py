"""A transcript -> text of a file: txt, srt, vtt, tsv, json.

In: a :class:`core.text.transcript.Transcript`; segments in any order, times in seconds.
Out: one string that ends in a newline. Times are whole milliseconds, never negative, in order, and
every cue lasts at least 1 ms, since players drop cues without a length. Segments without words are
left out; a transcript without segments but with text becomes one cue over the whole recording.
Subtitles longer than a viewer reads at once are cut between words, where the words have times.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from core.text.transcript import Segment, Transcript, Word

# A subtitle's text may hold neither the arrow that starts a cue's times nor VTT's markup.
VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


MAX_CUE_S, MAX_CUE_CHARACTERS = 7.0, 84  # two lines of 42


@dataclass(frozen=True)
class _Cue:
    start_ms: int
    end_ms: int
    text: str
    speaker: str  # "" for nobody


def to_txt(transcript: Transcript) -> str:
    """Write the words alone on one line; where there are speakers, each turn on its own."""
    if not transcript.has_speakers:
        return _one_line(transcript.text) + "\n"
    return "\n".join(map(_said, _cues(transcript))) + "\n"


def to_srt(transcript: Transcript) -> str:
    """Write SubRip: numbered cues, times as ``00:00:01,000``."""
    blocks = [
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        f"{_said(cue).replace('-->', '->')}\n"
        for number, cue in enumerate(_cues(_cut(transcript)), start=1)
    ]
    return "\n".join(blocks)


def to_vtt(transcript: Transcript) -> str:
    """Write WebVTT: times as ``00:00:01.000``, markup characters escaped, speakers as voices."""
    blocks = [
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n"
        f"{f'<v {cue.speaker}>' if cue.speaker else ''}{cue.text.translate(VTT_ESCAPES)}\n"
        for cue in _cues(_cut(transcript))
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def to_tsv(transcript: Transcript) -> str:
    """Write Whisper's table: a header, then start and end in milliseconds and the text."""
    rows = [f"{cue.start_ms}\t{cue.end_ms}\t{cue.text}" for cue in _cues(transcript)]
    return "\n".join(["start\tend\ttext", *rows]) + "\n"


def to_json(transcript: Transcript) -> str:
    """Write everything, cost included, as one JSON object."""
    return json.dumps(transcript.to_dict(), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


EXPORTERS: dict[str, Callable[[Transcript], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "json": to_json,
}


def _cues(transcript: Transcript) -> list[_Cue]:
    """Return the segments that have words, in order of time."""
    whole = Segment(0.0, transcript.audio_s, transcript.text, None)
    cues: list[_Cue] = []
    previous_ms = 0
    for part in sorted(transcript.segments or (whole,), key=lambda part: (part.start, part.end)):
        line = _one_line(part.text)
        if line:
            start_ms = max(_milliseconds(part.start), previous_ms)
            speaker = "" if part.speaker is None else f"Speaker {part.speaker}"
            cues.append(_Cue(start_ms, max(_milliseconds(part.end), start_ms + 1), line, speaker))
            previous_ms = start_ms
    return cues


def _cut(transcript: Transcript) -> Transcript:
    """Cut segments that are too long for a cue between their words, if all of them have times."""
    whole = Segment(0.0, transcript.audio_s, transcript.text, None)
    words, at, parts = transcript.words, 0, list[Segment]()
    for segment in transcript.segments or (whole,):
        said = segment.text.split()
        own = words[at : at + len(said)]
        if [word.text for word in own] != said:
            return transcript  # it is not known which words are whose
        at += len(said)
        parts += _parts(segment, own)
    return replace(transcript, segments=tuple(parts))


def _parts(segment: Segment, words: Sequence[Word]) -> Iterator[Segment]:
    """Yield the fewest parts of about equal length that fit, or the segment where it does."""
    timed = [(w.text, w.start, w.end) for w in words if w.start is not None and w.end is not None]
    length = len(segment.text)
    num = max(
        math.ceil((segment.end - segment.start) / MAX_CUE_S), math.ceil(length / MAX_CUE_CHARACTERS)
    )
    if num < 2 or len(timed) < max(2, len(words)):
        yield segment
        return
    most_characters, most_s = min(MAX_CUE_CHARACTERS, length / num + 12), MAX_CUE_S
    begin, size = 0, 0
    for place, (text, _, end) in enumerate(timed):
        too_long = size + len(text) > most_characters or end - timed[begin][1] > most_s
        if place > begin and too_long:
            yield _part(segment, timed[begin:place])
            begin, size = place, 0
        size += len(text) + 1
    yield _part(segment, timed[begin:])


def _part(segment: Segment, words: Sequence[tuple[str, float, float]]) -> Segment:
    text = " ".join(word for word, _, _ in words)
    return replace(segment, start=words[0][1], end=words[-1][2], text=text)


def _said(cue: _Cue) -> str:
    """Return the text behind its speaker, if there is one."""
    return f"{cue.speaker}: {cue.text}" if cue.speaker else cue.text


def _milliseconds(seconds: float) -> int:
    """Round half up, so that a boundary two segments share is rounded alike for both."""
    if not math.isfinite(seconds):
        raise ValueError(f"segment time {seconds}; expected finite seconds; check the segments")
    return max(0, math.floor(seconds * 1000 + 0.5))


def _clock(milliseconds: int, mark: str) -> str:
    """Write hours (two digits or more), minutes, seconds and, after ``mark``, milliseconds."""
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{thousandths:03}"


def _one_line(text: str) -> str:
    """Join lines and collapse runs of white space: a blank line would end a subtitle's cue."""
    return " ".join(text.replace("\0", "").split())
