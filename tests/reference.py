"""The reference: transformers' models of granite_speech and its plus, tiny and random, with peft.

In: a config.json as a dict. Out: a :class:`Pair`: the reference, and the same weights loaded by
``core.load`` from the folder that transformers' ``save_pretrained`` wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import core
import tiny_models
from core.lab import Lab
from oracle import peft, transformers


@dataclass(frozen=True)
class Pair:
    """One set of weights in both implementations, and the reference's feature extractor."""

    reference: transformers.PreTrainedModel
    extractor: transformers.GraniteSpeechFeatureExtractor
    lab: Lab
    folder: Path


def make_reference(raw: dict[str, Any], *, seed: int = 1) -> transformers.PreTrainedModel:
    kind = {"granite_speech": "", "granite_speech_plus": "Plus"}[raw["model_type"]]
    config = getattr(transformers, f"GraniteSpeech{kind}Config")(**raw)
    build = getattr(transformers, f"GraniteSpeech{kind}ForConditionalGeneration")
    reference = build(config)
    reference.eval().requires_grad_(False)
    tiny_models.randomise(reference, seed)
    reference.tie_weights()
    return reference


def make_pair(
    folder: Path,
    raw: dict[str, Any],
    *,
    seed: int = 1,
    adapter: dict[str, Any] | None = None,
) -> Pair:
    """Save with transformers, load with ``core.load``; ``adapter`` is peft's LoraConfig, if any.

    ``save_pretrained`` after ``add_adapter`` would write ``base_layer`` names that transformers
    itself cannot read back, so the base is saved first and the adapter's files are put beside it.
    """
    reference = make_reference(raw, seed=seed)
    reference.save_pretrained(folder)
    if adapter is not None:
        reference.add_adapter(peft.LoraConfig(**{**adapter, "init_lora_weights": False}))
        randomise_adapter(reference, seed + 1)
        transformers.PreTrainedModel.save_pretrained(reference, folder / "with_adapter")
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / "with_adapter" / name).rename(folder / name)
    scaling = undivided_scaling(reference)
    reference.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits / scaling)
    extractor = transformers.GraniteSpeechFeatureExtractor(
        projector_window_size=raw["window_size"], projector_downsample_rate=raw["downsample_rate"]
    )
    return Pair(reference, extractor, core.load(folder, device="cpu", dtype="float32"), folder)


@torch.no_grad()
def randomise_adapter(reference: transformers.PreTrainedModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in reference.named_parameters():
        if "lora_" in name:
            fan_in = parameter[0].numel()
            parameter.normal_(generator=generator).mul_(fan_in**-0.5)


@torch.inference_mode()
def undivided_scaling(reference: transformers.PreTrainedModel) -> float:
    """By how much its logits are too large: ``logits_scaling`` if it does not divide, else 1."""
    ids = torch.arange(1, 6)[None]
    hidden = reference.model(input_ids=ids).last_hidden_state
    ratio = (reference.lm_head(hidden) / reference(input_ids=ids).logits).median().item()
    return reference.config.text_config.logits_scaling / ratio


def hear(pair: Pair, waveform: Tensor) -> dict[str, Tensor]:
    """The reference's features of one clip, as the keywords of its ``forward`` and ``generate``."""
    found = pair.extractor(waveform)
    return {key: found[key] for key in ("input_features", "input_features_mask")}


def prompt_for(pair: Pair, waveform: Tensor) -> list[int]:
    """A few text tokens, the clip's audio positions as the reference counts them, more text."""
    places = int(pair.extractor(waveform)["audio_embed_sizes"][0])
    return [5, 6, 7, *[pair.lab.config.audio_token_id] * places, 8, 9, 10]


@contextmanager
def adapters(reference: transformers.PreTrainedModel, on: bool) -> Iterator[None]:
    """Adapters on or off. ``generate`` enables them for audio by itself: kept from it where off."""
    enable = reference.enable_adapters
    (enable if on else reference.disable_adapters)()
    reference.enable_adapters = enable if on else reference.disable_adapters
    try:
        yield
    finally:
        del reference.enable_adapters
        enable()


def reference_tokens(pair: Pair, waveform: Tensor, ids: list[int], **settings: Any) -> list[int]:
    """New tokens of the reference's ``generate``, without the end token; greedy unless told."""
    defaults = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "num_beams": 1}
    settings = {**defaults, **settings}
    out = pair.reference.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        **hear(pair, waveform),
        **settings,
    )
    new = out[0, len(ids) :].tolist()
    end = settings["eos_token_id"]
    return new[: new.index(end)] if end in new else new


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute value expected."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return ((found - expected).abs().max() / expected.abs().max()).item()
