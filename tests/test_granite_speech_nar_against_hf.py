"""granite_speech_nar against an oracle of transformers' parts, float32, on random tiny models.

Run alone: ``python -m pytest tests/test_granite_speech_nar_against_hf.py``.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from core.model.features import pad_features
from core.model.granite_speech_nar import GraniteSpeechNar
from core.transcription.editor_stages import eager_editor
from granite_speech_nar import (
    Oracle,
    as_first_release,
    oracle_collapse,
    random_nar_model,
    raw_nar_config,
)
from reference import relative_error

pytestmark = pytest.mark.oracle

TOLERANCE = 1e-4
FRAMES = (5, 14, 15, 16, 31)
TOKENS = (0, 1, 3, 4, 9)
LAYOUTS = {
    "today": raw_nar_config(),
    "today, other numbers": raw_nar_config(
        model={"encoder_layer_indices": [0, 3, 4], "min_edit_sequence_length": 5},
        encoder={"self_conditioning_layer": 3, "bpe_pooling_window": 3, "context_size": 6},
        projector={"block_size": 8, "downsample_rate": 4, "num_layers": 1, "mlp_ratio": 3},
        text={"num_key_value_heads": 4, "logits_scaling": 3.0, "residual_multiplier": 0.4},
    ),
    "first release": as_first_release(raw_nar_config()),
}


@pytest.fixture(scope="module", params=LAYOUTS, ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[Oracle, GraniteSpeechNar]:
    raw = LAYOUTS[request.param]
    model = random_nar_model(raw)
    return Oracle(raw, model), model


def features_of(frames: int) -> Tensor:
    return torch.randn(frames, 160, generator=torch.Generator().manual_seed(frames))


def slots_of(model: GraniteSpeechNar, num_tokens: int) -> list[int]:
    generator = torch.Generator().manual_seed(num_tokens)
    return model.config.slots(torch.randint(0, 50, (num_tokens,), generator=generator).tolist())


def run_parts(model: GraniteSpeechNar, *clips: Tensor) -> Any:
    batch = pad_features(list(clips))
    encoded = model.encoder(batch.values, torch.tensor(batch.lengths))
    return eager_editor(model), encoded, list(batch.lengths)


@torch.inference_mode()
def test_states_drafts_and_audio_rows(pair: tuple[Oracle, GraniteSpeechNar]) -> None:
    oracle, model = pair
    for frames in FRAMES:
        states, blank = oracle.encode(features_of(frames))
        stages, encoded, lengths = run_parts(model, features_of(frames))
        assert relative_error(encoded.frames[0], torch.cat(states, -1)) < TOLERANCE
        expected = oracle.draft(states[-1], blank)
        found = stages.draft(encoded, lengths)
        assert torch.equal(found.labels[0], expected.argmax(-1))
        best = expected.log_softmax(-1).max(-1).values
        assert relative_error(found.logprobs[0], best) < TOLERANCE
        audio = oracle.project(states)
        rows = frames // model.config.projector.downsample_rate
        assert len(audio) == rows
        assert relative_error(stages.project(encoded.frames, lengths)[0, :rows], audio) < TOLERANCE


@torch.inference_mode()
def test_logits_of_every_slot_and_the_collapsed_text(
    pair: tuple[Oracle, GraniteSpeechNar],
) -> None:
    oracle, model = pair
    for frames in FRAMES:
        audio = oracle.project(oracle.encode(features_of(frames))[0])
        for num_tokens in TOKENS:
            slots = slots_of(model, num_tokens)
            expected = oracle.edit(audio, slots)
            counts = torch.tensor([len(audio)]), torch.tensor([len(slots)])
            found = model.edit(audio[None], torch.tensor([slots]), *counts)
            assert relative_error(found[0], expected) < TOLERANCE
            blank = model.config.blank_token_id
            mine = oracle_collapse(found[0].argmax(-1), blank)
            assert mine == oracle_collapse(expected.argmax(-1), blank)


@torch.inference_mode()
def test_a_causal_mask_would_be_caught(pair: tuple[Oracle, GraniteSpeechNar]) -> None:
    oracle, model = pair
    mistaken = Oracle(oracle.raw, model, causal=True)
    audio = oracle.project(oracle.encode(features_of(31))[0])
    slots = slots_of(model, 9)
    right, wrong = oracle.edit(audio, slots), mistaken.edit(audio, slots)
    assert relative_error(wrong, right) > 100 * TOLERANCE


@torch.inference_mode()
def test_a_batch_is_the_oracles_single_clips(pair: tuple[Oracle, GraniteSpeechNar]) -> None:
    oracle, model = pair
    stages, encoded, lengths = run_parts(model, *map(features_of, FRAMES))
    drafts, audio = stages.draft(encoded, lengths), stages.project(encoded.frames, lengths)
    slots = [slots_of(model, count) for count in TOKENS]
    num_audio = [frames // model.config.projector.downsample_rate for frames in FRAMES]
    edited = stages.edit(audio, num_audio, slots)
    for row, frames in enumerate(FRAMES):
        states, blank = oracle.encode(features_of(frames))
        expected = oracle.draft(states[-1], blank)
        assert torch.equal(drafts.labels[row, : len(expected)], expected.argmax(-1))
        alone = oracle.project(states)
        assert relative_error(audio[row, : len(alone)], alone) < TOLERANCE
        expected = oracle.edit(alone, slots[row])
        assert torch.equal(edited.labels[row, : len(expected)], expected.argmax(-1))
        best = expected.log_softmax(-1).max(-1).values
        assert relative_error(edited.logprobs[row, : len(best)], best) < TOLERANCE
