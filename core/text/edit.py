"""A transcript whose text a person corrected: times stay with the words that stayed.

In: a transcript and the text as it should be. Out: the same transcript with that text. Words that
did not change keep their times and confidence; new ones share the time of those they replace, and
have no confidence, for nobody computed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from core.text.transcript import Segment, Transcript, Word

BY_HAND = "the text was edited by hand"


@dataclass(frozen=True)
class _Owned:
    """A word and the number of the segment it belongs to."""

    word: Word
    segment: int


def apply_edit(transcript: Transcript, text: str) -> Transcript:
    """Give the transcript ``text``; where only white space differs it is returned itself."""
    wanted = text.split()
    if wanted == transcript.text.split():
        return transcript
    old = _owned(transcript)
    new = _carried_over(old, wanted)
    texts: dict[int, list[str]] = {}
    for item in new:
        texts.setdefault(item.segment, []).append(item.word.text)
    segments = transcript.segments or (Segment(0.0, transcript.audio_s, "", None),)
    changed = tuple(
        s if texts[n] == s.text.split() else replace(s, text=" ".join(texts[n]), confidence=None)
        for n, s in enumerate(segments)
        if n in texts
    )
    return replace(
        transcript,
        text=text.strip(),
        words=tuple(item.word for item in new),
        segments=changed,
        warnings=(*transcript.warnings, BY_HAND),
    )


def _owned(transcript: Transcript) -> list[_Owned]:
    """List the transcript's words, each with its segment; without words, those of its text."""
    counts = [len(segment.text.split()) for segment in transcript.segments]
    words = list(transcript.words)
    if not words:
        words = [Word(text, None, None, None) for text in transcript.text.split()]
    if sum(counts) == len(words):
        owners = [n for n, count in enumerate(counts) for _ in range(count)]
    else:
        owners = [_segment_at(transcript.segments, word.start) for word in words]
    return [_Owned(word, owner) for word, owner in zip(words, owners, strict=True)]


def _segment_at(segments: Sequence[Segment], start: float | None) -> int:
    began = [n for n, s in enumerate(segments) if start is not None and s.start <= start]
    return began[-1] if began else 0


def _carried_over(old: Sequence[_Owned], wanted: Sequence[str]) -> list[_Owned]:
    matcher = SequenceMatcher(None, [o.word.text for o in old], list(wanted), autojunk=False)
    new: list[_Owned] = []
    for kind, begin, end, first, last in matcher.get_opcodes():
        if kind == "equal":
            new += old[begin:end]
        elif kind != "delete":
            new += _replaced(old, begin, end, wanted[first:last])
    return new


def _replaced(old: Sequence[_Owned], begin: int, end: int, texts: Sequence[str]) -> list[_Owned]:
    """Put new words in the place of ``old[begin:end]``; if that is nothing, by a neighbour."""
    here = old[begin:end] or old[max(0, begin - 1) : begin] or old[:1]
    segment, speaker = (here[0].segment, here[0].word.speaker) if here else (0, None)
    if begin < end:
        start, stop = old[begin].word.start, old[end - 1].word.end
    else:
        start = old[begin - 1].word.end if begin else None
        stop = old[begin].word.start if begin < len(old) else start
        start = stop if start is None else start
    if start is None or stop is None:
        return [_Owned(Word(text, None, None, None, speaker), segment) for text in texts]
    step = (stop - start) / len(texts)
    return [
        _Owned(Word(text, start + n * step, start + (n + 1) * step, None, speaker), segment)
        for n, text in enumerate(texts)
    ]
