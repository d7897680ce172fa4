"""An adapter on disk, in PEFT's format -> its tensors by our names.

In: ``adapter_config.json`` and ``adapter_model.safetensors``, and the model they are made for. Out:
:class:`AdapterWeights`: low-rank updates of linear layers and, where the adapter says so
(``modules_to_save``), whole tensors that it was trained with: of the encoder, the projector, or
the decoder's table of tokens and head.
Names written before and after transformers 5 are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.checkpoint import records, schema
from core.checkpoint.key_map import POINTWISE, native_name
from core.checkpoint.name_patterns import NamePatterns
from core.checkpoint.safetensors_io import (
    CheckpointError,
    open_safetensors,
    read_settings,
    refuse_non_finite,
)
from core.checkpoint.schema import shorten
from core.model.granite_speech import GraniteSpeech
from core.model.lora import AdaptableLinear, LoRAWeights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TABLE, HEAD = "decoder.embed_tokens.", "decoder.lm_head."
WHOLE_PARTS = ("encoder.", "projector.", TABLE, HEAD)  # what an adapter may bring whole

_LORA_KEY = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.\w+)?\.weight$")
_PREFIX = re.compile(r"^base_model\.model\.")
_LONGEST_NAME = 300
_PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# Ways to begin training that leave the base weights as they are; the others (PiSSA, OLoRA, CorDA,
# LoftQ, LoRA-GA) take their part out of them, so that the adapter is one of other base weights.
_HARMLESS_INITS = ("gaussian", "orthogonal", "eva", "mica")
# Settings of PEFT's that what is stored already reflects, or that only training reads. Any other
# one that is set changes what an adapter computes, and is refused.
_READ = frozenset(records.Adapter.model_fields)
_HARMLESS = {
    *("auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules"),
    *("inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout"),
    *("megatron_config", "megatron_core", "peft_version", "qalora_group_size", "revision"),
    *("runtime_config", "target_modules", "task_type"),
}


@dataclass(frozen=True)
class AdapterWeights:
    """lora: layer -> its update; whole: tensor -> its value, both by our names."""

    lora: Mapping[str, LoRAWeights]
    whole: Mapping[str, Tensor] = field(default_factory=dict)


def adapter_files(folder: Path) -> tuple[Path, Path]:
    """Find the two files of an adapter folder.

    Returns:
        Its config and its weights.

    Raises:
        CheckpointError: they are not both there.
    """
    files = folder / CONFIG, folder / WEIGHTS
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{folder} has no {file.name}; expected a folder with an adapter in PEFT's format"
            )
    return files


def read_adapter(model: GraniteSpeech, config_file: Path, weights_file: Path) -> AdapterWeights:
    """Read an adapter of ``model`` and check that it fits and can be applied exactly.

    Returns:
        Its tensors by our names.

    Raises:
        CheckpointError: a variant of LoRA that is not supported, or parts that do not exist.
    """
    settings = _read_settings(config_file)
    saved = _modules_to_save(settings)
    halves: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    with open_safetensors(weights_file) as file:
        for key in file.keys():  # noqa: SIM118 - a safetensors handle is no dict
            match = _LORA_KEY.match(key[:_LONGEST_NAME])
            name = native_name(_PREFIX.sub("", key[:_LONGEST_NAME]))
            if len(key) > _LONGEST_NAME or (
                match is None
                and not (name.startswith(WHOLE_PARTS) and name.startswith(tuple(saved.values())))
            ):
                raise CheckpointError(
                    f"{weights_file.name}: {shorten(key)} is not a LoRA tensor; expected plain LoRA"
                )
            known = halves.setdefault(match[1], {}) if match else whole
            name = match[2] if match else name
            if name in known:
                raise CheckpointError(f"{weights_file.name}: {key!r} is there under two names")
            known[name] = _tensor(file, key, weights_file)
    for said, start in saved.items():
        if not any(name.startswith(start) for name in whole):
            raise CheckpointError(
                f"{config_file.name}: 'modules_to_save' with {said!r} is not supported where "
                f"{weights_file.name} has nothing of it; expected plain LoRA, or whole parts of "
                "the encoder, the projector or the table of tokens"
            )
    if not halves and not whole:
        raise CheckpointError(
            f"{weights_file.name} holds no LoRA tensors; expected an adapter of this model"
        )
    lora = _updates(model, settings, halves, weights_file)
    return AdapterWeights(lora, _fitting(model, whole, weights_file))


def _updates(
    model: GraniteSpeech,
    settings: records.Adapter,
    halves: Mapping[str, Mapping[str, Tensor]],
    source: Path,
) -> dict[str, LoRAWeights]:
    """Collect the low-rank updates by layer."""
    modules, found = dict(model.named_modules()), {}
    alphas = NamePatterns(settings.alpha_pattern, "alpha_pattern")
    ranks = NamePatterns(settings.rank_pattern, "rank_pattern")
    for stored, pair in halves.items():
        name = native_name(stored + ".").removesuffix(".")
        layer = modules.get(name)
        if not isinstance(layer, AdaptableLinear) or set(pair) != {"A", "B"}:
            raise CheckpointError(
                f"{source.name}: the adapter names {name!r}, which is not a linear layer of "
                "this model with both halves; expected an adapter made for this checkpoint"
            )
        a, b = _flat(pair["A"]), _flat(pair["B"])
        rank = ranks.value(stored, settings.r)
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank:
            raise CheckpointError(
                f"{source.name}: {name} has adapter shapes {tuple(a.shape)} and {tuple(b.shape)}; "
                f"expected two matrices of rank {rank}, which {CONFIG} states"
            )
        scaling = alphas.value(stored, settings.lora_alpha) / (
            rank**0.5 if settings.use_rslora else rank
        )
        update = LoRAWeights(a, b, scaling)
        try:
            layer.check(update)
        except ValueError as error:
            raise CheckpointError(f"{source.name}: {name}: {error}") from error
        found[name] = update
    return found


def _fitting(model: GraniteSpeech, whole: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Convert whole tensors to our layout, if the model has them in these shapes."""
    own, found = model.state_dict(), {}
    whole = _without_tied_head(model, whole, source)
    for name, tensor in whole.items():
        value = tensor.squeeze(-1) if POINTWISE.match(name) and tensor.ndim == 3 else tensor
        if name not in own or own[name].shape != value.shape:
            here = f"shape {tuple(own[name].shape)}" if name in own else "no such tensor"
            raise CheckpointError(
                f"{source.name}: {name!r} has shape {tuple(value.shape)}, this model {here}; "
                "expected an adapter made for this checkpoint"
            )
        found[name] = value
    return found


