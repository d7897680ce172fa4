"""Defaults that transformers means by a key that a config.json does not have.

In: nothing. Out: tables. transformers 4.x writes only what differs from its classes' defaults, so
in a file it wrote a missing key *is* that default; in any other file a missing key is a mistake.
``tests/test_config.py`` compares these tables with the classes of transformers 5.23.
"""

from __future__ import annotations

from typing import Any

# Harmless to leave out, whoever wrote the file.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "model": {"has_lora_adapter": True, "downsample_rate": 5, "window_size": 15},
    "encoder": {"dropout": 0.1},
    "projector": {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "use_qformer_text_input": False,
    },
    "decoder": {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu"},
}

# Dimensions: believed only in a file that says transformers wrote it.
WRITTEN_BY_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "model": {},
    "encoder": {  # GraniteSpeechEncoderConfig
        "input_dim": 160,
        "num_layers": 10,
        "hidden_dim": 1024,
        "feedforward_mult": 4,
        "num_heads": 8,
        "output_dim": 42,
        "context_size": 200,
        "max_pos_emb": 512,
        "conv_kernel_size": 15,
        "conv_expansion_factor": 2,
    },
    "projector": {  # Blip2QFormerConfig
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "cross_attention_frequency": 2,
        "encoder_hidden_size": 1408,
    },
    "decoder": {  # GraniteConfig
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "embedding_multiplier": 1.0,
        "attention_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
        "rope_theta": 10000.0,
        "eos_token_id": 2,
    },
}
