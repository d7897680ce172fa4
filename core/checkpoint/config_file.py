"""config.json -> :class:`core.model.config.ModelConfig`.

In: the parsed ``config.json`` of a ``granite_speech`` or ``granite_speech_plus`` checkpoint. Out:
its dimensions, checked to fit together. What a checkpoint does not state is an error, unless its
file was written by transformers, where a missing key means the class's default
(``core.checkpoint.hf_defaults``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from core.checkpoint.hf_defaults import LEFT_OUT, WRITTEN_BY_TRANSFORMERS
from core.model.config import (
    ConfigError,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ProjectorConfig,
)

logger = logging.getLogger(__name__)

PLUS = "granite_speech_plus"

# Keys that change the architecture of relatives this code does not build.
REFUSED = {
    "encoder": ("self_conditioning_layer", "subsample_layers"),
    "decoder": ("num_local_experts", "layer_types"),
}


def parse_config(raw: Mapping[str, Any], *, source: str) -> ModelConfig:
    """Read a parsed ``config.json``; ``source`` names it in messages.

    Raises:
        ConfigError: a missing key, or dimensions that do not fit together.
    """
    believed = "transformers_version" in raw
    model = _Section(raw, "model", source, believed)
    text = _Section(model.take("text_config"), "decoder", source, believed)
    encoder = _Section(model.take("encoder_config"), "encoder", source, believed)
    projector = _parse_projector(model, text.take("hidden_size"), source)
    config = ModelConfig(
        encoder=_parse_encoder(encoder, keeps_states=raw.get("model_type") == PLUS),
        projector=projector,
        decoder=_parse_decoder(text, raw.get("tie_word_embeddings")),
        audio_token_id=_audio_token(raw, source),
        has_lora_adapter=model.take("has_lora_adapter"),
    )
    _check(config, source)
    return config


class _Section:
    """One JSON object of the config: access that names what is missing.

    believed: transformers wrote the file, so a missing key means its class's default.
    """

    def __init__(self, raw: Mapping[str, Any], part: str, source: str, believed: bool) -> None:
        self.raw, self.part, self.source, self.believed = raw, part, source, believed
        for key in REFUSED.get(part, ()):
            if raw.get(key):
                raise ConfigError(
                    f"{source}: {part} has {key!r}; this variant is not supported yet"
                )

    def take(self, key: str) -> Any:
        if self.raw.get(key) is not None:
            return self.raw[key]
        if key in LEFT_OUT[self.part]:
            return LEFT_OUT[self.part][key]
        if self.believed and key in WRITTEN_BY_TRANSFORMERS[self.part]:
            value = WRITTEN_BY_TRANSFORMERS[self.part][key]
            logger.info("%s: %s has no %r, which means %r", self.source, self.part, key, value)
            return value
        raise ConfigError(
            f"{self.source}: {self.part} has no {key!r}; expected a complete config.json"
        )


def _audio_token(raw: Mapping[str, Any], source: str) -> int:
    for key in ("audio_token_index", "audio_token_id"):
        if raw.get(key) is not None:
            return int(raw[key])
    raise ConfigError(f"{source}: no 'audio_token_index'; expected the id of the <|audio|> token")


def _parse_encoder(part: _Section, *, keeps_states: bool) -> EncoderConfig:
    width, heads = part.take("hidden_dim"), part.take("num_heads")
    return EncoderConfig(
        input_dim=part.take("input_dim"),
        num_layers=part.take("num_layers"),
        hidden_dim=width,
        num_heads=heads,
        dim_head=part.raw.get("dim_head") or width // heads,
        feedforward_mult=part.take("feedforward_mult"),
        output_dim=part.take("output_dim"),
        context_size=part.take("context_size"),
        max_pos_emb=part.take("max_pos_emb"),
        conv_kernel_size=part.take("conv_kernel_size"),
        conv_expansion_factor=part.take("conv_expansion_factor"),
        dropout=part.take("dropout"),
        cat_hidden_layers=_kept_layers(part, keeps_states),
    )


def _kept_layers(part: _Section, keeps_states: bool) -> tuple[int, ...]:
    """Read ``cat_hidden_layers`` as the set that the reference takes it for."""
    kept, last = set(part.raw.get("cat_hidden_layers") or ()), part.take("num_layers") - 1
    if kept and not keeps_states:
        raise ConfigError(
            f"{part.source}: encoder has 'cat_hidden_layers', which the model_type does not "
            f"support; expected {PLUS!r}"
        )
    if not kept <= set(range(last + 1)):
        raise ConfigError(
            f"{part.source}: cat_hidden_layers is {list(kept)}; expected numbers from 0 to {last}"
        )
    return tuple(sorted(kept))


def _parse_projector(model: _Section, output_size: int, source: str) -> ProjectorConfig:
    part = _Section(model.take("projector_config"), "projector", source, model.believed)
    if part.raw.get("model_type", "blip_2_qformer") != "blip_2_qformer":
        raise ConfigError(
            f"{source}: projector {part.raw['model_type']!r}; expected 'blip_2_qformer'"
        )
    if part.take("use_qformer_text_input"):
        raise ConfigError(f"{source}: a Q-Former with text input is not supported")
    return ProjectorConfig(
        hidden_size=part.take("hidden_size"),
        num_hidden_layers=part.take("num_hidden_layers"),
        num_attention_heads=part.take("num_attention_heads"),
        intermediate_size=part.take("intermediate_size"),
        encoder_hidden_size=part.take("encoder_hidden_size"),
        cross_attention_frequency=part.take("cross_attention_frequency"),
        layer_norm_eps=part.take("layer_norm_eps"),
        hidden_act=part.take("hidden_act"),
        dropout=part.take("hidden_dropout_prob"),
        window_size=model.take("window_size"),
        downsample_rate=model.take("downsample_rate"),
        output_size=output_size,
    )


def _parse_decoder(part: _Section, tied_at_top: bool | None) -> DecoderConfig:
    width, heads = part.take("hidden_size"), part.take("num_attention_heads")
    # transformers reads the outer flag, and ties where none speaks. A stored head is always used.
    tied = part.raw.get("tie_word_embeddings", True) if tied_at_top is None else tied_at_top
    eos = part.raw.get("eos_token_id")
    if part.believed and "eos_token_id" not in part.raw:
        eos = part.take("eos_token_id")
    eos_ids = tuple(eos) if isinstance(eos, list) else (() if eos is None else (eos,))
    pad = part.raw.get("pad_token_id")
    return DecoderConfig(
        vocab_size=part.take("vocab_size"),
        hidden_size=width,
        intermediate_size=part.take("intermediate_size"),
        num_hidden_layers=part.take("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=part.raw.get("num_key_value_heads") or heads,
        head_dim=part.raw.get("head_dim") or width // heads,
        max_position_embeddings=part.take("max_position_embeddings"),
        rope_theta=_rope_theta(part),
        rms_norm_eps=part.take("rms_norm_eps"),
        hidden_act=part.take("hidden_act"),
        attention_bias=part.take("attention_bias"),
        mlp_bias=part.take("mlp_bias"),
        embedding_multiplier=part.take("embedding_multiplier"),
        attention_multiplier=part.take("attention_multiplier"),
        residual_multiplier=part.take("residual_multiplier"),
        logits_scaling=part.take("logits_scaling"),
        tie_word_embeddings=tied,
        eos_token_ids=eos_ids,
        pad_token_id=pad if pad is not None else (eos_ids[0] if eos_ids else 0),
    )


def _rope_theta(part: _Section) -> float:
    """Both spellings: ``rope_parameters`` (transformers 5), or ``rope_theta``."""
    rope = part.raw.get("rope_parameters") or part.raw.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ConfigError(f"{part.source}: RoPE type {kind!r} is not supported; expected 'default'")
    theta = rope.get("rope_theta", part.raw.get("rope_theta"))
    return float(part.take("rope_theta") if theta is None else theta)


def _check(config: ModelConfig, source: str) -> None:
    enc, proj, dec = config.encoder, config.projector, config.decoder
    rules = [
        (
            0 < enc.context_size <= enc.max_pos_emb,
            f"context_size {enc.context_size} must be between 1 and max_pos_emb {enc.max_pos_emb}",
        ),
        (
            proj.hidden_size % proj.num_attention_heads == 0,
            f"projector width {proj.hidden_size} does not divide into "
            f"{proj.num_attention_heads} heads",
        ),
        (
            proj.encoder_hidden_size == enc.output_size,
            f"the projector expects frames of width {proj.encoder_hidden_size}, the encoder "
            f"makes {enc.output_size}",
        ),
        (
            proj.window_size % proj.downsample_rate == 0,
            f"window_size {proj.window_size} is not a multiple of downsample_rate "
            f"{proj.downsample_rate}",
        ),
        (
            dec.num_attention_heads % dec.num_key_value_heads == 0,
            f"{dec.num_attention_heads} heads do not share {dec.num_key_value_heads} key/value "
            "heads evenly",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"{source}: {message}")
