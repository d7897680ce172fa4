"""The parity ladder: every stage against transformers, float32, on random tiny checkpoints.

Each checkpoint is written by transformers' ``save_pretrained`` and read by ``core.load``. The rungs
follow the data, from the waveform to the logits of single steps; the first that fails names the
file at fault. ``test_against_hf_tokens.py`` goes on with whole texts.

Run alone: ``python -m pytest tests/test_against_hf.py``.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import core
import tiny_models
from core.engine.stages import eager_engine
from core.generation.greedy import PromptBatch, run_prefill
from hf_cases import (
    CASES,
    FORTY_SECONDS,
    FRAMES,
    TOLERANCE,
    check_prefill,
    clip_of,
    native_features,
    outputs_of,
)
from oracle import transformers
from reference import Pair, hear, make_reference, prompt_for, relative_error
from tiny_models import noise, raw_config, samples_of_frames

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("frames", [*FRAMES, FORTY_SECONDS])
def test_features_are_the_references(frames: int, pair_of: Callable[..., Pair]):
    waveform = clip_of(frames)
    pair = pair_of("as released")
    found = pair.lab.feature_extractor(waveform)
    assert found.shape[0] == frames
    assert relative_error(found[None], hear(pair, waveform)["input_features"]) < 1e-6


@pytest.mark.parametrize("extra", [0, 1, 159, 160, 161, 319])
def test_odd_mel_frames_and_audio_tokens_are_counted_like_the_references(
    extra: int, pair_of: Callable[..., Pair]
):
    pair = pair_of("as released")
    lab = pair.lab
    for frames in (1, 15, 16, 30):
        waveform = noise(samples_of_frames(frames, extra) / 16_000)
        if waveform.shape[0] < 257:
            continue
        expected = int(pair.extractor(waveform)["audio_embed_sizes"][0])
        assert lab.model.num_audio_tokens(lab.feature_extractor(waveform).shape[0]) == expected
        assert lab.feature_extractor.config.num_frames(waveform.shape[0]) == frames


@pytest.mark.parametrize("case", CASES)
def test_each_encoder_block_and_the_ctc_posteriors(case: str, pair_of: Callable[..., Pair]):
    pair = pair_of(case)
    lab, theirs = pair.lab, pair.reference.model.encoder
    context = lab.config.encoder.context_size
    for frames in sorted({1, 14, context - 1, context, context + 1, 3 * context - 5}):
        waveform = clip_of(frames)
        with torch.inference_mode(), outputs_of(theirs.layers) as expected:
            last = theirs(hear(pair, waveform)["input_features"]).last_hidden_state
        with torch.inference_mode(), outputs_of(lab.model.encoder.layers) as found:
            ours = lab.model.encoder(*native_features(pair, waveform))
        assert len(found) == len(expected) == lab.config.encoder.num_layers
        for number, (mine, block) in enumerate(zip(found, expected, strict=True)):
            error = relative_error(mine[:, :frames], block)
            assert error < TOLERANCE, f"block {number}, {frames} frames"
        posteriors = theirs.out(last).softmax(-1)
        assert relative_error(ours.frames[:, :frames], last) < TOLERANCE
        assert relative_error(ours.ctc_logits[:, :frames].softmax(-1), posteriors) < TOLERANCE
        middle = lab.config.encoder.num_layers // 2
        if middle:
            with torch.inference_mode():
                posteriors = theirs.out(expected[middle - 1]).softmax(-1)
            assert (
                relative_error(ours.mid_ctc_logits[:, :frames].softmax(-1), posteriors) < TOLERANCE
            )


@pytest.mark.parametrize("case", CASES)
def test_projector_turns_the_same_frames_into_the_same_embeddings(
    case: str, pair_of: Callable[..., Pair]
):
    pair = pair_of(case)
    part = pair.lab.config.projector
    for frames in (1, part.window_size - 1, part.window_size, part.window_size + 1, 47):
        encoded = torch.randn(2, frames, part.encoder_hidden_size)
        with torch.inference_mode():
            expected = pair.reference.model.projector(encoded)
            assert relative_error(pair.lab.model.projector(encoded), expected) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_spliced_embeddings(case: str, pair_of: Callable[..., Pair]):
    pair = pair_of(case)
    waveform = clip_of(100)
    ids = torch.tensor([prompt_for(pair, waveform)])
    values, lengths = native_features(pair, waveform)
    heard = hear(pair, waveform)
    with torch.inference_mode():
        audio = pair.reference.get_audio_features(heard["input_features"]).pooler_output
        expected = pair.reference.model.get_merged_audio_embeddings(
            ids, audio, heard["input_features_mask"]
        )
        ours = pair.lab.model.splice(ids, pair.lab.model.embed_audio(values, lengths).embeddings)
    assert relative_error(ours, expected) < TOLERANCE


@pytest.mark.parametrize("frames", [*FRAMES, FORTY_SECONDS])
def test_prefill_logits_at_every_clip_length(frames: int, pair_of: Callable[..., Pair]):
    check_prefill(pair_of("as released"), clip_of(frames))


@pytest.mark.parametrize("case", CASES)
def test_prefill_logits_of_every_shape_of_model(case: str, pair_of: Callable[..., Pair]):
    for frames in (5, 71, 72, 73, 100, 145):
        check_prefill(pair_of(case), clip_of(frames))


@pytest.mark.parametrize("case", CASES)
def test_logits_of_64_decode_steps_over_the_cache(case: str, pair_of: Callable[..., Pair]):
    # The same random tokens go into both, so that one early difference cannot hide the later ones.
    pair = pair_of(case)
    lab, waveform = pair.lab, clip_of(83)
    ids = prompt_for(pair, waveform)
    steps = torch.randint(tiny_models.END_ID, (64,)).tolist()
    engine = eager_engine(lab.model)
    with torch.inference_mode():
        audio = lab.model.embed_audio(*native_features(pair, waveform)).embeddings
        cache, found = run_prefill(engine, lab.config.decoder, PromptBatch([ids], audio, None), 64)
        out = pair.reference(input_ids=torch.tensor([ids]), **hear(pair, waveform), use_cache=True)
        for number, token in enumerate(steps):
            assert relative_error(found[:, -1], out.logits[:, -1]) < TOLERANCE, f"step {number}"
            position = len(ids) + number
            view = cache.first_slots(engine.slots_in_use(position, cache.num_slots))
            found = engine.decode(torch.tensor([[token]]), torch.tensor([[position]]), view, None)
            # `past_key_values` up to transformers 5.23, `cache` from 5.24 on.
            name = "cache" if "cache" in out else "past_key_values"
            out = pair.reference(input_ids=torch.tensor([[token]]), **{name: out[name]})
        assert relative_error(found[:, -1], out.logits[:, -1]) < TOLERANCE


@pytest.mark.parametrize("num_mels", [80, 24])
def test_the_front_end_is_the_one_the_checkpoint_states(num_mels: int, tmp_path: Path):
    raw = raw_config(encoder={"input_dim": 2 * num_mels})
    extractor = transformers.GraniteSpeechFeatureExtractor(win_length=320, n_mels=num_mels)
    make_reference(raw).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    feature_extractor = core.load(tmp_path, device="cpu", dtype="float32").feature_extractor
    waveform = clip_of(40)
    expected = extractor(waveform)["input_features"]
    assert expected.shape[-1] == 2 * num_mels
    assert relative_error(feature_extractor(waveform)[None], expected) < 1e-6
