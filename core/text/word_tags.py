"""``hello [T:45] world [T:82]`` -> words with times.

In: text as a model of granite_speech_plus writes it for the task "timestamps", or the words of such
a text. Out: the words without tags, from the end of the tag before to their own. A tag says the end
of its word in centiseconds modulo 1000; ``_`` is silence, which moves the clock and is no word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from core.text.transcript import Word
from core.text.words import join_words

_TAG = r"\[\s*T\s*:\s*([0-9]+)\s*\]"
_CUT_SHORT = re.compile(
    r"\[\s*(T\s*)?(:\s*)?[0-9]*\s*$"
)  # a tag that the end of the text broke off
_TOKEN = re.compile(rf"{_TAG}|(?:[^\s\[]|\[(?!\s*T\s*:\s*[0-9]+\s*\]))+")
_SILENCE = "_"
_TURN = 1000  # centiseconds after which tags begin again
_STEP_BACK = 500  # a tag that falls by more has begun again; by less, it trembles
_STEP_BACK_OVER_TURN = 50  # the same across the end of a turn, where it looks like a rise


@dataclass(frozen=True)
class TaggedWord:
    """A word, its times in seconds, and its first character in the text it was found in."""

    text: str
    start_s: float
    end_s: float
    start: int


def read_word_tags(text: str, audio_s: float) -> Iterator[TaggedWord]:
    """Yield the words of a tagged text; those that share a tag share its time evenly.

    Args:
        text: words and tags.
        audio_s: the length of the recording, which no time exceeds; it ends a word without a tag.
    """
    length, clock = round(100 * audio_s), 0
    waiting: list[re.Match[str]] = []
    for token in _TOKEN.finditer(_CUT_SHORT.sub("", text)):
        if token[1] is None:
            waiting.append(token)
            continue
        end = unwrap(int(token[1]), clock, length)
        yield from _shared(waiting, clock, end)
        waiting, clock = [], end
    yield from _shared(waiting, clock, max(clock, length))


def unwrap(tag: int, last: int, length: int) -> int:
    """Return the time a tag means, in centiseconds.

    Args:
        tag: its number.
        last: the time of the tag before.
        length: of the recording; no tag means a later time.
    """
    if tag >= _TURN and last <= tag <= length:
        return tag
    time = last - last % _TURN + tag % _TURN
    if last - time > _STEP_BACK:
        time += _TURN
    if time >= _TURN and 0 <= last - (time - _TURN) <= _STEP_BACK_OVER_TURN:
        time = last
    return min(max(time, last), max(length, last))


def time_words(words: Sequence[Word], audio_s: float) -> list[Word]:
    """Give every word of a tagged text its times.

    Args:
        words: as they were written, tags among them.
        audio_s: the length of the recording.

    Returns:
        The words without tags.
    """
    text, owners = join_words(words)
    return [
        replace(words[owners[found.start]], text=found.text, start=found.start_s, end=found.end_s)
        for found in read_word_tags(text, audio_s)
    ]


def _shared(found: Sequence[re.Match[str]], start: int, end: int) -> Iterator[TaggedWord]:
    """Divide a stretch of time among the words in it; silence takes none and is left out."""
    words = [token for token in found if token[0] != _SILENCE]
    step = (end - start) / max(1, len(words)) / 100
    for number, token in enumerate(words):
        begin = start / 100 + number * step
        yield TaggedWord(token[0], begin, begin + step, token.start())
