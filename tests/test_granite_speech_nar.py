"""granite_speech_nar by itself: config of both layouts, stored tensors, mask, slots, front end.

The checkpoints are random and made on the spot. Run alone:
``python -m pytest tests/test_granite_speech_nar.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import core
from core.checkpoint.catalog import CATALOG
from core.checkpoint.config_granite_speech_nar import parse_granite_speech_nar
from core.checkpoint.key_map import to_stored
from core.checkpoint.weights import CheckpointError
from core.model.config import ConfigError
from core.model.features import FeatureConfig, LogMel, WholeStepsLogMel
from core.model.granite_speech_nar import GraniteSpeechNar
from granite_speech_nar import (
    PUBLISHED,
    as_first_release,
    random_nar_model,
    raw_nar_config,
    write_nar_folder,
)

NAME = "granite-speech-4.1-2b-nar"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nar_folder(tmp_path_factory.mktemp("nar"))


# The published checkpoint, as far as its config.json says.


def test_the_published_dimensions_give_the_published_tensors() -> None:
    with torch.device("meta"):
        model = GraniteSpeechNar(parse_granite_speech_nar(PUBLISHED, "published"))
    stored = to_stored(model.to(torch.bfloat16).state_dict())
    kinds = [tensor.dtype for tensor in stored.values()]
    assert (kinds.count(torch.bfloat16), kinds.count(torch.int64)) == (930, 16)
    for name, shape in PUBLISHED_SHAPES.items():
        assert stored[name].shape == shape, name
    groups = {name.split(".")[0] for name in stored}
    assert groups == {"encoder", "projector", "language_model"}
    assert "language_model.lm_head.weight" not in stored
    entry = CATALOG[NAME]
    assert entry.parameters == sum(p.numel() for p in model.parameters()) == NUM_PARAMETERS
    assert entry.size_bytes == pytest.approx(2 * NUM_PARAMETERS, rel=0.01)


NUM_PARAMETERS = 2_254_569_820
AT = "projector.qformer.layers.1"
PUBLISHED_SHAPES: dict[str, tuple[int, ...]] = {
    "encoder.out_bpe.weight": (100_352, 1024),
    "encoder.out_bpe.bias": (100_352,),
    "encoder.out.weight": (348, 1024),
    "encoder.layers.15.conv.up_conv.weight": (4096, 1024, 1),
    **{f"projector.layer_norms.{n}.weight": (1024,) for n in range(4)},
    "projector.layer_projector.weight": (2048, 4096),
    "projector.query": (1, 3, 2048),
    "projector.window_positions": (1, 15, 2048),
    **{f"{AT}.{part}_norm.bias": (2048,) for part in ("attn", "mlp")},
    **{f"{AT}.cross_attention.{part}_proj.weight": (2048, 2048) for part in "qkvo"},
    **{f"{AT}.cross_attention.{part}_proj.bias": (2048,) for part in "qkvo"},
    f"{AT}.mlp.fc1.weight": (4096, 2048),
    f"{AT}.mlp.fc2.weight": (2048, 4096),
    f"{AT}.mlp.fc2.bias": (2048,),
    "projector.out_norm.weight": (2048,),
    "projector.out_linear.bias": (2048,),
    "language_model.model.embed_tokens.weight": (100_352, 2048),
    "language_model.model.layers.39.self_attn.k_proj.weight": (512, 2048),
}


def test_a_checkpoint_is_read_strictly_by_its_stored_names(folder: Path, tmp_path: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    found = to_stored(core.load(folder, device="cpu").model.state_dict())
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    del stored["encoder.out_bpe.bias"]
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="1 tensors are missing .first: 'encoder.out_bpe"):
        core.load(tmp_path, device="cpu")


# config.json.


def failure(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_granite_speech_nar(raw, "here/config.json")
    message = str(caught.value)
    assert message.startswith("here/config.json: ")
    assert "\n" not in message
    return message


def test_both_layouts_have_the_same_dimensions_and_differ_as_released() -> None:
    raw = raw_nar_config()
    today, old = (parse_granite_speech_nar(r, "x") for r in (raw, as_first_release(raw)))
    assert (today.encoder, today.projector) == (old.encoder, old.projector)
    assert today.encoder.cat_hidden_layers == (1, 2)
    heads = today.draft_head, old.draft_head
    assert [head.num_labels for head in heads] == [64, 65]
    assert [(head.blank_label, head.token_offset) for head in heads] == [(60, 0), (0, 1)]
    assert (today.blank_token_id, old.blank_token_id) == (60, 60)
    assert (today.min_edit_length, old.min_edit_length) == (8, 8)
    assert (today.decoder.logits_scaling, old.decoder.logits_scaling) == (8.0, 1.0)
    assert (today.lower_case_draft, old.lower_case_draft) == (False, True)
    assert (today.whole_steps, old.whole_steps) == (True, False)


def test_a_missing_dimension_is_named() -> None:
    ignored = {"dropout", "pred_dropout", "dropout_prob", "bos_token_id", "pad_token_id"}
    ignored |= {"eos_token_id", "dim_head", "rope_parameters", "hidden_act", "block_size"}
    ignored |= {"tie_word_embeddings", "num_key_value_heads"}
    for part in ("encoder", "projector", "text"):
        for key in set(raw_nar_config()[f"{part}_config"]) - ignored:
            raw = raw_nar_config()
            del raw[f"{part}_config"][key]
            assert f"has no {key!r}" in failure(raw)
    for key in ("encoder_layer_indices", "scale_projected_embeddings", "blank_token_id"):
        raw = raw_nar_config()
        del raw[key]
        assert f"model has no {key!r}" in failure(raw)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("model", {"encoder_layer_indices": [2, 1, -1]}, r"\[2, 1, -1\]; expected rising"),
        ("model", {"encoder_layer_indices": [1, 2]}, "the last of them 4 or -1"),
        ("model", {"encoder_layer_indices": ["1"]}, "expected a valid integer"),
        ("model", {"model_type": "nle"}, "model_type is 'nle'; expected 'granite_speech_nar'"),
        ("model", {"llm_config": {}}, "expected 'nle' for a file with llm_config"),
        ("model", {"blank_token_id": 64}, "blank_token_id 64 is outside"),
        ("encoder", {"pooling_window": 4}, "proposed for transformers"),
        ("encoder", {"self_conditioning_layer": 5}, "self_conditioning_layer is 5; expected at"),
        ("encoder", {"bpe_output_dim": 65}, "bpe_output_dim is 65; expected 64"),
        ("encoder", {"context_size": 33}, "context_size 33 exceeds"),
        ("projector", {"num_encoder_layers": 4}, "4 states of width 32, the encoder keeps 3 of 32"),
        ("projector", {"downsample_rate": 4}, "block_size 15 is not a multiple"),
        ("projector", {"num_heads": 5}, "64 does not divide into 5"),
        ("projector", {"llm_dim": 16}, "llm_dim is 16; expected 32"),
        ("text", {"max_position_embeddings": 20}, "is 20; expected at least 64"),
        ("text", {"num_key_value_heads": 3}, "do not share 3"),
    ],
)
def test_values_that_do_not_fit_together_are_named(
    part: str, change: dict[str, Any], said: str
) -> None:
    assert re.search(said, failure(raw_nar_config(**{part: change})))
    raw = raw_nar_config()
    del raw["projector_config"]["block_size"]
    assert "no projector_config.block_size" in failure(raw)


# The model.


@torch.inference_mode()
def test_the_first_audio_row_sees_the_last_slot() -> None:
    model, audio = random_nar_model(), torch.randn(1, 3, 32)
    slots = torch.tensor([model.config.slots([7, 8, 9, 10])])
    changed = slots.clone()
    changed[0, -1] = 3

    def first_audio_row(ids: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = model.decoder.norm.register_forward_hook(lambda *found: seen.append(found[2]))
        model.edit(audio, ids, torch.tensor([3]), torch.tensor([ids.shape[1]]))
        hook.remove()
        return seen[0][0, 0]

    def causal(ids: Tensor) -> Tensor:
        embeddings = torch.cat([audio, model.decoder.embed_tokens(ids)], 1)
        return model.decoder(embeddings, torch.arange(embeddings.shape[1])[None])[0, 0]

    assert (first_audio_row(slots) - first_audio_row(changed)).abs().max() > 1e-3
    assert torch.equal(causal(slots), causal(changed))


def test_what_lies_in_the_padding_of_slots_and_audio_is_never_read() -> None:
    model, counts = random_nar_model(), (torch.tensor([3]), torch.tensor([9]))
    audio, slots = torch.randn(1, 6, 32), torch.randint(0, 64, (1, 14))
    with torch.inference_mode():
        clean = model.edit(audio[:, :3], slots[:, :9], *counts)
        dirty = model.edit(audio, slots, *counts)
    torch.testing.assert_close(clean, dirty[:, :9], rtol=1e-4, atol=1e-5)


def test_a_text_lies_among_blanks_and_short_ones_are_filled_up() -> None:
    config = random_nar_model().config
    assert config.slots([]) == [60] * 8
    assert config.slots([1, 2, 3]) == [60, 1, 60, 2, 60, 3, 60, 60]
    assert config.slots([1, 2, 3, 4]) == [60, 1, 60, 2, 60, 3, 60, 4, 60]


@pytest.mark.parametrize(
    ("samples", "frames", "plain"),
    [(160_000, 500, 500), (159_999, 499, 500), (160_160, 500, 501), (320, 1, 1), (639, 1, 2)],
)
def test_the_front_end_drops_the_centred_frame_before_the_maximum_is_taken(
    samples: int, frames: int, plain: int
) -> None:
    config = FeatureConfig(16_000, 512, 400, 160, 80)
    quiet = 1e-4 * torch.randn(samples)
    quiet[-40:] = 1.0  # loudest in the frame that is left out
    found, other = WholeStepsLogMel(config)(quiet), LogMel(config)(quiet)
    assert found.shape == (frames, 160)
    assert other.shape == (plain, 160)
    mel = LogMel(config).mel(quiet).T[: 2 * frames].clamp(min=1e-10).log10()
    expected = torch.maximum(mel, mel.max() - 8) / 4 + 1
    torch.testing.assert_close(found, expected.reshape(frames, 160))


# The whole path.
