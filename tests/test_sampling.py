"""Penalties and warps mean what transformers' mean; sampling is reproducible.

Run alone: ``python -m pytest tests/test_sampling.py``.
"""

from typing import Any

import pytest
import torch

from core.generation.sampling import (
    GenerationOptions,
    banned_tokens,
    choose,
    keep_nucleus,
    penalise,
)
from oracle import transformers

VOCABULARY = 20


def some_logits(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY) * 3


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.oracle
@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 3.0])
def test_repetition_penalty_is_transformers(penalty: float):
    logits, ids = some_logits(), torch.randint(VOCABULARY, (3, 7))
    expected = transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    found = penalise(logits, ids.tolist(), GenerationOptions(repetition_penalty=penalty))
    assert torch.equal(found, expected)


@pytest.mark.oracle
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 6, 40])
def test_ngram_ban_is_transformers(size: int, length: int):
    logits, ids = some_logits(), torch.randint(4, (3, length))
    expected = transformers.NoRepeatNGramLogitsProcessor(size)(ids, logits.clone())
    found = penalise(logits, ids.tolist(), GenerationOptions(no_repeat_ngram_size=size))
    assert torch.equal(found, expected)


@pytest.mark.oracle
@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.999, 1.0])
def test_nucleus_is_transformers(top_p: float):
    logits = some_logits(50)
    expected = transformers.TopPLogitsWarper(top_p)(None, logits) if top_p < 1 else logits
    assert torch.equal(keep_nucleus(logits, top_p), expected)
    assert torch.isfinite(keep_nucleus(logits, top_p)).any(-1).all()


@pytest.mark.oracle
def test_temperature_and_nucleus_apply_in_transformers_order():
    logits = some_logits(1)
    warped = transformers.TopPLogitsWarper(0.7)(
        None, transformers.TemperatureLogitsWarper(1.8)(None, logits)
    )
    options = GenerationOptions(temperature=1.8, top_p=0.7)
    drawn = {choose(logits, options, seeded(seed)).item() for seed in range(300)}
    assert drawn == set(torch.isfinite(warped)[0].nonzero()[:, 0].tolist())


def test_draws_follow_the_probabilities():
    logits, generators = torch.tensor([[0.0, 1.0, 2.0]]), seeded(1)
    options = GenerationOptions(temperature=1.0)
    drawn = torch.cat([choose(logits, options, generators) for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(shares, logits[0].softmax(-1), rtol=0, atol=0.03)


def test_the_same_seed_draws_the_same_tokens():
    logits, options = some_logits(50), GenerationOptions(temperature=1.0, top_p=0.9)
    draws = [choose(logits, options, seeded(*[seed] * 50)).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("temperature", [1e-300, 1e-7, 1e-6, 1e30, 1e308])
def test_no_temperature_leaves_the_range_of_the_scores(temperature: float):
    scores = 20 * some_logits(50)
    scores[:, 7] = -torch.inf  # banned
    options = GenerationOptions(temperature=temperature)
    ids = choose(scores, options, [torch.Generator().manual_seed(1) for _ in scores])
    assert temperature > 1 or torch.equal(ids, scores.argmax(dim=-1))
    assert (ids != 7).all()


def test_temperature_zero_takes_the_likeliest_without_drawing():
    logits, generators = some_logits(), seeded(1, 1, 1)
    state = generators[0].get_state()
    assert torch.equal(choose(logits, GenerationOptions(), generators), logits.argmax(-1))
    assert torch.equal(generators[0].get_state(), state)


def test_penalties_leave_the_logits_they_were_given_alone():
    logits = some_logits()
    before = logits.clone()
    penalise(logits, [[1, 2]] * 3, GenerationOptions(repetition_penalty=2.0))
    assert torch.equal(logits, before)
    assert penalise(logits, [[1, 2]] * 3, GenerationOptions()) is logits


def test_ids_outside_the_vocabulary_are_passed_over():
    # The audio token of a prompt may have no row in the table.
    audio = VOCABULARY + 3
    for options in (
        GenerationOptions(repetition_penalty=2.0),
        GenerationOptions(no_repeat_ngram_size=1),
        GenerationOptions(no_repeat_ngram_size=2, repetition_penalty=1.5),
    ):
        for ids in ([audio], [4, audio, audio, 4], [audio, audio, audio]):
            assert penalise(some_logits(1), [ids], options).shape == (1, VOCABULARY)


def test_banned_tokens_by_hand():
    assert banned_tokens([1, 2, 3, 1, 2], 3) == [3]
    assert banned_tokens([1, 2, 1, 3, 1], 2) == [2, 3]
    assert sorted(banned_tokens([5, 6], 1)) == [5, 6]
    assert banned_tokens([1], 3) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected at least 1"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 65}, "1 to 64"),
        ({"temperature": -0.1}, "0 .greedy. or more"),
        ({"top_p": 0.0}, "above 0, at most 1"),
        ({"top_p": 1.1}, "above 0, at most 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1"),
        ({"num_beams": 2, "temperature": 0.5}, "use one or the other"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_wrong_values_are_named(options: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        GenerationOptions(**options)
