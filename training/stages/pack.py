"""Stage 4: one folder in the file layout of ibm-granite/granite-speech-3.3.

In: a folder of checkpoints with ``tokenizer.json``, ``encoder.pt``, ``decoder.pt``, ``align.pt``.
Out: a folder with config.json, sharded safetensors under stored names and their index, tokenizer,
chat template, processor settings, and the adapter in PEFT's format. ``core.load`` and transformers'
``GraniteSpeechForConditionalGeneration`` both read it as it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from core.checkpoint.key_map import to_stored
from core.errors import UserError
from training.architecture import LORA, NUM_MELS, raw_config
from training.corpus.vocabulary import AUDIO, CHAT_TEMPLATE, END, END_ID
from training.saving import read_state
from training.stages.align_model import adapted, build, load_trained, trainable

SHARD_BYTES = 8_000_000  # hosts refuse larger plain files from 10 MB on
ADAPTER_PREFIX = "base_model.model.model.language_model."


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write an object with its keys in order."""
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Floating tensors in ``dtype``, counters as they are; contiguous, nothing shared."""
    return {
        name: (value.to(dtype) if value.is_floating_point() else value).clone().contiguous()
        for name, value in tensors.items()
    }


def shard(tensors: Mapping[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """Cut tensors, in name order, into at least two groups of at most ``limit`` bytes.

    Returns:
        The groups.

    Raises:
        ValueError: a single tensor is larger than ``limit``.
    """
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    limit = min(limit, -(-total * 11 // 20))
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name in sorted(tensors):
        size = tensors[name].numel() * tensors[name].element_size()
        if size > limit:
            raise ValueError(f"{name} has {size} bytes; expected at most {limit} a tensor")
        if used + size > limit:
            shards.append({})
            used = 0
        shards[-1][name] = tensors[name]
        used += size
    return shards


def _write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    shards = shard(tensors, SHARD_BYTES)
    index: dict[str, str] = {}
    for number, part in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(part, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    content = {"metadata": {"total_size": size}, "weight_map": index}
    write_json(folder / "model.safetensors.index.json", content)


def _write_adapter(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file(dict(tensors), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "base_model_name_or_path": "",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    write_json(folder / "adapter_config.json", settings | LORA)


def _write_small_files(folder: Path, checkpoints: Path, config: Mapping[str, Any]) -> None:
    mels = {"hop_length": 160, "n_fft": 512, "n_mels": NUM_MELS, "sample_rate": 16000}
    front = {
        "feature_extractor_type": "GraniteSpeechFeatureExtractor",
        "melspec_kwargs": mels | {"win_length": 400},
        "processor_class": "GraniteSpeechProcessor",
        "projector_downsample_rate": config["downsample_rate"],
        "projector_window_size": config["window_size"],
        "sampling_rate": 16000,
    }
    names = {f"{kind}_token": END for kind in ("bos", "eos", "pad", "unk")}
    tokenizer = {
        "additional_special_tokens": [AUDIO],
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["text_config"]["max_position_embeddings"],
        "processor_class": "GraniteSpeechProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", front)
    processor = {"audio_token": AUDIO, "processor_class": "GraniteSpeechProcessor"}
    write_json(folder / "processor_config.json", processor)
    write_json(folder / "tokenizer_config.json", tokenizer | names)
    write_json(folder / "special_tokens_map.json", names)
    ends = {f"{kind}_token_id": END_ID for kind in ("bos", "eos", "pad")}
    write_json(folder / "generation_config.json", ends | {"do_sample": False})
    # Without it a copy of the folder would be taken for 3.3, which has a system message.
    write_json(folder / "lab.json", {"family": "tiny"})
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    shutil.copyfile(checkpoints / "tokenizer.json", folder / "tokenizer.json")


def averaged(files: Sequence[Path]) -> dict[str, Tensor]:
    """Average several rounds' weights: rounds that follow each other err in different places.

    Returns:
        The mean, by name.

    Raises:
        UserError: the files hold different weights.
    """
    rounds = [read_state(file, ("weights",))["weights"] for file in files]
    names = set(rounds[0])
    for file, weights in zip(files, rounds, strict=True):
        if set(weights) != names:
            raise UserError(f"{file} holds other weights than {files[0]}; average like with like")
    return {
        name: torch.stack([one[name].float() for one in rounds]).mean(0).to(value.dtype)
        for name, value in rounds[0].items()
    }


def run(
    checkpoints: Path,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    average_with: Sequence[Path] = (),
) -> Path:
    """Write the folder; earlier weights in it are replaced.

    Args:
        checkpoints: of the stages.
        folder: made if it is not there.
        dtype: of the weights.
        average_with: further files of the last stage, to take the mean with.

    Returns:
        The folder.
    """
    model, vocabulary = build(checkpoints)
    joint = checkpoints / "joint.pt"
    trained = joint if joint.exists() else checkpoints / "align.pt"
    load_trained(model, averaged([trained, *average_with]), trainable(model), trained)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors"):
        old.unlink()
    _write_weights(folder, _cast(to_stored(model.state_dict()), dtype))
    adapter = {}
    for name, layer in adapted(model):
        stored = ADAPTER_PREFIX + name.removeprefix("decoder.")
        assert layer.lora_a is not None
        assert layer.lora_b is not None
        adapter[f"{stored}.lora_A.weight"] = layer.lora_a.detach()
        adapter[f"{stored}.lora_B.weight"] = layer.lora_b.detach()
    _write_adapter(folder, _cast(adapter, dtype))
    config = raw_config(vocabulary.size) | {"dtype": str(dtype).removeprefix("torch.")}
    _write_small_files(folder, checkpoints, config)
    return folder
