"""config.json -> :class:`core.model.config.ModelConfig`.

In: the parsed ``config.json`` of a ``granite_speech`` or ``granite_speech_plus`` checkpoint. Out:
its dimensions, checked to fit together. What a checkpoint does not state is an error, unless its
file was written by transformers, where a missing key means the class's default
(``core.checkpoint.hf_defaults``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.checkpoint import records, schema
from core.checkpoint.hf_defaults import LEFT_OUT, WRITTEN_BY_TRANSFORMERS
from core.model.config import (
    ConfigError,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ProjectorConfig,
)

SUPPORTED = "granite_speech"

SECTIONS = {
    "encoder": "encoder_config",
    "projector": "projector_config",
    "decoder": "text_config",
}

PLUS = "granite_speech_plus"
NAR, NAR_FIRST = "granite_speech_nar", "nle"  # today's name, and that of its first release

# Keys that change the architecture of relatives this code does not build.
REFUSED = {
    "encoder": ("self_conditioning_layer", "subsample_layers"),
    "decoder": ("num_local_experts", "layer_types"),
}


def parse_config(raw: Mapping[str, Any], *, source: str) -> ModelConfig:
    """Read a parsed ``config.json``; ``source`` names it in messages.

    Returns:
        The dimensions of the whole model.

    Raises:
        ConfigError: a missing key, or dimensions that do not fit together.
    """
    model = read_section(records.ModelRecord, raw, "model", source)
    encoder = read_section(records.EncoderRecord, raw, "encoder", source)
    projector = read_section(records.ProjectorRecord, raw, "projector", source)
    text = read_section(records.DecoderRecord, raw, "decoder", source)
    config = ModelConfig(
        encoder=_encoder(encoder, raw.get("model_type"), source),
        projector=_projector(projector, model, text.hidden_size),
        decoder=decoder_config(text, model.tie_word_embeddings, source),
        audio_token_id=_audio_token(model, source),
        has_lora_adapter=model.has_lora_adapter,
    )
    _check(config, source)
    return config


def check_mel_bins(front_end: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Compare the bins of a ``preprocessor_config.json`` with the encoder's input.

    Raises:
        ConfigError: two mel frames side by side are not what the encoder takes.
    """
    nested = {**front_end, **front_end.get("melspec_kwargs", {})}
    bins = nested.get("n_mels", nested.get("feature_size"))
    encoder = config.get("encoder_config")
    ours = config.get("model_type") in (SUPPORTED, PLUS, NAR, NAR_FIRST)
    if not ours or bins is None or not isinstance(encoder, Mapping):
        return
    width = encoder.get("input_dim")
    if isinstance(width, int) and width != 2 * bins:
        raise ConfigError(
            f"{source}: {bins} mel bins make frames of {2 * bins}; the encoder takes {width}"
        )


def read_section(
    record: type[schema.Record], raw: Mapping[str, Any], part: str, source: str
) -> schema.Record:
    """Check one part of the config, filled up with what leaving a key out means.

    Args:
        record: its schema.
        raw: the whole file.
        part: "model", "encoder", "projector" or "decoder".
        source: names the file in messages.

    Returns:
        The record.

    Raises:
        ConfigError: a missing key, a value out of range, or a variant that is not supported.
    """
    key = SECTIONS.get(part)
    own = raw if key is None else schema.part_of(raw, key, source)
    for refused in REFUSED.get(part, ()):
        if own.get(refused):
            raise ConfigError(
                f"{source}: {part} has {refused!r}; this variant is not supported yet"
            )
    implied = dict(LEFT_OUT[part])
    if "transformers_version" in raw:  # it wrote the file: a missing key means its default
        implied |= WRITTEN_BY_TRANSFORMERS[part]
    # Null is the same as a missing key, but for an end token: there it says "none".
    stated = {k: v for k, v in own.items() if v is not None or k == "eos_token_id"}
    return schema.validate(record, implied | stated, f"{source}: {part}", error=ConfigError)


def _audio_token(model: records.ModelRecord, source: str) -> int:
    for token in (model.audio_token_index, model.audio_token_id):
        if token is not None:
            return token
    raise ConfigError(f"{source}: no 'audio_token_index'; expected the id of the <|audio|> token")


def _encoder(part: records.EncoderRecord, model_type: Any, source: str) -> EncoderConfig:
    values = part.model_dump()
    values["dim_head"] = part.dim_head or part.hidden_dim // part.num_heads
    values["self_conditioning_layer"] = part.num_layers // 2
    values["cat_hidden_layers"] = _kept_layers(part, model_type, source)
    return EncoderConfig(**values)


