"""Text-only exchanges (prompt, answer) about voice-menu English, for the text decoder.

In: a ``random.Random``. Out: an ``Exchange``. What is asked for is what the digits domain asks for
(``training.corpus.text``), of one to three lines of the grammar, of texts that recordings may have,
or of words in any order: a decoder that met sentences only would recite them.
"""

from __future__ import annotations

import random

from training.corpus import menu_grammar, prompt_texts
from training.corpus.text import (
    CANNOT_HEAR,
    TRANSCRIBE,
    Exchange,
    ask,
    small_talk,
    with_hesitations,
    written,
)

SMALL_TALK = small_talk("voice menus", "words")
PLACES = 110  # audio positions that the longest clips of training have: so many hesitations at most
SALAD_SHARE = 0.25


def lines(rng: random.Random, most: int = 3) -> str:
    """Draw the transcript of one line of the domain, or of up to ``most`` in turn."""
    count = 1 if rng.random() < 0.6 else rng.randint(1, most)
    return " ".join(_text(rng) for _ in range(count))


def _text(rng: random.Random) -> str:
    kind, known = rng.random(), prompt_texts.installed_texts()
    if kind < prompt_texts.PROMPT_SHARE and known:
        return rng.choice(known)
    if kind < prompt_texts.PROMPT_SHARE + SALAD_SHARE:
        every = sorted(menu_grammar.vocabulary())
        return " ".join(rng.choice(every) for _ in range(rng.randint(1, 8)))
    return menu_grammar.line(rng).text


def menu_exchange(rng: random.Random) -> Exchange:
    """Draw a text-only question about words of the domain, with its right answer."""
    kind = rng.random()
    if kind < 0.04:
        return rng.choice(SMALL_TALK)
    if kind < 0.09:
        return Exchange(TRANSCRIBE, CANNOT_HEAR)
    text = lines(rng)
    if kind < 0.14:
        return ask(rng, "repeat", text, text)
    if kind < 0.86:
        return ask(
            rng, "tidy up", with_hesitations(rng, text.split(), most=PLACES, spread=0.8), text
        )
    if kind < 0.92:
        digits = menu_grammar.digits(rng).replace(",", "")
        return ask(rng, "write in digits", digits, written(digits.split()))
    short = text.split()[: rng.randint(1, 9)]
    if kind < 0.96:
        return ask(rng, "reverse", " ".join(short), " ".join(reversed(short)))
    return ask(rng, "how many words", " ".join(short), menu_grammar.cardinal(len(short)))