def _without_tied_head(
    model: GraniteSpeech, whole: Mapping[str, Tensor], source: Path
) -> dict[str, Tensor]:
    """Drop a head that repeats the table, where one table serves as both."""
    table, head = f"{TABLE}weight", f"{HEAD}weight"
    if not model.config.decoder.tie_word_embeddings or not {table, head} & whole.keys():
        return dict(whole)
    if model.decoder.lm_head is not None:
        raise CheckpointError(
            f"{source.name}: the adapter has a table of tokens of its own, which does not reach "
            "the quantised head; load the model without quantisation"
        )
    if table not in whole or head not in whole or not torch.equal(whole[table], whole[head]):
        raise CheckpointError(
            f"{source.name}: the adapter's table of tokens and its head differ; this model has one "
            "for both: expected both in the file, alike"
        )
    return {name: value for name, value in whole.items() if name != head}


def _flat(half: Tensor) -> Tensor:
    """Return an adapter of a pointwise convolution as that of the linear layer it is here."""
    return half.squeeze(-1) if half.ndim == 3 else half


def _tensor(file: Any, key: str, source: Path) -> Tensor:
    """Read one tensor: floating-point, finite."""
    tensor: Tensor = file.get_tensor(key)
    if tensor.dtype not in _PRECISIONS and not key.endswith("num_batches_tracked"):
        raise CheckpointError(
            f"{source.name}: {key!r} is {tensor.dtype}; expected float32, bfloat16 or float16"
        )
    refuse_non_finite({key: tensor}, source.name)
    return tensor


def _modules_to_save(settings: records.Adapter) -> dict[str, str]:
    """Map modules the adapter brings whole, as it names them, to how their tensors begin here."""
    found = {}
    for said in settings.modules_to_save:
        name = _PREFIX.sub("", said)
        found[said] = TABLE if name == "embed_tokens" else native_name(f"{name}.")
    return found


def _read_settings(file: Path) -> records.Adapter:
    """Read ``adapter_config.json``; refuse whatever would not be applied exactly."""
    raw = read_settings(file)
    settings = schema.validate(records.Adapter, raw, file.name, error=CheckpointError)
    if settings.peft_type != "LORA":
        raise CheckpointError(
            f"{file.name}: peft_type {shorten(settings.peft_type)} is not supported; "
            "expected 'LORA'"
        )
    if settings.bias != "none":
        raise CheckpointError(f"{file.name}: trained biases are not supported; expected 'none'")
    for key, value in raw.items():
        if value and key not in _READ and key not in _HARMLESS:
            raise CheckpointError(
                f"{file.name}: {shorten(key)} is not supported; expected plain LoRA"
            )
    begun = settings.init_lora_weights
    if isinstance(begun, str) and begun.lower() not in _HARMLESS_INITS:
        raise CheckpointError(
            f"{file.name}: init_lora_weights {shorten(begun)} is not supported, since training "
            "changed the base weights; expected an adapter converted to plain LoRA: save it with "
            "PEFT's path_initial_model_for_weight_conversion"
        )
    return settings
