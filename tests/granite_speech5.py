"""Tiny random granite_speech5_ctc models in both implementations, and both kinds of tokenizer.

In: changes to a config.json. Out: our model; and as the oracle transformers'
``GraniteSpeech5ForCTC`` with the same weights.
"""

import copy
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE
from torch import Tensor

import tiny_models
from core.checkpoint.config_granite_speech5_ctc import parse_granite_speech5_ctc
from core.checkpoint.hub import resolve
from core.checkpoint.weights import load_into
from core.model.features import pad_features
from core.model.granite_speech5_ctc import CTCOutput, GraniteSpeech5Config, GraniteSpeech5CTC
from oracle import transformers

ONE_HALVING = {"num_hidden_layers": 2, "subsample_layers": [0]}
TWO_HALVINGS = {"num_hidden_layers": 4, "subsample_layers": [0, 1]}


# As transformers writes it.
_RAW: dict[str, Any] = {
    "architectures": ["GraniteSpeech5ForCTC"],
    "model_type": "granite_speech5_ctc",
    "ctc_loss_reduction": "mean",
    "ctc_zero_infinity": True,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "vocab_size": 30,
    "encoder_config": {
        "model_type": "granite_speech5_encoder",
        "activation_dropout": 0.0,
        "attention_bias": True,
        "attention_dropout": 0.0,
        "context_size": 13,
        "conv_expansion_factor": 2,
        "conv_kernel_size": 7,
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_mel_bins": 6,
        "vocab_size": 30,
        **TWO_HALVINGS,
    },
}


# The published checkpoint's.
PUBLISHED_CONFIG: dict[str, Any] = {
    **_RAW,
    "vocab_size": 16384,
    "encoder_config": {
        **_RAW["encoder_config"],
        "vocab_size": 16384,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_mel_bins": 80,
        "max_position_embeddings": 512,
        "context_size": 128,
    },
}


@dataclass(frozen=True)
class CTCPair:
    """One set of weights in both implementations."""

    reference: Any
    model: GraniteSpeech5CTC


def raw_ctc_config(**encoder: Any) -> dict[str, Any]:
    """A config.json as a dict, with changes to its encoder."""
    raw = copy.deepcopy(_RAW)
    raw["encoder_config"].update(encoder)
    return raw


def ctc_config(**encoder: Any) -> GraniteSpeech5Config:
    return parse_granite_speech5_ctc(raw_ctc_config(**encoder), "test")


def random_ctc_reference(raw: dict[str, Any]) -> Any:
    config = transformers.GraniteSpeech5CTCConfig(**raw)
    reference = transformers.GraniteSpeech5ForCTC(config).eval().requires_grad_(False)
    tiny_models.randomise(reference, seed=1)
    reference.tie_weights()
    return reference


def ctc_pair(**encoder: Any) -> CTCPair:
    raw = raw_ctc_config(**encoder)
    reference = random_ctc_reference(raw)
    model = GraniteSpeech5CTC(parse_granite_speech5_ctc(raw, "test")).eval().requires_grad_(False)
    stored = {k: v for k, v in reference.state_dict().items() if not k.startswith("ctc_head.")}
    model.load_state_dict(stored, strict=True)
    return CTCPair(reference, model)


def random_ctc_model(**encoder: Any) -> GraniteSpeech5CTC:
    model = GraniteSpeech5CTC(ctc_config(**encoder))
    return tiny_models.randomise(model, seed=1).eval().requires_grad_(False)


def write_ctc_folder(folder: Path, vocabulary: int = 259) -> Path:
    """A whole random checkpoint; its labels are blank, the bytes, and two pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = raw_ctc_config(vocab_size=vocabulary, num_mel_bins=80)
    raw["vocab_size"] = vocabulary
    (folder / "config.json").write_text(json.dumps(raw))
    write_byte_level_tokenizer(folder / "tokenizer.json")
    model = GraniteSpeech5CTC(parse_granite_speech5_ctc(raw, "test"))
    save_file(tiny_models.randomise(model, seed=1).state_dict(), folder / "model.safetensors")
    return folder


def load_ctc(folder: Path, dtype: torch.dtype) -> GraniteSpeech5CTC:
    files = resolve(str(folder))
    config = parse_granite_speech5_ctc(files.json("config.json"), files.source)
    build = partial(GraniteSpeech5CTC, config)
    return load_into(build, files.shards, dtype=dtype, device=torch.device("cpu"))[0]


def clip_features(rows: int, width: int = 24) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))


def run_ctc(model: GraniteSpeech5CTC, *clips: Tensor, length: int | None = None) -> CTCOutput:
    longest = max(map(len, clips))
    batch = pad_features(list(clips), length or max(longest, model.config.min_rows))
    with torch.inference_mode():
        return model(batch.values, torch.tensor(batch.lengths))


def write_byte_level_tokenizer(file: Path) -> Path:
    """Id 0 is ``<|blank|>``; then the 256 bytes, and two merged pieces."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<|blank|>", *alphabet, "he", "Ġt"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    fast = FastTokenizer(BPE(vocabulary, merges=[("h", "e"), ("Ġ", "t")]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken("<|blank|>", special=True)])
    fast.save(str(file))
    return file


def write_sentencepiece_tokenizer(file: Path, *, strips: bool) -> Path:
    """Id 0 is ``<unk>``; a reserved name, the 256 bytes, pieces; ``strips``: the file's decoder
    takes the leading space away by itself."""
    pieces = ["<unk>", "<reserved_1>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "h", "e", "t", "▁t", "he"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("h", "e")]
    fast = FastTokenizer(BPE(vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(" ", 1, 0)] if strips else []
    fast.decoder = decoders.Sequence(steps)
    fast.add_special_tokens([AddedToken("<unk>", special=True)])
    fast.save(str(file))
    return file