def _kept_layers(part: records.EncoderRecord, model_type: Any, source: str) -> tuple[int, ...]:
    """Read ``cat_hidden_layers`` as the set that the reference takes it for."""
    kept, last = set(part.cat_hidden_layers or ()), part.num_layers - 1
    if kept and model_type != PLUS:
        raise ConfigError(
            f"{source}: encoder has 'cat_hidden_layers', which the model_type does not "
            f"support; expected {PLUS!r}"
        )
    if not kept <= set(range(last + 1)):
        raise ConfigError(
            f"{source}: cat_hidden_layers is {list(kept)}; expected numbers from 0 to {last}"
        )
    return tuple(sorted(kept))


def _projector(
    part: records.ProjectorRecord, model: records.ModelRecord, output_size: int
) -> ProjectorConfig:
    values = part.model_dump(exclude={"model_type", "use_qformer_text_input"})
    return ProjectorConfig(
        dropout=values.pop("hidden_dropout_prob"),
        window_size=model.window_size,
        downsample_rate=model.downsample_rate,
        output_size=output_size,
        **values,
    )


def decoder_config(
    part: records.DecoderRecord, tied_at_top: bool | None, source: str
) -> DecoderConfig:
    """Take the decoder's dimensions over; ``tied_at_top`` is the outer file's word on its head.

    Returns:
        The dimensions.

    Raises:
        ConfigError: a kind of RoPE that this code does not compute.
    """
    width, heads, ends = part.hidden_size, part.num_attention_heads, tuple(part.eos_token_id)
    other = {"rope_theta", "rope_parameters", "rope_scaling", "eos_token_id", "pad_token_id"}
    values = part.model_dump(exclude=other)
    values["num_key_value_heads"] = part.num_key_value_heads or heads
    values["head_dim"] = part.head_dim or width // heads
    # transformers reads the outer flag, and ties where none speaks. A stored head is always used.
    if tied_at_top is not None:
        values["tie_word_embeddings"] = tied_at_top
    pad = part.pad_token_id
    return DecoderConfig(
        rope_theta=_rope_theta(part, source),
        eos_token_ids=ends,
        pad_token_id=pad if pad is not None else (ends[0] if ends else 0),
        **values,
    )


def _rope_theta(part: records.DecoderRecord, source: str) -> float:
    """Read both spellings: ``rope_parameters`` (transformers 5), or ``rope_theta``."""
    stated = part.rope_parameters.model_fields_set
    rope = part.rope_parameters if stated else part.rope_scaling
    kind = rope.rope_type or rope.type or "default"
    if kind != "default":
        raise ConfigError(f"{source}: RoPE type {kind!r} is not supported; expected 'default'")
    theta = part.rope_theta if rope.rope_theta is None else rope.rope_theta
    if theta is None:
        raise ConfigError(f"{source}: decoder has no 'rope_theta'; expected a complete file")
    return theta


def _check(config: ModelConfig, source: str) -> None:
    enc, proj, dec = config.encoder, config.projector, config.decoder
    check_shared_parts(enc, dec, source)
    schema.require(
        source,
        (
            dec.pad_token_id < dec.vocab_size or dec.pad_token_id == config.audio_token_id,
            f"pad_token_id {dec.pad_token_id} is outside the vocabulary of {dec.vocab_size}",
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
    )


def check_shared_parts(enc: EncoderConfig, dec: DecoderConfig, source: str) -> None:
    """Check the encoder and the decoder that several families have.

    Raises:
        ConfigError: dimensions that do not fit together.
    """
    schema.require(
        source,
        (
            enc.context_size <= enc.max_pos_emb,
            f"context_size {enc.context_size} exceeds max_pos_emb {enc.max_pos_emb}",
        ),
        (enc.dim_head > 0, f"hidden_dim {enc.hidden_dim} is too small for {enc.num_heads} heads"),
        (enc.input_dim % 2 == 0, f"input_dim {enc.input_dim} is not two mel frames side by side"),
        (
            dec.head_dim > 0 and dec.head_dim % 2 == 0,
            f"head_dim {dec.head_dim} is not an even number, which RoPE needs",
        ),
        (
            dec.num_attention_heads % dec.num_key_value_heads == 0,
            f"{dec.num_attention_heads} heads do not share {dec.num_key_value_heads} key/value "
            "heads evenly",
        ),
    )
