"""granite_speech_plus against transformers, float32, on random tiny checkpoints, stage by stage.

Index 2 of four blocks is the one that conditions itself; [2, 1] is written against the order.
Run alone: ``python -m pytest tests/test_granite_speech_plus_against_hf.py``.
"""

from pathlib import Path

import pytest
import torch

from core.generation.sampling import GenerationOptions
from hf_cases import ENDLESS, TOLERANCE, check_prefill, clip_of, native_features, native_tokens
from reference import Pair, hear, make_pair, prompt_for, reference_tokens, relative_error
from tiny_models import raw_plus_config

pytestmark = pytest.mark.oracle

FRAMES = (1, 8, 14, 15, 16, 23)
KEPT = ([1], [0], [2], [1, 2], [2, 1], [])


@pytest.fixture(scope="module", params=KEPT, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    raw = raw_plus_config(request.param, decoder=ENDLESS)
    return make_pair(tmp_path_factory.mktemp("plus"), raw)


def test_frames_are_the_kept_states_and_the_last(pair: Pair) -> None:
    theirs, width = pair.reference.model.encoder, pair.lab.config.encoder.output_size
    for frames in FRAMES:
        waveform = clip_of(frames)
        with torch.inference_mode():
            expected = theirs(hear(pair, waveform)["input_features"]).last_hidden_state
            found = pair.lab.model.encoder(*native_features(pair, waveform))
            logits = theirs.out(expected[..., -pair.lab.config.encoder.hidden_dim :])
        assert expected.shape[-1] == width
        assert relative_error(found.frames[:, :frames], expected) < TOLERANCE
        assert not found.frames[:, frames:].any()
        assert relative_error(found.ctc_logits[:, :frames], logits) < TOLERANCE


def test_projector_makes_the_same_embeddings_of_the_recording(pair: Pair) -> None:
    for frames in FRAMES:
        waveform = clip_of(frames)
        with torch.inference_mode():
            heard = hear(pair, waveform)["input_features"]
            expected = pair.reference.get_audio_features(heard).pooler_output
            found = pair.lab.model.embed_audio(*native_features(pair, waveform)).embeddings
        places = pair.lab.model.num_audio_tokens(frames)
        assert relative_error(found[:, :places], expected) < TOLERANCE


def test_logits_and_greedy_tokens(pair: Pair) -> None:
    settings = GenerationOptions(max_new_tokens=16)
    for frames in FRAMES:
        waveform = clip_of(frames)
        check_prefill(pair, waveform)
        ids = prompt_for(pair, waveform)
        expected = reference_tokens(pair, waveform, ids, max_new_tokens=16)
        assert native_tokens(pair, waveform, ids, settings, end=None) == expected
        assert len(expected) == 16


def test_a_batch_is_its_clips(pair: Pair) -> None:
    clips = [clip_of(frames) for frames in FRAMES]
    prompts, lab = [prompt_for(pair, clip) for clip in clips], pair.lab
    settings = GenerationOptions(max_new_tokens=16)
    together = lab.generate_ids(prompts, clips, options=settings)
    for ids, clip, row in zip(prompts, clips, together, strict=True):
        (alone,) = lab.generate_ids([ids], [clip], options=settings)
        assert row.ids == alone.ids


def test_an_empty_list_is_the_model_without_it(tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "plus", raw_plus_config([], decoder=ENDLESS))
    raw = {**raw_plus_config([], decoder=ENDLESS), "model_type": "granite_speech"}
    plain, waveform = make_pair(tmp_path / "plain", raw), clip_of(23)
    with torch.inference_mode():
        found = pair.lab.model.embed_audio(*native_features(pair, waveform)).embeddings
        expected = plain.lab.model.embed_audio(*native_features(plain, waveform)).embeddings
    assert torch.equal(found, expected)
