"""Greedy CTC decoding of word pieces, with times and probabilities.

In: CTC logits of a batch. Out: for each clip the tokens that were emitted, each with the rows it
lasted and its log-probability; and the words they spell. Repeats are merged here and nowhere else:
merging again would swallow real doubles.

:func:`best_labels` is plain tensor arithmetic, so it can end a compiled stage: what leaves the
device is two numbers a row instead of the vocabulary.

Shapes: B batch, T rows, V labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from torch import Tensor

from core.model.ctc import BLANK
from core.text.tokenizer import Tokenizer
from core.text.transcript import Word
from core.text.words import confidence, group_words


class BestLabels(NamedTuple):
    """labels [B, T] int64, the likeliest of each row, and their logprobs [B, T] float32."""

    labels: Tensor
    logprobs: Tensor


class CTCToken(NamedTuple):
    """A token in rows ``first`` to ``end`` - 1; logprob: its own in the first of them."""

    token_id: int
    first: int
    end: int
    logprob: float


def best_labels(logits: Tensor) -> BestLabels:
    """Find the likeliest label of each row of ``logits`` [B, T, V] and its log-probability."""
    best = logits.max(dim=-1)
    total = logits.float().logsumexp(dim=-1)
    return BestLabels(best.indices, best.values.float() - total)


def emitted_tokens(
    best: BestLabels, lengths: Sequence[int], *, blank: int = BLANK
) -> list[list[CTCToken]]:
    """Read each clip's tokens in its first ``lengths`` rows."""
    rows = zip(best.labels.tolist(), best.logprobs.tolist(), lengths, strict=True)
    return [collapse(labels[:count], scores[:count], blank) for labels, scores, count in rows]


def collapse(
    labels: Sequence[int], logprobs: Sequence[float], blank: int = BLANK
) -> list[CTCToken]:
    """Merge repeats, then drop blanks (Graves et al. 2006): one clip's ``labels``, one a row."""
    tokens, first = [], 0
    for label, run in groupby(labels):
        end = first + sum(1 for _ in run)
        if label != blank:
            tokens.append(CTCToken(label, first, end, logprobs[first]))
        first = end
    return tokens


def timed_words(
    tokenizer: Tokenizer, tokens: Sequence[CTCToken], seconds_per_row: float
) -> tuple[Word, ...]:
    """Spell the words of ``tokens`` with their times and confidence.

    A word lasts from the first row of its first token to the last row of its last one.

    Returns:
        The words.
    """
    words = []
    for text, places in group_words(tokenizer, [token.token_id for token in tokens]):
        spelling = [tokens[place] for place in places]
        words.append(
            Word(
                text=text,
                start=spelling[0].first * seconds_per_row,
                end=spelling[-1].end * seconds_per_row,
                confidence=confidence([token.logprob for token in spelling]),
            )
        )
    return tuple(words)
