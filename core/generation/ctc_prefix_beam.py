"""CTC prefix beam search that leans towards the words of a list.

In: CTC logits of one clip, and the words as token ids. Out: the tokens of the best prefix, placed
in time. A prefix collects the probability of all its alignments (Hannun et al. 2014, arXiv
1408.2873, algorithm 1); here it also earns ``bonus`` for every token of it that spells a listed
word, and loses it again where the word breaks off. So a listed word wins a close race and changes
nothing where the model is sure. A listed word counts where its tokens stand, also as the beginning
of a longer one.

Shapes: T rows, V labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, inf, log1p
from typing import NamedTuple

from torch import Tensor

from core.errors import UserError
from core.generation.ctc_greedy import CTCToken
from core.model.ctc import BLANK
from core.text.alignment import best_frames
from core.text.tokenizer import Tokenizer

Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PrefixBeamOptions:
    """num_beams: prefixes kept a row; num_labels: labels tried a row; bonus: nats a token."""

    num_beams: int
    num_labels: int
    bonus: float

    def __post_init__(self) -> None:
        if self.num_beams < 1 or self.num_labels < 1 or self.bonus < 0:
            raise UserError(
                f"num_beams is {self.num_beams}, num_labels {self.num_labels}, bonus {self.bonus}; "
                "expected at least 1, 1 and 0"
            )


class Spelled(NamedTuple):
    """Tokens of a prefix that spell listed words; begun: of a word that may still break off."""

    whole: int
    begun: Ids


NOTHING_SPELLED = Spelled(0, ())


class WordList:
    """Words as token ids; where one begins like another, the shorter counts."""

    def __init__(self, spellings: Iterable[Sequence[int]]) -> None:
        self._words = {tuple(spelling) for spelling in spellings if spelling}
        self._next: dict[Ids, set[int]] = {}  # beginning of a word -> the labels that go on
        for word in self._words:
            for size, label in enumerate(word):
                self._next.setdefault(word[:size], set()).add(label)

    def labels_after(self, begun: Ids) -> set[int]:
        """Labels that begin a word or go on with the one begun."""
        return self._next.get((), set()) | self._next.get(begun, set())

    def advance(self, spelled: Spelled, label: int) -> Spelled:
        """Follow a prefix by one more label."""
        for begun in ((*spelled.begun, label), (label,)):
            if begun in self._words:
                return Spelled(spelled.whole + len(begun), ())
            if begun in self._next:
                return Spelled(spelled.whole, begun)
        return Spelled(spelled.whole, ())


class _Beam(NamedTuple):
    """Log-probability of a prefix's alignments that end in blank, and of those that do not."""

    blank: float
    label: float
    spelled: Spelled

    @property
    def total(self) -> float:
        return _log_add(self.blank, self.label)


def spell_word(tokenizer: Tokenizer, word: str) -> list[list[int]]:
    """Token ids of ``word`` at the start of a text and inside one, for :class:`WordList`."""
    return [tokenizer.encode_continuation(word), tokenizer.encode_continuation(f" {word}")]


def prefix_beam_search(logits: Tensor, words: WordList, options: PrefixBeamOptions) -> Ids:
    """Find the token ids of the best prefix for one clip's ``logits`` [T, V], real rows only."""
    log_probs = logits.float().log_softmax(dim=-1).cpu()
    likeliest = log_probs.topk(min(options.num_labels, log_probs.shape[-1]), dim=-1).indices
    beams: dict[Ids, _Beam] = {(): _Beam(0.0, -inf, NOTHING_SPELLED)}

    def rank(item: tuple[Ids, _Beam]) -> float:
        spelled = item[1].spelled
        return item[1].total + options.bonus * (spelled.whole + len(spelled.begun))

    for scores, labels in zip(log_probs, likeliest.tolist(), strict=True):
        grown = _grow(beams, scores, labels, words)
        beams = dict(sorted(grown.items(), key=rank, reverse=True)[: options.num_beams])
    return max(beams, key=lambda ids: beams[ids].total + options.bonus * beams[ids].spelled.whole)


def place_tokens(logits: Tensor, ids: Ids) -> list[CTCToken]:
    """Place ``ids`` in rows by their best path through ``logits`` [T, V]."""
    log_probs = logits.float().log_softmax(dim=-1).cpu()
    spans = best_frames(log_probs, ids) or []  # none where there are no ids
    return [
        CTCToken(token, first, end, log_probs[first, token].item())
        for token, (first, end) in zip(ids, spans, strict=True)
    ]


def _grow(
    beams: dict[Ids, _Beam], scores: Tensor, labels: list[int], words: WordList
) -> dict[Ids, _Beam]:
    """Extend all prefixes by one more row of log-probabilities ``scores`` [V]."""
    grown: dict[Ids, _Beam] = {}

    def add(ids: Ids, spelled: Spelled, *, blank: float = -inf, label: float = -inf) -> None:
        old = grown.get(ids, _Beam(-inf, -inf, spelled))
        grown[ids] = _Beam(_log_add(old.blank, blank), _log_add(old.label, label), spelled)

    for ids, beam in beams.items():
        tried = sorted({BLANK, *ids[-1:], *labels, *words.labels_after(beam.spelled.begun)})
        for token, value in zip(tried, scores[tried].tolist(), strict=True):
            if token == BLANK:
                add(ids, beam.spelled, blank=beam.total + value)
                continue
            repeated = ids[-1:] == (token,)
            if repeated:  # the token lasts; a second one needs a blank between
                add(ids, beam.spelled, label=beam.label + value)
            before = beam.blank if repeated else beam.total
            add((*ids, token), words.advance(beam.spelled, token), label=before + value)
    return grown


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -inf else high + log1p(exp(low - high))
