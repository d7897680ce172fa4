"""A transcript's words as the page shows them beside the player: one button each.

In: words with times. Out: HTML; ``assets/words.js`` lights the one being heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.wording.results import UNSURE_BELOW
from core.text.transcript import Word

MOST_WORDS = 4000  # more buttons than that make a page slow
HINT = "Press a word to hear it. Dotted words are the ones the model was less sure of."


def words_html(words: Sequence[Word]) -> str:
    """Format the words as buttons, or nothing where none has a time.

    A word stays lit until the next one begins, but for at most half a second of silence.

    Returns:
        HTML.
    """
    timed = [w for w in words[:MOST_WORDS] if w.start is not None and w.end is not None]
    if not timed:
        return ""
    starts = [word.start or 0.0 for word in timed[1:]] + [float("inf")]
    buttons = " ".join(
        _button(word, until, first=number == 0)
        for number, (word, until) in enumerate(zip(timed, starts, strict=True))
    )
    rest = len(words) - MOST_WORDS
    more = f"<p class='note aside'>{rest} more words are in the text above.</p>" if rest > 0 else ""
    return (
        f"<h2 id='words-title'>Follow the sound</h2><p class='note aside'>{escape(HINT)}</p>"
        f"<div class='words' role='group' aria-labelledby='words-title'>{buttons}</div>{more}"
    )


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
