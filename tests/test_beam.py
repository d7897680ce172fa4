"""Beam search beyond parity (``test_against_hf_tokens.py``): batches, scores, cancelling.

Run alone: ``python -m pytest tests/test_beam.py``.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch

from core.engine.stages import eager_engine
from core.generation.beam import beam_search
from core.generation.greedy import Hypothesis, PromptBatch, generate
from core.generation.sampling import GenerationOptions
from core.model.granite_speech import GraniteSpeech
from core.phases import PhaseClock
from tiny_models import random_model, raw_config

PROMPTS = [[1, 2, 3], [9, 8, 7, 6, 5], [4]]


@pytest.fixture(scope="module")
def model() -> GraniteSpeech:
    return random_model()


def search(
    model: GraniteSpeech,
    *prompts: list[int],
    ends: tuple[int, ...] = (),
    cancelled: Callable[[], bool] = lambda: False,
    **options: object,
) -> list[list[Hypothesis]]:
    config = replace(model.config.decoder, eos_token_ids=ends)
    settings = GenerationOptions(**options)
    inputs = PromptBatch(prompts, torch.zeros(len(prompts), 1, 32), None)
    return list(
        beam_search(
            eager_engine(model), config, inputs, settings, clock=PhaseClock(), cancelled=cancelled
        )
    )


def total(model: GraniteSpeech, prompt: list[int], continuation: tuple[int, ...]) -> float:
    """Summed log-probability of a continuation, by one plain forward."""
    ids = torch.tensor([[*prompt, *continuation]])
    with torch.inference_mode():
        hidden = model.decoder(model.embed_text(ids), torch.arange(ids.shape[1])[None])
        scores = model.decoder.logits(hidden)[0, len(prompt) - 1 : -1].log_softmax(-1)
    return scores.gather(1, torch.tensor(continuation)[:, None]).sum().item()


def test_enough_beams_find_the_best_of_all_continuations():
    model = random_model(
        raw_config(decoder={"vocab_size": 6, "pad_token_id": 0}, audio_token_index=5)
    )
    prompt = [1, 2]
    best = max(product(range(6), repeat=2), key=lambda tokens: total(model, prompt, tokens))
    assert search(model, prompt, num_beams=6, max_new_tokens=2)[-1][0].ids == list(best)


def test_the_result_is_at_least_as_likely_as_the_greedy_one(model: GraniteSpeech):
    for prompt in PROMPTS:
        row = search(model, prompt, num_beams=4, max_new_tokens=10)[-1][0]
        *_, (plain,) = generate(
            eager_engine(model),
            replace(model.config.decoder, eos_token_ids=()),
            PromptBatch([prompt], torch.zeros(1, 1, 32), None),
            GenerationOptions(max_new_tokens=10),
            clock=PhaseClock(),
        )
        assert sum(row.logprobs) >= sum(plain.logprobs) - 1e-4
        assert sum(row.logprobs) == pytest.approx(total(model, prompt, tuple(row.ids)), abs=1e-3)


@pytest.mark.parametrize("ends", [False, True])
def test_clips_of_a_batch_are_searched_as_if_alone(ends: bool, model: GraniteSpeech):
    options = {"num_beams": 3, "max_new_tokens": 14}
    if ends:
        free = search(model, PROMPTS[0], **options)[-1][0].ids
        options["ends"] = (free[5],)
    together = search(model, *PROMPTS, **options)[-1]
    for row, prompt in zip(together, PROMPTS, strict=True):
        alone = search(model, prompt, **options)[-1][0]
        assert (row.ids, row.stop) == (alone.ids, alone.stop)
        assert row.prompt == prompt


def test_a_length_penalty_prefers_longer_or_shorter_texts(model: GraniteSpeech):
    free = search(model, PROMPTS[0], num_beams=4, max_new_tokens=20)[-1][0].ids
    lengths = {}
    for penalty in (-2.0, 3.0):
        rows = search(
            model, PROMPTS[0], num_beams=4, max_new_tokens=20, length_penalty=penalty,
            ends=tuple(set(free[3:6])),
        )  # fmt: skip
        lengths[penalty] = len(rows[-1][0].ids)
    assert lengths[-2.0] <= lengths[3.0]


def test_end_tokens_stop_it_and_are_not_kept(model: GraniteSpeech):
    free = search(model, PROMPTS[1], num_beams=2, max_new_tokens=20)[-1][0].ids
    row = search(model, PROMPTS[1], num_beams=2, max_new_tokens=20, ends=(free[0],))[-1][0]
    assert free[0] not in row.ids
    assert len(row.ids) == len(row.logprobs)


def test_end_tokens_can_be_ignored(model: GraniteSpeech):
    options = {"num_beams": 2, "max_new_tokens": 8}
    free = search(model, PROMPTS[1], **options)[-1][0].ids
    row = search(model, PROMPTS[1], **options, ends=(free[0],), ignore_eos=True)[-1][0]
    assert row.ids == free
    assert row.stop == "length"


def test_cancelling_keeps_the_leading_text(model: GraniteSpeech):
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) == 3

    shown = search(model, PROMPTS[0], num_beams=3, max_new_tokens=50, cancelled=cancelled)
    assert len(shown) == 3
    assert shown[-1][0].stop == "cancelled"
    assert len(shown[-1][0].ids) == 3


def test_every_step_shows_the_leading_text(model: GraniteSpeech):
    shown = search(model, PROMPTS[0], num_beams=3, max_new_tokens=6)
    assert [len(rows[0].ids) for rows in shown] == [1, 2, 3, 4, 5, 6]
    assert [rows[0].stop for rows in shown] == [None] * 5 + ["length"]


def test_the_context_is_a_limit(model: GraniteSpeech):
    with pytest.raises(ValueError, match="context of 512"):
        search(model, [1] * 500, num_beams=2, max_new_tokens=13)
