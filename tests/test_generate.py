"""Prefill and steps for a batch: stopping, cancelling, and every row as if it were alone.

Run alone: ``python -m pytest tests/test_generate.py``.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.engine.stages import Engine, eager_engine
from core.generation.greedy import Hypothesis, PromptBatch, check_budget, generate, run_prefill
from core.generation.sampling import GenerationOptions
from core.lab import Lab
from core.model.encoder import padded_length
from core.model.features import pad_features
from core.model.granite_speech import GraniteSpeech
from core.model.lora import switch
from core.phases import PhaseClock
from tiny_models import AUDIO_ID, END_ID, random_model

SECONDS = (0.1, 0.35, 0.6, 0.8, 1.0, 1.3, 1.9, 2.5)


@pytest.fixture(scope="module")
def model() -> GraniteSpeech:
    return random_model()


def text_only(*prompts: list[int]) -> PromptBatch:
    return PromptBatch(prompts, torch.zeros(len(prompts), 1, 32), None)


def steps(
    model: GraniteSpeech,
    prompts: PromptBatch,
    cancelled: Callable[[], bool] = lambda: False,
    ends: tuple[int, ...] = (),
    **options: object,
) -> Iterator[list[Hypothesis]]:
    config = replace(model.config.decoder, eos_token_ids=ends)
    settings = GenerationOptions(**options)
    clock = PhaseClock()
    return generate(
        eager_engine(model), config, prompts, settings, clock=clock, cancelled=cancelled
    )


def run(model: GraniteSpeech, *prompts: list[int], **options: object) -> list[Hypothesis]:
    *_, rows = steps(model, text_only(*prompts), **options)
    return rows


def test_it_ends_at_the_limit(model: GraniteSpeech):
    (row,) = run(model, [1, 2, 3], max_new_tokens=7)
    assert len(row.ids) == len(row.logprobs) == 7
    assert row.stop == "length"
    assert row.length == 10


@pytest.mark.parametrize("limit", [1, 2])
def test_short_limits_are_exact(limit: int, model: GraniteSpeech):
    assert len(run(model, [1, 2, 3], max_new_tokens=limit)[0].ids) == limit


def test_it_ends_at_any_of_the_end_tokens_which_are_not_kept(model: GraniteSpeech):
    free = run(model, [1, 2, 3], max_new_tokens=20)[0].ids
    end = next(token for token in free[3:] if token not in free[:3])
    (row,) = run(model, [1, 2, 3], max_new_tokens=20, ends=(END_ID, end))
    assert row.stop == "eos"
    assert row.ids == free[: free.index(end)]


def test_end_tokens_can_be_ignored(model: GraniteSpeech):
    free = run(model, [1, 2, 3], max_new_tokens=20)[0].ids
    (row,) = run(model, [1, 2, 3], max_new_tokens=20, ends=(free[0],), ignore_eos=True)
    assert row.ids == free
    assert row.stop == "length"


def test_an_end_token_at_once_gives_an_empty_row(model: GraniteSpeech):
    first = run(model, [1, 2, 3], max_new_tokens=1)[0].ids
    (row,) = run(model, [1, 2, 3], ends=tuple(first))
    assert (row.ids, row.stop) == ([], "eos")


def test_every_step_shows_one_token_more(model: GraniteSpeech):
    lengths = [len(rows[0].ids) for rows in steps(model, text_only([1, 2]), max_new_tokens=5)]
    assert lengths == [1, 2, 3, 4, 5]


def test_cancelling_keeps_what_was_written(model: GraniteSpeech):
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) == 4

    *_, rows = steps(model, text_only([1, 2], [3]), cancelled, max_new_tokens=50)
    assert [(len(row.ids), row.stop) for row in rows] == [(4, "cancelled")] * 2


def test_greedy_is_the_argmax_of_a_full_forward(model: GraniteSpeech):
    prompt = [1, 2, 3, 4]
    (row,) = run(model, prompt, max_new_tokens=12)
    ids = torch.tensor([prompt + row.ids])
    with torch.inference_mode():
        hidden = model.decoder(model.embed_text(ids), torch.arange(16)[None])
        logits = model.decoder.logits(hidden)[0, 3:-1]
    assert logits.argmax(-1).tolist() == row.ids
    logprobs = logits.log_softmax(-1).gather(1, torch.tensor(row.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(row.logprobs), logprobs, rtol=1e-3, atol=1e-3)


def test_rows_that_have_ended_do_not_disturb_the_others(model: GraniteSpeech):
    prompts = [[1, 2, 3], [9, 8, 7, 6, 5], [4]]
    alone = [run(model, prompt, max_new_tokens=24)[0].ids for prompt in prompts]
    end = next(token for token in alone[0][2:] if token not in alone[0][:2])
    rows = run(model, *prompts, max_new_tokens=24, ends=(end,))
    for row, ids in zip(rows, alone, strict=True):
        assert row.ids == (ids[: ids.index(end)] if end in ids else ids)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_same_seed_writes_the_same_tokens(temperature: float, model: GraniteSpeech):
    rows = [
        run(model, [1, 2, 3], max_new_tokens=20, temperature=temperature, seed=seed)[0].ids
        for seed in (5, 5, 6)
    ]
    assert rows[0] == rows[1]
    assert (rows[0] == rows[2]) == (temperature == 0)


def test_sampled_rows_of_a_batch_are_those_of_each_clip_alone(model: GraniteSpeech):
    prompts = [[1, 2, 3], [9, 8, 7, 6, 5], [4]]
    options = {"max_new_tokens": 16, "temperature": 0.8, "top_p": 0.9, "seed": 3}
    together = [row.ids for row in run(model, *prompts, **options)]
    assert together == [run(model, prompt, **options)[0].ids for prompt in prompts]


def test_the_context_is_a_limit_told_with_its_numbers(model: GraniteSpeech):
    with pytest.raises(ValueError, match="prompt of 3 tokens and 510 new tokens .* 512"):
        run(model, [1, 2, 3], max_new_tokens=510)
    check_budget([[1] * 500], GenerationOptions(max_new_tokens=12), 512)


def test_the_context_can_be_used_to_its_end(model: GraniteSpeech):
    (row,) = run(model, [1] * 500, max_new_tokens=12)
    assert len(row.ids) == 12


def test_phases_are_prefill_once_and_decode_the_rest(model: GraniteSpeech):
    clock = PhaseClock()
    options = GenerationOptions(max_new_tokens=3)
    for _ in generate(
        eager_engine(model), model.config.decoder, text_only([1, 2]), options, clock=clock
    ):
        pass
    assert [name for name, _ in clock.milliseconds()] == ["prefill", "decode"]


def heard(lab: Lab, waveforms: list[Tensor], length: int | None = None) -> PromptBatch:
    """Prompts of a batch of clips, each with a text of its own length before and after."""
    clips = [lab.feature_extractor(waveform) for waveform in waveforms]
    batch = pad_features(clips, length or padded_length(max(map(len, clips)), 20))
    lora = switch([True] * len(clips), like=batch.values)
    with torch.inference_mode():
        audio = lab.model.embed_audio(batch.values, torch.tensor(batch.lengths), lora).embeddings
    ids = [
        [
            *range(len(clip) % 7),
            *[AUDIO_ID] * lab.model.num_audio_tokens(len(clip)),
            *range(20, 20 + len(clip) % 5 + 1),
        ]
        for clip in clips
    ]
    return PromptBatch(ids, audio, lora)


def first_logits(engine: Engine, lab: Lab, prompts: PromptBatch) -> Tensor:
    with torch.inference_mode():
        return run_prefill(engine, lab.config.decoder, prompts, 8)[1][:, 0]


def test_a_clip_alone_and_in_a_batch_of_eight(lab: Lab, noise: Callable[..., Tensor]):
    # The reference gives other results in a batch: it masks neither attention nor convolution.
    waveforms = [noise(seconds, seed=number) for number, seconds in enumerate(SECONDS)]
    engine, together = eager_engine(lab.model), heard(lab, waveforms)
    options = GenerationOptions(max_new_tokens=40, ignore_eos=True)
    logits = first_logits(engine, lab, together)
    *_, rows = generate(engine, lab.config.decoder, together, options, clock=PhaseClock())
    for number, waveform in enumerate(waveforms):
        alone = heard(lab, [waveform])
        expected = first_logits(engine, lab, alone)[0]
        assert (logits[number] - expected).abs().max() < 1e-4 * expected.abs().max()
        *_, (row,) = generate(engine, lab.config.decoder, alone, options, clock=PhaseClock())
        assert rows[number].ids == row.ids
    assert len({tuple(row.ids) for row in rows}) == len(rows)


def test_a_bigger_bucket_changes_nothing(lab: Lab, noise: Callable[..., Tensor]):
    waveform, engine = noise(0.9), eager_engine(lab.model)
    roomy = replace(
        engine,
        prompt_bucket=lambda length: 128,
        cache_bucket=lambda slots: 256,
        slots_in_use=lambda position, slots: slots,
    )
    options = GenerationOptions(max_new_tokens=30, ignore_eos=True)
    found = []
    for stages, length in ((engine, None), (engine, 160), (roomy, 160)):
        prompts = heard(lab, [waveform], length)
        *_, (row,) = generate(stages, lab.config.decoder, prompts, options, clock=PhaseClock())
        found.append(row.ids)
    assert found[0] == found[1] == found[2]


def test_lab_makes_ids_from_waveforms_as_the_parts_do(lab: Lab, noise: Callable[..., Tensor]):
    waveforms = [noise(0.5, seed=1), noise(1.2, seed=2)]
    prompts = heard(lab, waveforms)
    options = GenerationOptions(max_new_tokens=16)
    *_, rows = generate(
        eager_engine(lab.model), lab.config.decoder, prompts, options, clock=PhaseClock()
    )
    found = lab.generate_ids(prompts.ids, waveforms, options=options)
    assert [row.ids for row in found] == [row.ids for row in rows]


def test_a_prompt_with_too_few_places_is_refused(lab: Lab, noise: Callable[..., Tensor]):
    with pytest.raises(ValueError, match="2 audio positions but the recording makes 12"):
        lab.generate_ids([[1, AUDIO_ID, AUDIO_ID, 2]], [noise(1.0)])
