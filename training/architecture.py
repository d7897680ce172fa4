"""The bundled checkpoints' dimensions: the ``config.json`` each ships with, in one place.

In: the vocabulary size. Out: the raw config of model type ``granite_speech``, laid out like
ibm-granite/granite-speech-3.3-2b, or of ``granite_speech5_ctc``, laid out like
ibm-granite/granite-speech-5.0-470m-turboctc, which ``core.checkpoint`` and transformers both read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from core.errors import UserError


class LoraSettings(TypedDict):
    """The adapter's shape as ``adapter_config.json`` states it, in PEFT's names."""

    r: int
    lora_alpha: int
    target_modules: list[str]


NUM_MELS = 80
ENCODER_LAYERS = 9
LORA: LoraSettings = {"r": 16, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
_HEAD_DIM = 48


def as_deep(encoder: Mapping[str, Tensor], file: Path) -> Mapping[str, Tensor]:
    """Check that an encoder has ``ENCODER_LAYERS`` layers.

    Returns:
        Its weights as they are.

    Raises:
        UserError: it has more or fewer.
    """
    layers = len({name.split(".")[1] for name in encoder if name.startswith("layers.")})
    if layers != ENCODER_LAYERS:
        raise UserError(
            f"{file} holds an encoder of {layers} layers; expected {ENCODER_LAYERS}: "
            "`python -m training grow-encoder` makes a deeper one of a trained model"
        )
    return encoder


def raw_config(vocab_size: int) -> dict[str, Any]:
    """Return the whole ``config.json`` for ``vocab_size`` tokens, the audio token last."""
    return {
        "architectures": ["GraniteSpeechForConditionalGeneration"],
        "audio_token_index": vocab_size - 1,
        "downsample_rate": 5,
        "dtype": "bfloat16",
        "encoder_config": {
            "context_size": 200,
            "conv_expansion_factor": 2,
            "conv_kernel_size": 15,
            "dim_head": 36,
            "dropout": 0.1,
            "feedforward_mult": 4,
            "hidden_dim": 144,
            "input_dim": 2 * NUM_MELS,
            "max_pos_emb": 512,
            "model_type": "granite_speech_encoder",
            "num_heads": 4,
            "num_layers": ENCODER_LAYERS,
            "output_dim": 256,
        },
        "has_lora_adapter": True,
        "initializer_range": 0.02,
        "model_type": "granite_speech",
        "projector_config": {
            "attention_probs_dropout_prob": 0.1,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": 144,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": 192,
            "initializer_range": 0.02,
            "intermediate_size": 768,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 2048,
            "model_type": "blip_2_qformer",
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "use_qformer_text_input": False,
            "vocab_size": 30522,
        },
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attention_multiplier": 1.0 / _HEAD_DIM,
            "bos_token_id": 0,
            "embedding_multiplier": 12.0,
            "eos_token_id": 0,
            "hidden_act": "silu",
            "hidden_size": 4 * _HEAD_DIM,
            "initializer_range": 0.02,
            "intermediate_size": 512,
            "logits_scaling": 8.0,
            "max_position_embeddings": 2048,
            "mlp_bias": False,
            "model_type": "granite",
            "num_attention_heads": 4,
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "residual_multiplier": 0.22,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
            "use_cache": True,
            "vocab_size": vocab_size,
        },
        "tie_word_embeddings": True,
        "window_size": 15,
    }


def raw_ctc_config(vocab_size: int) -> dict[str, Any]:
    """Return the whole ``config.json`` of the sibling with a CTC head of ``vocab_size`` labels."""
    return {
        "architectures": ["GraniteSpeech5ForCTC"],
        "ctc_loss_reduction": "mean",
        "ctc_zero_infinity": True,
        "dtype": "bfloat16",
        "encoder_config": {
            "activation_dropout": 0.0,
            "attention_bias": True,
            "attention_dropout": 0.0,
            "context_size": 128,
            "conv_expansion_factor": 2,
            "conv_kernel_size": 15,
            "head_dim": 36,
            "hidden_act": "silu",
            "hidden_size": 144,
            "initializer_range": 0.02,
            "intermediate_size": 528,
            "max_position_embeddings": 128,
            "model_type": "granite_speech5_encoder",
            "num_attention_heads": 4,
            "num_hidden_layers": 7,
            "num_key_value_heads": 4,
            "num_mel_bins": NUM_MELS,
            "subsample_layers": [1, 2],
            "vocab_size": vocab_size,
        },
        "model_type": "granite_speech5_ctc",
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        "vocab_size": vocab_size,
    }
