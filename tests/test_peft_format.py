"""Adapter files as PEFT writes them: what is taken, and what is refused by name.

Run alone: ``python -m pytest tests/test_peft_format.py``.
"""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny_models
from core.checkpoint.name_patterns import NamePatterns
from core.checkpoint.safetensors_io import CheckpointError
from core.model.granite_speech import GraniteSpeech
from core.model.lora import (
    adapted_layers,
    has_adapter,
)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> GraniteSpeech:
    """A model, with an adapter for it in ``tmp_path``, not yet attached."""
    model = tiny_models.random_model()
    tiny_models.write_adapter(tmp_path, model)
    return model


def attach(model: GraniteSpeech, folder: Path) -> int:
    return tiny_models.attach_adapter(model, folder)


def change_settings(folder: Path, **settings: Any) -> None:
    raw = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**raw, **settings}))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / "new")
    (folder / "new").replace(folder / WEIGHTS)


@pytest.mark.parametrize(
    "prefix",
    [
        "base_model.model.model.language_model.layers.",  # transformers 5
        "base_model.model.language_model.model.layers.",  # before
        "model.language_model.layers.",
        "language_model.model.layers.",
    ],
)
def test_names_written_by_any_transformers_are_accepted(
    prefix: str, model: GraniteSpeech, tmp_path: Path
):
    expected = load_file(tmp_path / WEIGHTS)
    old = "base_model.model.model.language_model.layers."
    change_weights(tmp_path, lambda w: {k.replace(old, prefix): t for k, t in w.items()})
    assert attach(model, tmp_path) == 4
    layer = model.decoder.layers[1].self_attn.v_proj
    assert torch.equal(layer.lora_a, expected[f"{old}1.self_attn.v_proj.lora_A.weight"])
    assert layer.lora_scaling == 2.0


def test_names_with_the_adapters_own_name_are_accepted(model: GraniteSpeech, tmp_path: Path):
    change_weights(
        tmp_path, lambda w: {k.replace(".weight", ".default.weight"): t for k, t in w.items()}
    )
    assert attach(model, tmp_path) == 4


def test_scaling_is_alpha_over_rank_or_its_root(model: GraniteSpeech, tmp_path: Path):
    change_settings(tmp_path, lora_alpha=6)
    attach(model, tmp_path)
    assert model.decoder.layers[0].self_attn.q_proj.lora_scaling == 1.5
    change_settings(tmp_path, use_rslora=True)
    model = tiny_models.random_model()
    attach(model, tmp_path)
    assert model.decoder.layers[0].self_attn.q_proj.lora_scaling == 3.0


def test_alpha_patterns_match_whole_ends_of_names_and_the_first_wins(
    model: GraniteSpeech, tmp_path: Path
):
    patterns = {
        r"layers\.1\.self_attn\.q_proj": 20,
        "q_proj": 12,
        "proj": 400,  # ends no name at a dot
        "model.language_model.layers.0.self_attn.v_proj": 28,
    }
    change_settings(tmp_path, alpha_pattern=patterns)
    attach(model, tmp_path)
    found = {name: layer.lora_scaling for name, layer in adapted_layers(model)}
    assert list(found.values()) == [3.0, 7.0, 5.0, 2.0]  # 0.q, 0.v, 1.q, 1.v; rank 4


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"peft_type": "IA3"},
        {"peft_type": "PROMPT_TUNING"},
        {"fan_in_fan_out": True},
        {"modules_to_save": ["lm_head"]},
        {"layer_replication": [[0, 2]]},
        {"bias": "all"},
        {"lora_bias": True},
        {"use_qalora": True},
        # Activated LoRA: on only after these tokens, which a plain adapter would ignore.
        {"alora_invocation_tokens": [1, 2]},
        {"target_parameters": ["mlp.experts"]},
        {"trainable_token_indices": [5]},
        # Training with these took a part out of the base weights, or adds one.
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "OLoRA"},
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "loftq"},
        {"init_lora_weights": "lora_ga"},
        {"init_lora_weights": "of next year"},
        {"kasa_config": {"beta": 1}},
        {"use_something_new": True},
    ],
    ids=lambda settings: "-".join(map(str, next(iter(settings.items())))),
)
def test_other_kinds_of_adapter_are_refused_by_name(
    settings: dict[str, Any], model: GraniteSpeech, tmp_path: Path
):
    change_settings(tmp_path, **settings)
    with pytest.raises(CheckpointError, match="not supported") as caught:
        attach(model, tmp_path)
    key, value = next(iter(settings.items()))
    expected = value if key == "peft_type" else ("trained biases" if key == "bias" else key)
    assert expected in str(caught.value)
    assert not has_adapter(model)


