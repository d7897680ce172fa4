"""Adapters: attached by name, switched by a tensor, merged and unmerged.

Run alone: ``python -m pytest tests/test_lora.py``.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import core
import tiny_models
from core.generation.sampling import GenerationOptions
from core.model.lora import (
    AdaptableLinear,
    LoRAWeights,
    adapted_layers,
    has_adapter,
    is_merged,
    merge,
    switch,
    unmerge,
)


def adapted_linear(dtype: torch.dtype = torch.float32) -> AdaptableLinear:
    layer = AdaptableLinear(6, 5).to(dtype).requires_grad_(False)
    layer.attach(LoRAWeights(torch.randn(2, 6), torch.randn(5, 2), scaling=0.5))
    return layer


def test_the_update_is_scaling_times_b_times_a():
    layer, x = adapted_linear(), torch.randn(3, 4, 6)
    update = 0.5 * x @ layer.lora_a.T @ layer.lora_b.T
    on = layer(x, switch([True] * 3, like=x))
    torch.testing.assert_close(on, torch.nn.functional.linear(x, layer.weight, layer.bias) + update)


def test_off_is_the_base_layer_bit_for_bit():
    layer, x = adapted_linear(), torch.randn(3, 4, 6)
    base = torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x, None), base)
    assert torch.equal(layer(x, switch([False] * 3, like=x)), base)


def test_rows_of_one_batch_may_differ():
    layer, x = adapted_linear(), torch.randn(1, 4, 6).repeat(2, 1, 1)
    both = layer(x, switch([True, False], like=x))
    torch.testing.assert_close(both[:1], layer(x[:1], switch([True], like=x)))
    torch.testing.assert_close(both[1:], layer(x[1:], None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_restores_every_bit(dtype: torch.dtype):
    layer = adapted_linear(dtype)
    before = layer.weight.clone()
    for _ in range(3):
        layer.merge()
        assert not torch.equal(layer.weight, before)
        layer.unmerge()
        assert torch.equal(layer.weight, before)


def test_merging_twice_is_merging_once():
    layer, x = adapted_linear(), torch.randn(1, 4, 6)
    on = layer(x, switch([True], like=x))
    layer.merge()
    layer.merge()
    torch.testing.assert_close(layer(x, None), on)
    layer.unmerge()
    assert not layer.is_merged


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(2, 7\).*\(5, 2\).*\(2, 6\)"):
        AdaptableLinear(6, 5).attach(LoRAWeights(torch.zeros(2, 7), torch.zeros(5, 2), 1.0))
    with pytest.raises(ValueError, match="do not fit"):
        AdaptableLinear(6, 5).attach(LoRAWeights(torch.zeros(2, 6), torch.zeros(5, 3), 1.0))


def test_a_whole_model_merged_and_unmerged(tmp_path: Path):
    model = tiny_models.random_model()
    tiny_models.write_adapter(tmp_path, model)
    assert tiny_models.attach_adapter(model, tmp_path) == 4
    assert [name for name, _ in adapted_layers(model)] == [
        f"decoder.layers.{number}.self_attn.{name}"
        for number in range(2)
        for name in ("q_proj", "v_proj")
    ]
    assert has_adapter(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merge(model)
    assert is_merged(model)
    unmerge(model)
    assert not is_merged(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def without_adapter(tmp_path: Path, tokenizer_file: Path) -> core.Lab:
    """A checkpoint made for an adapter that is not there."""
    raw = tiny_models.raw_config()
    tiny_models.write_checkpoint(tmp_path, raw, tiny_models.random_model(raw, seed=1))
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    return core.load(tmp_path, device="cpu", dtype="float32")


def test_lora_asked_for_without_an_adapter_is_an_error(
    without_adapter: core.Lab, noise: Callable[..., Tensor]
):
    for lora in (True, None):  # None: the model is made for one, so silence would be a wrong answer
        with pytest.raises(ValueError, match="has no adapter_model.safetensors"):
            without_adapter.transcribe(noise(1.0), lora=lora)


def test_without_an_adapter_everything_else_still_works(
    without_adapter: core.Lab, lab: core.Lab, noise: Callable[..., Tensor]
):
    options = {"lora": False, "max_new_tokens": 12}
    found = without_adapter.transcribe(noise(1.0), **options)
    assert found.token_ids == lab.transcribe(noise(1.0), **options).token_ids
    assert without_adapter.chat("hello", max_new_tokens=8) == lab.chat("hello", max_new_tokens=8)
    few = GenerationOptions(max_new_tokens=8)
    rows = [each.generate_ids([[1, 2, 3]], options=few)[0] for each in (without_adapter, lab)]
    assert rows[0].ids == rows[1].ids


def test_loading_warns_of_a_missing_adapter(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    raw = tiny_models.raw_config()
    tiny_models.write_checkpoint(tmp_path, raw, tiny_models.random_model(raw))
    core.load(tmp_path, device="cpu")
    assert "only LoRA off will work" in caplog.text
    caplog.clear()
    (tmp_path / "config.json").write_text(json.dumps(raw | {"has_lora_adapter": False}))
    core.load(tmp_path, device="cpu")
    assert not caplog.text


def test_a_merged_adapter_cannot_be_turned_off(speech_folder: Path, noise: Callable[..., Tensor]):
    lab = core.load(speech_folder, device="cpu", dtype="float32")
    on = lab.transcribe(noise(1.0), max_new_tokens=12)
    lab.merge_adapter()
    assert lab.transcribe(noise(1.0), max_new_tokens=12).token_ids == on.token_ids
    with pytest.raises(ValueError, match="unmerge"):
        lab.transcribe(noise(1.0), lora=False)
    with pytest.raises(ValueError, match="unmerge"):
        lab.chat("hello")
    lab.unmerge_adapter()
    off = lab.transcribe(noise(1.0), lora=False, max_new_tokens=12)
    assert off.token_ids != on.token_ids
