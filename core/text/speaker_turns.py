"""``[Speaker 1]: hello [Speaker 2]: hi`` -> who said what.

In: text as a model of granite_speech_plus writes it for the task "speakers", or the words of such a
text. Out: turns, or the words without markers, each with its speaker, and segments of these. A
marker is ``[Speaker N]`` with N from 1, an optional colon and at most one space; anything else in
brackets is text. What stands before the first marker belongs to nobody; a text without any is one
speaker's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from core.text.transcript import Segment, Word
from core.text.words import join_words

MARKER = re.compile(r"\[Speaker ([1-9][0-9]*)\]:? ?")


@dataclass(frozen=True)
class SpeakerTurn:
    """One speaker's turn. start: its first character in the text it was found in."""

    speaker: int | None
    text: str
    start: int


def split_turns(text: str) -> list[SpeakerTurn]:
    """Split ``text`` at its markers; nothing is lost but these and spaces at the edges.

    Returns:
        The turns that have a text.
    """
    markers = list(MARKER.finditer(text))
    begins = [(None if markers else 1, 0), *((int(m[1]), m.end()) for m in markers)]
    ends = [*(m.start() for m in markers), len(text)]
    turns = []
    for (speaker, begin), end in zip(begins, ends, strict=True):
        said = text[begin:end].lstrip(" ")
        if said:
            turns.append(SpeakerTurn(speaker, said.rstrip(" "), end - len(said)))
    return turns


def unmarked(text: str) -> str:
    """Return what a text that still grows has for certain, without markers and line ends."""
    certain = re.sub(r"\[[^\]]*$", "", text)  # it may become a marker
    return " ".join(" ".join(turn.text for turn in split_turns(certain)).split())


def assign_speakers(words: Sequence[Word]) -> list[Word]:
    """Give every word of a marked text its speaker.

    Returns:
        The words without markers; one that was written together with a marker is what is left.
    """
    text, owners = join_words(words)
    return [
        replace(words[owners[turn.start + found.start()]], text=found[0], speaker=turn.speaker)
        for turn in split_turns(text)
        for found in re.finditer(r"\S+", turn.text)
    ]


def turn_segments(words: Sequence[Word], audio_s: float) -> Iterator[Segment]:
    """Yield one segment per turn, from its first known time to its last.

    Args:
        words: in order, with speakers.
        audio_s: the length of the recording: where a turn without any times ends.
    """
    before_s = 0.0
    for speaker, group in groupby(words, key=lambda word: word.speaker):
        turn = list(group)
        start = next((word.start for word in turn if word.start is not None), before_s)
        end = next((word.end for word in reversed(turn) if word.end is not None), audio_s)
        known = [word.confidence for word in turn if word.confidence is not None]
        mean = math.prod(known) ** (1 / len(known)) if known else None
        yield Segment(start, end, " ".join(word.text for word in turn), mean, speaker)
        before_s = end
