"""The models that are measured: the bundled checkpoint, and random ones of given dimensions.

In: a shape's name. Out: a folder that ``core.load`` and transformers both read, so that every
system runs the same weights. Random weights cost what trained ones cost; they are scaled so that
logits differ clearly and no token is decided by rounding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE
from torch import Tensor

from core.checkpoint.catalog import CATALOG
from core.checkpoint.config_file import parse_config
from core.checkpoint.key_map import to_stored
from core.model.granite_speech import GraniteSpeech

END, AUDIO = "<|end_of_text|>", "<|audio|>"
END_ID, AUDIO_ID = 256, 257  # after the 256 bytes
GAIN = 2.5  # with this the next token depends on the whole context, not on the last token alone
SHARD_BYTES = 2 * 2**30

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class BenchmarkShape:
    """One model. raw: its config.json, None for the bundled checkpoint.

    together: whether all systems fit into memory at once, and so can take turns. trained: whether
    its text means anything, which drafts need.
    """

    name: str
    raw: dict[str, Any] | None
    num_tokens: int
    repeats: int
    longest_s: float
    together: bool = True

    @property
    def trained(self) -> bool:
        """Say whether the weights were trained."""
        return self.raw is None


def _raw(
    encoder: dict[str, Any], projector: dict[str, Any], text: dict[str, Any]
) -> dict[str, Any]:
    return {
        "model_type": "granite_speech",
        "audio_token_index": AUDIO_ID,
        "has_lora_adapter": False,
        "window_size": 15,
        "downsample_rate": 5,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "encoder_config": {
            "input_dim": 160,
            "feedforward_mult": 4,
            "context_size": 200,
            "max_pos_emb": 512,
            "conv_kernel_size": 15,
            "conv_expansion_factor": 2,
            "dropout": 0.1,
            **encoder,
        },
        "projector_config": {
            "model_type": "blip_2_qformer",
            "num_hidden_layers": 2,
            "encoder_hidden_size": encoder["hidden_dim"],
            "cross_attention_frequency": 1,
            **projector,
        },
        "text_config": {
            "model_type": "granite",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "logits_scaling": 8.0,
            "bos_token_id": END_ID,
            "eos_token_id": END_ID,
            "pad_token_id": END_ID,
            **text,
        },
    }


def _random(width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    """A model whose encoder is half as wide as its decoder."""
    encoder = {
        "num_layers": max(2, 3 * layers // 4),
        "hidden_dim": width // 2,
        "num_heads": 4,
        "dim_head": width // 8,
        "output_dim": 256,
    }
    projector = {
        "hidden_size": width // 2,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
    }
    text = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "attention_multiplier": 8 / width,
        "residual_multiplier": 0.6,  # so that layers outweigh the tied table, which repeats tokens
        "tie_word_embeddings": True,
    }
    return _raw(encoder, projector, text)


# The conformer and the Q-Former of every released model since 3.3.
_ENCODER = {"num_layers": 16, "hidden_dim": 1024, "num_heads": 8, "dim_head": 128}
_PROJECTOR = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}


def _granite_4_0_1b() -> dict[str, Any]:
    """Return the dimensions of ibm-granite/granite-4.0-1b-speech."""
    text = {
        "vocab_size": 100_353,
        "hidden_size": 2048,
        "intermediate_size": 4096,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "attention_multiplier": 1 / 128,
        "tie_word_embeddings": False,
    }
    return _raw({**_ENCODER, "output_dim": 348}, _PROJECTOR, text)


def _granite_3_3_8b() -> dict[str, Any]:
    """Return the dimensions of ibm-granite/granite-speech-3.3-8b, without its adapter."""
    text = {
        "vocab_size": 49_160,
        "hidden_size": 4096,
        "intermediate_size": 12_800,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "attention_multiplier": 1 / 128,
        "logits_scaling": 16.0,
        "rope_theta": 1e7,
        "tie_word_embeddings": True,
    }
    return _raw({**_ENCODER, "output_dim": 256}, _PROJECTOR, text)


SHAPES: dict[str, BenchmarkShape] = {
    shape.name: shape
    for shape in (
        BenchmarkShape("micro", _random(64, 2, 320), num_tokens=8, repeats=2, longest_s=30.0),
        BenchmarkShape("tiny", None, num_tokens=64, repeats=6, longest_s=10.0),
        BenchmarkShape("small", _random(512, 8, 8192), num_tokens=64, repeats=6, longest_s=30.0),
        BenchmarkShape(
            "1b", _granite_4_0_1b(), num_tokens=16, repeats=3, longest_s=10.0, together=False
        ),
        BenchmarkShape(
            "3.3-8b", _granite_3_3_8b(), num_tokens=16, repeats=3, longest_s=10.0, together=False
        ),
    )
}


def folder_of(shape: BenchmarkShape, root: Path) -> Path:
    """Find the shape's checkpoint; a random one is made below ``root`` if it is not there.

    Random weights follow from the shape alone, so a finished folder is used again.

    Returns:
        Its folder.
    """
    if shape.raw is None:
        return Path(CATALOG["tiny"].source)
    folder = root / f"random-{shape.name}"
    done = folder / "model.safetensors.index.json"
    if not done.is_file() or json.loads((folder / "config.json").read_text()) != shape.raw:
        folder.mkdir(parents=True, exist_ok=True)
        write_random(folder, shape.raw)
    return folder


@torch.no_grad()
def write_random(folder: Path, raw: dict[str, Any], *, seed: int = 0) -> None:
    """Write random bfloat16 weights in shards; the index, written last, completes them."""
    with torch.device("meta"):
        model = GraniteSpeech(parse_config(raw, source="benchmarks"))
    (folder / "config.json").write_text(json.dumps(raw, indent=2))
    write_tokenizer(folder / "tokenizer.json")
    weight_map: dict[str, str] = {}
    generator = torch.Generator().manual_seed(seed)
    for number, shard in enumerate(_shards(to_stored(model.state_dict()), generator), start=1):
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _shards(wanted: Tensors, generator: torch.Generator) -> Iterator[Tensors]:
    """Random tensors for the names and shapes of ``wanted``, at most 2 GiB of them at a time."""
    shard: Tensors = {}
    for name, like in wanted.items():
        shard[name] = random_tensor(name, like, generator)
        if sum(t.numel() * t.element_size() for t in shard.values()) > SHARD_BYTES:
            yield shard
            shard = {}
    if shard:
        yield shard


def random_tensor(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the weights of one name, in bfloat16.

    Args:
        name: the tensor's; it decides the scale.
        like: has the shape and the kind of number.
        generator: draws them, on its own device.

    Returns:
        A tensor of that shape on the generator's device.
    """
    values = torch.empty(like.shape, device=generator.device)
    if not like.is_floating_point():
        return torch.zeros_like(values, dtype=like.dtype)
    if name.endswith("running_var"):
        return values.uniform_(0.5, 2.0, generator=generator).bfloat16()
    values.normal_(generator=generator)
    if like.ndim == 1:  # norms near one, biases near zero
        values.mul_(0.15).add_(1.0 if name.endswith("weight") else 0.0)
    elif "embed_tokens" in name:
        values.mul_(0.1)
    else:
        values.mul_(GAIN * like[0].numel() ** -0.5)
    return values.bfloat16()


def write_tokenizer(file: Path) -> None:
    """Write a tokenizer of single bytes, the end token and the audio token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = FastTokenizer(BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(END, special=True), AddedToken(AUDIO, special=True)])
    fast.save(str(file))
