"""The CTC prefix beam search and its word list, on logits made by hand.

Run alone: ``python -m pytest tests/test_ctc_prefix_beam.py``.
"""

from itertools import groupby, product
from math import exp
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.generation.ctc_prefix_beam import (
    NOTHING_SPELLED,
    PrefixBeamOptions,
    WordList,
    place_tokens,
    prefix_beam_search,
    spell_word,
)
from core.text.tokenizer import Tokenizer
from granite_speech5 import write_byte_level_tokenizer

OPTIONS = PrefixBeamOptions(num_beams=8, num_labels=4, bonus=1.0)
NO_WORDS = WordList([])


def logits_of(rows: list[dict[int, float]], num_labels: int = 6) -> Tensor:
    """Log-probabilities [T, V] of rows that give some labels a probability; blank has the rest."""
    table = torch.full((len(rows), num_labels), 1e-9)
    for row, chances in zip(table, rows, strict=True):
        row[0] = max(1 - sum(chances.values()), 1e-9)
        for label, chance in chances.items():
            row[label] = chance
    return table.log()


def labels_of(logits: Tensor) -> list[int]:
    return [label for label, _ in groupby(logits.argmax(-1).tolist()) if label]


def best_by_counting(logits: Tensor) -> tuple[int, ...]:
    """The likeliest text by adding up every alignment there is."""
    chances: dict[tuple[int, ...], float] = {}
    log_probs = logits.log_softmax(-1).tolist()
    for path in product(range(logits.shape[1]), repeat=len(logits)):
        text = tuple(label for label, _ in groupby(path) if label)
        score = sum(row[label] for row, label in zip(log_probs, path, strict=True))
        chances[text] = chances.get(text, 0.0) + exp(score)
    return max(chances, key=lambda text: chances[text])


@pytest.mark.parametrize("seed", range(8))
def test_with_a_beam_for_every_prefix_it_finds_the_likeliest_text(seed: int):
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    wide = PrefixBeamOptions(num_beams=100, num_labels=3, bonus=1.0)
    assert prefix_beam_search(logits, NO_WORDS, wide) == best_by_counting(logits)


def test_where_the_model_is_sure_it_is_the_greedy_text_doubles_included():
    rows = [{3: 0.9}, {3: 0.9}, {}, {3: 0.8}, {4: 0.9}, {}, {5: 0.95}]
    logits = logits_of(rows)
    assert prefix_beam_search(logits, NO_WORDS, OPTIONS) == (3, 3, 4, 5) == tuple(labels_of(logits))
    assert prefix_beam_search(logits, WordList([[1, 2]]), OPTIONS) == (3, 3, 4, 5)


def test_many_weak_alignments_beat_the_greedy_path():
    # Blank is likeliest in each row (0.6 * 0.6), yet one 3 somewhere is likelier.
    logits = logits_of([{3: 0.4}, {3: 0.4}])
    assert labels_of(logits) == []
    assert prefix_beam_search(logits, NO_WORDS, OPTIONS) == (3,)


def test_a_listed_word_wins_a_close_race_and_no_other():
    close = logits_of([{1: 0.99}, {2: 0.55, 3: 0.40}, {4: 0.99}])
    far = logits_of([{1: 0.99}, {2: 0.95, 3: 0.01}, {4: 0.99}])
    words = WordList([[3, 4]])
    assert prefix_beam_search(close, NO_WORDS, OPTIONS) == (1, 2, 4)
    assert prefix_beam_search(close, words, OPTIONS) == (1, 3, 4)
    assert prefix_beam_search(far, words, OPTIONS) == (1, 2, 4)


def test_a_word_that_breaks_off_earns_nothing():
    # 3 begins the word 3 5, but 4 follows.
    logits = logits_of([{1: 0.99}, {2: 0.55, 3: 0.40}, {4: 0.99}])
    assert prefix_beam_search(logits, WordList([[3, 5]]), OPTIONS) == (1, 2, 4)
    assert prefix_beam_search(logits[:2], WordList([[3, 5]]), OPTIONS) == (1, 2)


def test_a_listed_label_is_tried_though_it_is_not_among_the_likeliest():
    logits = logits_of([{1: 0.3, 2: 0.3, 3: 0.25}])
    narrow = PrefixBeamOptions(num_beams=8, num_labels=1, bonus=3.0)
    assert prefix_beam_search(logits, WordList([[3]]), narrow) == (3,)


def test_words_are_followed_from_left_to_right():
    words = WordList([[1, 2], [2, 3, 3]])
    counts = []
    for prefix in ([1, 2], [1, 2, 3], [2, 3], [2, 3, 3], [2, 1, 2], [5, 1]):
        spelled = NOTHING_SPELLED
        for label in prefix:
            spelled = words.advance(spelled, label)
        counts.append((spelled.whole, spelled.begun))
    assert counts == [(2, ()), (2, ()), (0, (2, 3)), (3, ()), (2, ()), (0, (1,))]


def test_tokens_of_the_best_prefix_are_placed_in_rows():
    rows = [{}, {3: 0.9}, {3: 0.9}, {}, {3: 0.8}, {4: 0.7}]
    tokens = place_tokens(logits_of(rows), (3, 3, 4))
    assert [token[:3] for token in tokens] == [(3, 1, 3), (3, 4, 5), (4, 5, 6)]
    assert [exp(token.logprob) for token in tokens] == pytest.approx([0.9, 0.8, 0.7], rel=1e-3)
    assert place_tokens(logits_of(rows), ()) == []


def test_words_are_spelled_as_they_stand_at_the_start_and_inside(tmp_path: Path):
    tokenizer = Tokenizer(write_byte_level_tokenizer(tmp_path / "tokenizer.json"))
    start, inside = spell_word(tokenizer, "the")
    assert tokenizer.decode(start) == "the"
    assert tokenizer.decode(inside) == " the"
    assert start != inside


def test_options_that_search_nothing_are_refused():
    with pytest.raises(UserError, match="num_beams is 0.*expected at least 1"):
        PrefixBeamOptions(num_beams=0, num_labels=1, bonus=0.0)
