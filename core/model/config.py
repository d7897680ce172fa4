"""Dimensions of a model: frozen dataclasses, one per part.

In: nothing; ``core.checkpoint.config_file`` fills them from a checkpoint's ``config.json``. Out:
:class:`ModelConfig` and its parts, and the error of a config that describes no model. No field has
a default: every dimension comes from a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import UserError


class ConfigError(UserError):
    """A config.json that cannot describe a model this code builds."""


@dataclass(frozen=True)
class EncoderConfig:
    """Conformer with block attention and a mid-layer character CTC head.

    self_conditioning_layer: after that many layers the head's posteriors are given back.
    cat_hidden_layers: rising indices of states that stand before the last one in its output.
    """

    input_dim: int
    num_layers: int
    hidden_dim: int
    num_heads: int
    dim_head: int
    feedforward_mult: int
    output_dim: int
    context_size: int
    max_pos_emb: int
    conv_kernel_size: int
    conv_expansion_factor: int
    dropout: float
    self_conditioning_layer: int
    cat_hidden_layers: tuple[int, ...]

    @property
    def output_size(self) -> int:
        """Return the width of a frame as the projector gets it."""
        return self.hidden_dim * (len(self.cat_hidden_layers) + 1)


@dataclass(frozen=True)
class ProjectorConfig:
    """Windowed Q-Former: ``window_size`` frames in, ``num_queries`` audio tokens out."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    encoder_hidden_size: int
    cross_attention_frequency: int
    layer_norm_eps: float
    hidden_act: str
    dropout: float
    window_size: int
    downsample_rate: int
    output_size: int

    @property
    def num_queries(self) -> int:
        """Return the audio tokens made of one window."""
        return self.window_size // self.downsample_rate


@dataclass(frozen=True)
class DecoderConfig:
    """Granite language model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    hidden_act: str
    attention_bias: bool
    mlp_bias: bool
    embedding_multiplier: float
    attention_multiplier: float
    residual_multiplier: float
    logits_scaling: float
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]
    pad_token_id: int


@dataclass(frozen=True)
class ModelConfig:
    """A whole ``granite_speech`` or ``granite_speech_plus`` checkpoint."""

    encoder: EncoderConfig
    projector: ProjectorConfig
    decoder: DecoderConfig
    audio_token_id: int
    has_lora_adapter: bool
