"""A fine-tuned model -> an adapter folder in PEFT's format, which ``core`` and peft both load.

In: the model with what was trained in its place. Out: ``adapter_config.json`` and
``adapter_model.safetensors``. Low-rank updates are LoRA tensors. What was trained whole (projector,
encoder layers, the table of tokens) are PEFT's ``modules_to_save`` in the same file: one folder
holds all of it, peft puts it in place of the base's modules by itself, and both take it out again
with the adapter, so the base model stays what it was. Tensors are float32, as they were trained.

Names are those of transformers 5, as peft 0.21 writes them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from core.checkpoint.key_map import stored_name, to_stored
from core.checkpoint.peft_format import CONFIG, WEIGHTS
from core.model.granite_speech import GraniteSpeech
from core.model.lora import AdaptableLinear, adapted_layers
from core.saving import write_whole
from training.finetune.state import AGAIN

NO_LORA = "dummy-target-modules"  # peft's word for an adapter of whole modules alone
_PREFIX = "base_model.model."


def peft_name(native: str) -> str:
    """Convert a name of ours to the one that the module or tensor has in transformers 5."""
    return _from_stored(stored_name(native + ".").removesuffix("."))


def _from_stored(stored: str) -> str:
    if stored.startswith("language_model.lm_head"):
        return stored.removeprefix("language_model.")
    if stored.startswith("language_model.model."):
        return "model.language_model." + stored.removeprefix("language_model.model.")
    return f"model.{stored}"


def write_adapter(
    folder: Path, model: GraniteSpeech, whole: Sequence[str], base: str
) -> tuple[Path, Path]:
    """Write the adapter that ``model`` holds now.

    Args:
        folder: made if it is not there; files in it are replaced whole or not at all.
        model: with the adapter in its layers.
        whole: modules of ours that were trained whole.
        base: name of the checkpoint it belongs to.

    Returns:
        The two files.

    Raises:
        SaveError: they cannot be written.
    """
    tensors = {f"{_PREFIX}{key}": value for key, value in adapter_tensors(model, whole).items()}
    settings = adapter_settings(model, whole, base)
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    data = save({key: _plain(value) for key, value in tensors.items()}, {"format": "pt"})
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG, text.encode(), AGAIN)
    write_whole(folder / WEIGHTS, data, AGAIN)
    return folder / CONFIG, folder / WEIGHTS


def adapter_tensors(model: GraniteSpeech, whole: Sequence[str]) -> dict[str, Tensor]:
    """Collect every tensor of the adapter, by its name in transformers 5."""
    found: dict[str, Tensor] = {}
    for name, layer in adapted_layers(model):
        assert layer.lora_a is not None
        assert layer.lora_b is not None
        found[f"{peft_name(name)}.lora_A.weight"] = layer.lora_a
        found[f"{peft_name(name)}.lora_B.weight"] = layer.lora_b
    state = model.state_dict()
    mine = {key: state[key] for key in state if key.startswith(tuple(f"{n}." for n in whole))}
    found |= {_from_stored(key): value for key, value in to_stored(mine).items()}
    if _brings_tied_table(model, whole):
        # peft keeps the two apart once an adapter brings them, so both have to be there.
        found["lm_head.weight"] = model.decoder.embed_tokens.weight
    return found


def _brings_tied_table(model: GraniteSpeech, whole: Sequence[str]) -> bool:
    return "decoder.embed_tokens" in whole and model.config.decoder.tie_word_embeddings


def adapter_settings(model: GraniteSpeech, whole: Sequence[str], base: str) -> dict[str, Any]:
    """Return the content of ``adapter_config.json``."""
    ranks, alphas = {}, {}
    for name, layer in adapted_layers(model):
        assert layer.lora_a is not None
        ranks[name] = layer.lora_a.shape[0]
        alphas[name] = layer.lora_scaling * ranks[name]
    short = _short_names(model, ranks)
    saved = [peft_name(name) for name in whole]
    saved += ["lm_head"] if _brings_tied_table(model, whole) else []
    rank, alpha = _usual(ranks), _usual(alphas)
    return {
        "alpha_pattern": _patterns(alphas, alpha, short),
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": saved or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": _patterns(ranks, rank, short),
        "target_modules": sorted({short.get(n, peft_name(n)) for n in ranks}) or NO_LORA,
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _short_names(model: GraniteSpeech, ranks: Mapping[str, Any]) -> dict[str, str]:
    """Adapted layers that their last name alone tells from all others: q_proj, not up_proj."""
    layers = [n for n, m in model.named_modules() if isinstance(m, AdaptableLinear)]
    others = {peft_name(name).rpartition(".")[2] for name in layers if name not in ranks}
    last = {name: peft_name(name).rpartition(".")[2] for name in ranks}
    return {name: short for name, short in last.items() if short not in others}


def _usual(values: Mapping[str, Any]) -> Any:
    return Counter(values.values()).most_common(1)[0][0] if values else 8


def _patterns(
    values: Mapping[str, float], usual: float, short: Mapping[str, str]
) -> dict[str, float]:
    """Values other than the usual one, by a pattern that peft and ``core`` read alike."""
    by_short: dict[str, set[float]] = {}
    for name, value in values.items():
        by_short.setdefault(short.get(name, ""), set()).add(value)
    found = {}
    for name, value in values.items():
        if value != usual:
            shared = name in short and len(by_short[short[name]]) == 1
            found[short[name] if shared else re.escape(peft_name(name))] = value
    return found


def _plain(value: Tensor) -> Tensor:
    return value.detach().float().cpu().clone().contiguous()
