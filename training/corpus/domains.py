"""The domains a checkpoint can be trained for, by name: "digits" and "menu".

In: a name. Out: what draws a line for a voice, what draws an exchange for the text decoder, and how
large the tokenizer is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.corpus import menu_grammar, prompt_texts, text
from training.corpus.menu_grammar import Line
from training.corpus.menu_text import menu_exchange


@dataclass(frozen=True)
class Domain:
    """line: what a voice says. exchange: what the decoder learns. vocab_size: ids at most.

    word_line: lines in which rare words are frequent, where a domain has rare words.
    """

    line: Callable[[random.Random], Line]
    exchange: Callable[[random.Random], text.Exchange]
    vocab_size: int
    word_line: Callable[[random.Random], Line] | None = None


def digit_line(rng: random.Random) -> Line:
    """Draw a line of the digits domain."""
    said = text.spoken(rng, longest=14)
    return Line(said, text.transcript(said))


def menu_line(rng: random.Random) -> Line:
    """Draw a line of voice-menu English; a tenth are texts of real prompts."""
    known = prompt_texts.installed_texts() if rng.random() < prompt_texts.PROMPT_SHARE else ()
    return menu_grammar.plain(rng.choice(known)) if known else menu_grammar.line(rng)


DOMAINS = {
    "digits": Domain(digit_line, text.sample_exchange, vocab_size=512),
    "menu": Domain(menu_line, menu_exchange, vocab_size=1536, word_line=menu_grammar.word_line),
}