def test_what_only_training_reads_is_no_reason_to_refuse(model: GraniteSpeech, tmp_path: Path):
    plain = {name: None for name in ("alora_invocation_tokens", "arrow_config", "use_bdlora")}
    used = {"exclude_modules": ["k_proj"], "lora_dropout": 0.1, "layers_to_transform": [0, 1]}
    for begun in (True, False, "gaussian", "orthogonal", "eva", "mica"):
        change_settings(tmp_path, **plain, **used, init_lora_weights=begun, use_dora=False)
        assert attach(model, tmp_path) == 4


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lora_alpha": float("nan")}, "lora_alpha is nan; expected a finite number"),
        ({"lora_alpha": 0}, "lora_alpha is 0; expected greater than 0"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'; expected a valid number"),
        ({"r": 7}, "expected two matrices of rank 7"),
        ({"rank_pattern": {"layers.1.self_attn.q_proj": 9}}, "layers.1.*rank 9"),
        ({"alpha_pattern": {"q_proj": float("inf")}}, "alpha_pattern.q_proj is inf"),
        ({"alpha_pattern": {"(?=a)q": 2}}, "look-ahead.*expected module names"),
        ({"alpha_pattern": {"(q": 2}}, "unclosed group"),
        ({"alpha_pattern": {"(a{99}){99}": 2}}, "no counted repetition"),
        ({"alpha_pattern": {f"[a{n}]": 2 for n in range(99)}}, "99 regular expressions"),
        ({"modules_to_save": "projector"}, "modules_to_save is 'projector'; expected a valid list"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(
    settings: dict[str, Any], told: str, model: GraniteSpeech, tmp_path: Path
):
    change_settings(tmp_path, **settings)
    with pytest.raises(CheckpointError, match=told):
        attach(model, tmp_path)


def test_a_pattern_that_would_backtrack_for_ever_is_matched_at_once(
    model: GraniteSpeech, tmp_path: Path
):
    begin = time.perf_counter()
    patterns = {r"(\w+\s?)+\d\d": 400, r"[qv]_proj": 8}
    change_settings(tmp_path, alpha_pattern=patterns, lora_alpha=1)
    assert attach(model, tmp_path) == 4
    assert {layer.lora_scaling for _, layer in adapted_layers(model)} == {2.0}
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    "pattern", ["q_proj", "proj", ".", r".*\.0\.self_attn\.q_proj", "0.*q_proj"]
)
@pytest.mark.parametrize(
    "name", ["a.layers.0.self_attn.q_proj", "q_proj", "a.0.b.v_proj", "xq_proj"]
)
def test_patterns_mean_what_they_mean_to_peft(pattern: str, name: str):
    found = NamePatterns({pattern: 3}, "alpha_pattern").value(name, 1)
    assert found == (3 if re.match(rf"(.*\.)?({pattern})$", name) else 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(
    value: float, model: GraniteSpeech, tmp_path: Path
):
    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors[sorted(tensors)[1]][0, 0] = value
        return tensors

    change_weights(tmp_path, spoil)
    with pytest.raises(CheckpointError, match=r"q_proj.lora_B.weight' holds NaN or infinity"):
        attach(model, tmp_path)


def test_integers_in_place_of_weights_are_refused(model: GraniteSpeech, tmp_path: Path):
    change_weights(tmp_path, lambda w: {k: t.half().view(torch.int16) for k, t in w.items()})
    with pytest.raises(CheckpointError, match="is torch.int16; expected float32, bfloat16 or"):
        attach(model, tmp_path)


def test_two_adapters_in_one_file_are_refused(model: GraniteSpeech, tmp_path: Path):
    change_weights(
        tmp_path, lambda w: w | {k.replace(".weight", ".b.weight"): t + 1 for k, t in w.items()}
    )
    with pytest.raises(CheckpointError, match="under two names"):
        attach(model, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("q_proj.lora", "x_proj.lora", "x_proj"),
        ("layers.1.", "layers.7.", "layers.7"),
        (".lora_A.weight", ".lora_E.weight", "is not a LoRA tensor"),
        ("self_attn.q_proj.lora", "input_layernorm.lora", "not a linear layer"),
        ("lora_A", "lora_magnitude_vector", "is not a LoRA tensor"),
    ],
)
def test_adapters_of_another_model_are_refused(
    old: str, new: str, told: str, model: GraniteSpeech, tmp_path: Path
):
    change_weights(tmp_path, lambda w: {k.replace(old, new): t for k, t in w.items()})
    with pytest.raises(CheckpointError, match=told):
        attach(model, tmp_path)


def test_half_an_adapter_is_refused(model: GraniteSpeech, tmp_path: Path):
    change_weights(
        tmp_path, lambda w: {k: t for k, t in w.items() if "1.self_attn.v_proj.lora_B" not in k}
    )
    with pytest.raises(CheckpointError, match="layers.1.self_attn.v_proj.*both halves"):
        attach(model, tmp_path)


def test_an_adapter_without_tensors_is_refused(model: GraniteSpeech, tmp_path: Path):
    change_weights(tmp_path, lambda w: {})
    with pytest.raises(CheckpointError, match="no LoRA tensors"):
        attach(model, tmp_path)


def test_an_adapter_of_another_width_is_refused(tmp_path: Path):
    wide = tiny_models.random_model(tiny_models.raw_config(decoder={"hidden_size": 64}))
    tiny_models.write_adapter(tmp_path, wide)
    with pytest.raises(CheckpointError, match=r"adapter shapes \(4, 64\)"):
        attach(tiny_models.random_model(), tmp_path)


def test_ranks_that_differ_between_the_halves_are_refused(model: GraniteSpeech, tmp_path: Path):
    change_weights(tmp_path, lambda w: {k: t[:3] if "lora_A" in k else t for k, t in w.items()})
    with pytest.raises(CheckpointError, match="two matrices of rank 4"):
        attach(model, tmp_path)


@pytest.mark.parametrize("damage", ["weights", "settings", "list"])
def test_damaged_adapter_files_are_told_as_such(damage: str, model: GraniteSpeech, tmp_path: Path):
    if damage == "weights":
        (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:100])
    else:
        (tmp_path / CONFIG).write_text("{" if damage == "settings" else "[]")
    told = "cannot be read as safetensors" if damage == "weights" else "adapter_config.json: not"
    with pytest.raises(CheckpointError, match=told):
        attach(model, tmp_path)


def test_adapters_take_the_models_dtype(model: GraniteSpeech, tmp_path: Path):
    model = model.bfloat16()
    attach(model, tmp_path)
    assert model.decoder.layers[0].self_attn.q_proj.lora_a.dtype == torch.bfloat16
