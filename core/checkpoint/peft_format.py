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

from core.checkpoint.key_map import POINTWISE, native_name
from core.checkpoint.safetensors_io import CheckpointError, open_safetensors, read_settings
from core.model.granite_speech import GraniteSpeech
from core.model.lora import AdaptableLinear, LoRAWeights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TABLE, HEAD = "decoder.embed_tokens.", "decoder.lm_head."
WHOLE_PARTS = ("encoder.", "projector.", TABLE, HEAD)  # what an adapter may bring whole

_LORA_KEY = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.\w+)?\.weight$")
_PREFIX = re.compile(r"^base_model\.model\.")
_UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "alora_invocation_tokens",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
)


@dataclass(frozen=True)
class AdapterWeights:
    """lora: layer -> its update; whole: tensor -> its value, both by our names."""

    lora: Mapping[str, LoRAWeights]
    whole: Mapping[str, Tensor] = field(default_factory=dict)


def adapter_files(folder: Path) -> tuple[Path, Path]:
    """The two files of an adapter folder.

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
    """Read an adapter of ``model``, and check that it fits.

    Raises:
        CheckpointError: a variant of LoRA that is not supported, or parts that do not exist.
    """
    settings = read_settings(config_file)
    saved = _modules_to_save(settings)
    _refuse_variants(settings, config_file)
    halves: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    with open_safetensors(weights_file) as file:
        for key in file.keys():  # noqa: SIM118 - a safetensors handle is no dict
            match = _LORA_KEY.match(key)
            if match is not None:
                halves.setdefault(match[1], {})[match[2]] = _flat(file.get_tensor(key))
                continue
            name = native_name(_PREFIX.sub("", key))
            if not name.startswith(WHOLE_PARTS) or not name.startswith(tuple(saved.values())):
                raise CheckpointError(f"{weights_file.name}: {key!r} is not a LoRA tensor")
            whole[name] = file.get_tensor(key)
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


def attach_adapter(model: GraniteSpeech, config_file: Path, weights_file: Path) -> int:
    """Attach an adapter to the layers it names; returns how many layers took one.

    Raises:
        CheckpointError: as :func:`read_adapter`; also where it brings whole tensors.
    """
    weights = read_adapter(model, config_file, weights_file)
    if weights.whole:
        raise CheckpointError(f"{config_file.name}: 'modules_to_save' is not supported here")
    for name, update in weights.lora.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, AdaptableLinear)
        layer.attach(update)
    return len(weights.lora)


def _updates(
    model: GraniteSpeech,
    settings: Mapping[str, Any],
    halves: Mapping[str, Mapping[str, Tensor]],
    source: Path,
) -> dict[str, LoRAWeights]:
    """Low-rank updates by layer."""
    modules, found = dict(model.named_modules()), {}
    for stored, pair in halves.items():
        name = native_name(stored + ".").removesuffix(".")
        layer = modules.get(name)
        if not isinstance(layer, AdaptableLinear) or set(pair) != {"A", "B"}:
            raise CheckpointError(
                f"{source.name}: the adapter names {name!r}, which is not a linear layer of "
                "this model with both halves; expected an adapter made for this checkpoint"
            )
        update = LoRAWeights(pair["A"], pair["B"], _scaling(settings, stored, pair["A"]))
        try:
            layer.check(update)
        except ValueError as error:
            raise CheckpointError(f"{source.name}: {name}: {error}") from error
        found[name] = update
    return found


def _fitting(model: GraniteSpeech, whole: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Whole tensors in our layout, if the model has them in these shapes."""
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
    """The tensors without a head that is the table over again, where one table serves as both."""
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
    """An adapter of a pointwise convolution, which is a linear layer here."""
    return half.squeeze(-1) if half.ndim == 3 else half


def _scaling(settings: Mapping[str, Any], module: str, a: Tensor) -> float:
    """alpha / r (or alpha / sqrt r); the first of PEFT's patterns to end ``module`` sets alpha."""
    rank, alpha = a.shape[0], settings.get("lora_alpha", 8)
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def _modules_to_save(settings: Mapping[str, Any]) -> dict[str, str]:
    """Modules the adapter brings whole, as it names them, and how their tensors begin here."""
    found = {}
    for said in settings.get("modules_to_save") or []:
        name = _PREFIX.sub("", str(said))
        found[said] = TABLE if name == "embed_tokens" else native_name(f"{name}.")
    return found


def _refuse_variants(settings: Mapping[str, Any], source: Path) -> None:
    kind = settings.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(
            f"{source.name}: peft_type {kind!r} is not supported; expected 'LORA'"
        )
    for key in _UNSUPPORTED:
        if settings.get(key):
            raise CheckpointError(f"{source.name}: {key!r} is not supported; expected plain LoRA")
    if settings.get("bias", "none") != "none":
        raise CheckpointError(f"{source.name}: trained biases are not supported; expected 'none'")
