"""A transcript's words as the page shows them beside the player: one button each, by segment.

In: a transcript. Out: paragraphs of its text; HTML, in which ``assets/words.js`` lights the word
being heard and a time plays from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from app.wording.phrases import clock
from app.wording.results import UNSURE_BELOW
from core.text.transcript import Segment, Transcript, Word

NUM_COLOURS = 6  # of speakers, in assets/style.css; a seventh has the first one's, and its own name

MOST_WORDS = 4000  # more buttons than that make a page slow
HINT = "Press a word or a time to hear it. Dotted words are the ones the model was less sure of."
LONG_S = 60.0  # a text of more audio than this has paragraphs
PAUSE_S, PARAGRAPH_S = 1.0, 45.0  # a paragraph ends at such a pause, or after so much audio


def paragraphs(transcript: Transcript) -> str:
    """Return the text, in paragraphs where it is long."""
    parts = transcript.segments
    if transcript.audio_s <= LONG_S or len(parts) < 2:
        return transcript.text
    text, began = parts[0].text, parts[0].start
    for before, segment in zip(parts, parts[1:], strict=False):
        new = (
            segment.start - before.end >= PAUSE_S
            or segment.end - began > PARAGRAPH_S
            or segment.speaker != before.speaker
        )
        began = segment.start if new else began
        text += ("\n\n" if new else " ") + segment.text
    same = text.split() == transcript.text.split()
    return text if same else transcript.text


def words_html(transcript: Transcript) -> str:
    """Format the words as buttons, a line and a time for each segment; nothing without times.

    A word stays lit until the next one begins, but for at most half a second of silence.

    Returns:
        HTML.
    """
    words = transcript.words
    timed = [w for w in words[:MOST_WORDS] if w.start is not None and w.end is not None]
    if not timed:
        return ""
    starts = [word.start or 0.0 for word in timed[1:]] + [float("inf")]
    buttons = [
        _button(word, until, first=number == 0)
        for number, (word, until) in enumerate(zip(timed, starts, strict=True))
    ]
    lines = "".join(
        _line(buttons[a:b], timed[a], named=a == 0 or timed[a].speaker != timed[a - 1].speaker)
        for a, b in _lines(timed, transcript.segments)
    )
    rest = len(words) - MOST_WORDS
    more = f"<p class='note aside'>{rest} more words are in the text above.</p>" if rest > 0 else ""
    return (
        f"<h2 id='words-title'>Follow the sound</h2><p class='note aside'>{escape(HINT)}</p>"
        f"<div class='words' role='group' aria-labelledby='words-title'>{lines}</div>{more}"
    )


def _lines(timed: Sequence[Word], segments: Sequence[Segment]) -> Iterator[tuple[int, int]]:
    """Yield first and last word of each segment and speaker.

    A word belongs to the last segment begun before it.
    """
    first, number = 0, 0
    for at, word in enumerate(timed):
        begun = number
        while number + 1 < len(segments) and segments[number + 1].start <= (word.start or 0.0):
            number += 1
        other = word.speaker != timed[at - 1].speaker
        if at > first and (number > begun or other):
            yield first, at
            first = at
    yield first, len(timed)


def _line(buttons: Sequence[str], word: Word, *, named: bool) -> str:
    start, speaker = word.start or 0.0, word.speaker
    said = "" if speaker is None else f"Speaker {speaker}, "
    colour = "" if speaker is None else f" speaker-{(speaker - 1) % NUM_COLOURS + 1}"
    name = f"<b class='speaker'>Speaker {speaker}</b> " if named and speaker is not None else ""
    time = (
        f"<button type='button' class='time' data-play='{start:.3f}' tabindex='-1' "
        f"aria-label='{said}play from {clock(start)}'>{clock(start)}</button>"
    )
    return f"<div class='segment{colour}'>{time}<span>{name}{' '.join(buttons)}</span></div>"


def _button(word: Word, next_start: float, *, first: bool) -> str:
    start, end = word.start or 0.0, word.end or 0.0
    until = max(end, min(next_start, end + 0.5))
    sure = word.confidence
    unsure = sure is not None and sure < UNSURE_BELOW
    told = f" class='unsure' title='{100 * sure:.0f} % sure'" if unsure and sure is not None else ""
    return (
        f"<button type='button' data-start='{start:.3f}' data-until='{until:.3f}' "
        f"tabindex='{0 if first else -1}'{told}>{escape(word.text)}</button>"
    )
