"""Random checkpoints small enough to make in a test, in the file layout of the real ones.

In: a config.json as a dict (see :func:`raw_config`). Out: folders that ``core.load`` reads. Weights
are large (normal, 0.15) so that logits differ clearly and no token is decided by rounding.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, decoders, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE
from torch import Tensor, nn

from core.checkpoint.adapter_set import DEFAULT, Adapters
from core.checkpoint.config_file import parse_config
from core.checkpoint.key_map import to_stored
from core.checkpoint.peft_format import adapter_files, read_adapter
from core.model.granite_speech import GraniteSpeech

END, ROLE, END_ROLE, AUDIO = "<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>"
SPECIALS = (END, ROLE, END_ROLE, AUDIO)
NUM_PLAIN_TOKENS = 300
END_ID = NUM_PLAIN_TOKENS
AUDIO_ID = NUM_PLAIN_TOKENS + 3
VOCABULARY = NUM_PLAIN_TOKENS + len(SPECIALS)
GAIN = 2.5  # with this the next token depends on the whole context, not on the last token alone

_RAW: dict[str, Any] = {
    "model_type": "granite_speech",
    "audio_token_index": AUDIO_ID,
    "has_lora_adapter": True,
    "window_size": 15,
    "downsample_rate": 5,
    "tie_word_embeddings": True,
    "encoder_config": {
        "input_dim": 160,
        "num_layers": 2,
        "hidden_dim": 32,
        "num_heads": 4,
        "dim_head": 8,
        "feedforward_mult": 2,
        "output_dim": 42,
        "context_size": 20,
        "max_pos_emb": 32,
        "conv_kernel_size": 15,
        "conv_expansion_factor": 2,
        "dropout": 0.1,
    },
    "projector_config": {
        "model_type": "blip_2_qformer",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "encoder_hidden_size": 32,
        "cross_attention_frequency": 1,
    },
    "text_config": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.125,
        "residual_multiplier": 0.6,
        "logits_scaling": 8.0,
        "bos_token_id": END_ID,
        "eos_token_id": END_ID,
        "pad_token_id": END_ID,
    },
}


def raw_config(
    *,
    encoder: dict[str, Any] | None = None,
    projector: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    **model: Any,
) -> dict[str, Any]:
    """A config.json as a dict, with changes to its parts."""
    raw = copy.deepcopy(_RAW)
    raw.update(model)
    raw["encoder_config"].update(encoder or {})
    raw["projector_config"].update(projector or {})
    raw["text_config"].update(decoder or {})
    return raw


def random_model(raw: dict[str, Any] | None = None, *, seed: int = 0) -> GraniteSpeech:
    """The model of ``raw`` with large random weights and batch statistics, ready for inference."""
    model = GraniteSpeech(parse_config(raw or raw_config(), source="test"))
    return randomise(model, seed).requires_grad_(False).eval()


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Weights that keep activations near one through every layer, so that each layer counts."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.normal_(generator=generator)
        if parameter.ndim == 1:
            parameter.mul_(0.15).add_(1.0 if name.endswith("weight") else 0.0)
        elif "embed_tokens" in name:
            parameter.mul_(0.1)
        else:
            fan_in = parameter[0].numel()
            parameter.mul_(GAIN * fan_in**-0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model


def write_checkpoint(
    folder: Path, raw: dict[str, Any], model: GraniteSpeech, *, num_shards: int = 1
) -> dict[str, Tensor]:
    """config.json and the weights, in one file or in shards with an index; returns the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    stored = to_stored(model.state_dict())
    if num_shards == 1:
        save_file(stored, folder / "model.safetensors")
        return stored
    names = sorted(stored)
    weight_map = {}
    for number in range(num_shards):
        file = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        part = names[number::num_shards]
        save_file({name: stored[name] for name in part}, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return stored


def write_adapter(
    folder: Path,
    model: GraniteSpeech,
    *,
    seed: int = 0,
    rank: int = 4,
    modules: tuple[str, ...] = ("q_proj", "v_proj"),
    **settings: Any,
) -> dict[str, Tensor]:
    """A random LoRA adapter for the decoder's attention, as PEFT writes it."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for number, layer in enumerate(model.decoder.layers):
        for module in modules:
            linear = layer.self_attn.get_submodule(module)
            name = f"base_model.model.model.language_model.layers.{number}.self_attn.{module}"
            a = torch.randn(rank, linear.in_features, generator=generator) * 0.3
            b = torch.randn(linear.out_features, rank, generator=generator) * 0.3
            tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a, b
    raw = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(modules)}
    (folder / "adapter_config.json").write_text(json.dumps({**raw, **settings}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors


def attach_adapter(model: GraniteSpeech, folder: Path) -> int:
    """Give ``model`` the adapter in ``folder`` as its own; returns how many layers took it."""
    weights = read_adapter(model, *adapter_files(folder))
    Adapters(model).add(DEFAULT, weights)
    return len(weights.lora)


def write_tokenizer(file: Path) -> Path:
    """A byte-level BPE of 300 plain tokens and four special ones: it takes any text."""
    fast = FastTokenizer(BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_PLAIN_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    words = "can you transcribe the speech into a written format? translate user assistant zero one"
    fast.train_from_iterator([words] * 8, trainer)
    assert fast.get_vocab_size() == NUM_PLAIN_TOKENS
    fast.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    fast.save(str(file))
    return file


def noise(seconds: float, seed: int = 0) -> Tensor:
    """White noise [N] at 16 kHz, about -20 dB."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(round(16_000 * seconds), generator=generator) * 0.1


def samples_of_frames(num_frames: int, extra: int = 0) -> int:
    """The fewest samples that make ``num_frames`` frames, plus up to 319 that change nothing."""
    assert 0 <= extra < 320
    return (2 * num_frames - 1) * 160 + extra


def raw_plus_config(kept: list[int] | None = None, **parts: Any) -> dict[str, Any]:
    """A config.json of granite_speech_plus that keeps these states of four blocks."""
    kept = [1] if kept is None else kept
    encoder = {
        "num_layers": 4,
        "num_heads": 2,
        "dim_head": 16,
        "context_size": 8,
        "output_dim": 128,
    }
    return raw_config(
        model_type="granite_speech_plus",
        has_lora_adapter=False,
        encoder={**encoder, "cat_hidden_layers": kept},
        projector={"encoder_hidden_size": 32 * (len(kept) + 1)},
        **parts,
    )
