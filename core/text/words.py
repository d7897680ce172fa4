"""Token ids and their log-probabilities -> words with a confidence.

In: what was generated. Out: words in order. A word's confidence is the geometric mean of its
tokens' probabilities; its times are None until an alignment gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from core.text.tokenizer import StreamDecoder, Tokenizer
from core.text.transcript import Word


def confidence(logprobs: Sequence[float]) -> float | None:
    """Return the geometric mean of the tokens' probabilities; None where there are none."""
    return exp(sum(logprobs) / len(logprobs)) if logprobs else None


def split_words(
    tokenizer: Tokenizer, ids: Sequence[int], logprobs: Sequence[float]
) -> tuple[Word, ...]:
    """Split the generated text into words, each with the confidence of the tokens that spell it."""
    return tuple(
        Word(text=text, start=None, end=None, confidence=confidence([logprobs[i] for i in places]))
        for text, places in group_words(tokenizer, ids)
    )


def join_words(words: Sequence[Word]) -> tuple[str, list[int]]:
    """Join words with spaces.

    Returns:
        The text, and for each of its characters the place of the word it belongs to.
    """
    owners = [place for place, word in enumerate(words) for _ in range(len(word.text) + 1)]
    return " ".join(word.text for word in words), owners[:-1]


def group_words(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Split the text of ``ids`` into words, each with the places of the tokens that spell it."""
    decoder = StreamDecoder(tokenizer)
    words: list[tuple[str, list[int]]] = []
    waiting: list[int] = []  # tokens whose text is not certain yet: parts of one character
    fresh = True
    for place, token in enumerate(ids):
        waiting.append(place)
        piece = decoder.push(token)
        if piece:
            fresh = _add(words, piece, waiting, fresh)
            waiting = []
    rest = decoder.finish()
    if rest:
        _add(words, rest, waiting, fresh)
    return words


def _add(words: list[tuple[str, list[int]]], piece: str, places: list[int], fresh: bool) -> bool:
    """Append a piece of text; returns whether the next piece begins a new word."""
    for number, part in enumerate(piece.split()):
        continues = number == 0 and not fresh and not piece[0].isspace()
        if continues and words:
            words[-1] = (words[-1][0] + part, words[-1][1] + places)
        else:
            words.append((part, list(places)))
    return piece[-1].isspace() if piece.strip() else True
