"""Greedy CTC decoding: tokens, the rows they last, and the words they spell.

Run alone: ``python -m pytest tests/test_ctc_greedy.py``.
"""

from math import log
from pathlib import Path

import pytest
import torch

from core.generation.ctc_greedy import (
    BestLabels,
    best_labels,
    collapse,
    emitted_tokens,
    timed_words,
)
from core.text.tokenizer import Tokenizer
from granite_speech5 import write_byte_level_tokenizer


def test_repeats_are_merged_and_a_blank_parts_doubles():
    tokens = collapse(
        [0, 5, 5, 0, 5, 7, 7, 7, 0, 0, 2], [0.0, -1.0, -2, -3, -4, -5, -6, -7, 0, 0, -8]
    )
    assert [token.token_id for token in tokens] == [5, 5, 7, 2]
    assert [(token.first, token.end) for token in tokens] == [(1, 3), (4, 5), (5, 8), (10, 11)]
    assert [token.logprob for token in tokens] == [-1, -4, -5, -8]
    assert collapse([0, 0, 0], [0.0] * 3) == collapse([], []) == []


def test_rows_past_a_clips_end_are_not_read():
    best = BestLabels(torch.tensor([[3, 0, 4, 4], [3, 3, 5, 5]]), torch.zeros(2, 4))
    found = emitted_tokens(best, [4, 2])
    assert [[token.token_id for token in tokens] for tokens in found] == [[3, 4], [3]]
    assert found[1][0].end == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logprob_is_that_of_the_softmax_in_float32(dtype: torch.dtype):
    logits = torch.randn(2, 9, 50).to(dtype)
    best, expected = best_labels(logits), logits.float().softmax(-1).max(-1)
    assert torch.equal(best.labels, expected.indices)
    torch.testing.assert_close(best.logprobs.exp(), expected.values)


def test_words_get_the_rows_of_their_tokens_and_their_mean_confidence(tmp_path: Path):
    tokenizer = Tokenizer(write_byte_level_tokenizer(tmp_path / "tokenizer.json"))
    ids = tokenizer.encode_continuation("he the")
    assert len(ids) == 3  # "he", " t", "he"
    labels = [0, ids[0], 0, 0, ids[1], ids[1], ids[2], 0]
    tokens = collapse(labels, [log(0.5) if label == ids[1] else log(0.8) for label in labels])
    first, second = timed_words(tokenizer, tokens, 0.08)
    assert (first.text, second.text) == ("he", "the")
    assert (first.start, first.end) == pytest.approx((0.08, 0.16))
    assert (second.start, second.end) == pytest.approx((0.32, 0.56))
    assert first.confidence == pytest.approx(0.8)
    assert second.confidence == pytest.approx((0.5 * 0.8) ** 0.5)
