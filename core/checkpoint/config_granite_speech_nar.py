"""config.json of a ``granite_speech_nar`` or ``nle`` checkpoint -> its dimensions.

In: the parsed file. Out: :class:`GraniteSpeechNarConfig`, checked to fit together. Three layouts
exist, told apart by their keys:

- the first release (``nle``): label 0 of the draft's head is blank, label i token i - 1; its draft
  is written in lower case and tokenised again; logits are not divided; its front end is that of
  the autoregressive models;
- the release of today: labels are tokens, ``blank_token_id`` is the blank;
- that of a class proposed for transformers, which is recognised and refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from core.checkpoint import schema
from core.checkpoint.config_file import (
    NAR,
    NAR_FIRST,
    check_shared_parts,
    decoder_config,
    read_section,
)
from core.checkpoint.hf_defaults import LEFT_OUT
from core.checkpoint.records import (
    DecoderRecord,
    EncoderRecord,
    Epsilon,
    Frames,
    Layers,
    Token,
    Width,
)
from core.checkpoint.schema import Section
from core.model.config import ConfigError, DecoderConfig, EncoderConfig
from core.model.ctc import BLANK
from core.model.granite_speech_nar import DraftHeadConfig, GraniteSpeechNarConfig
from core.model.window_projector import WindowProjectorConfig

FIRST_MIN_LENGTH = 8  # the first release has no key for it
MIN_POSITIONS = 64  # of the decoder: a second of audio and its words


class NarEncoder(EncoderRecord):
    """``encoder_config``."""

    self_conditioning_layer: Layers
    bpe_output_dim: Width
    bpe_pooling_window: Frames


class NarProjector(Section):
    """``projector_config``."""

    encoder_dim: Width
    num_encoder_layers: Layers
    hidden_size: Width
    num_heads: Width
    num_layers: Layers
    block_size: Frames
    downsample_rate: Frames
    llm_dim: Width
    mlp_ratio: Width
    layernorm_eps: Epsilon
    attn_bias: bool
    mlp_bias: bool


class NarModel(Section):
    """``config.json`` beside its parts."""

    encoder_layer_indices: Annotated[list[int], Field(min_length=1, max_length=256)]
    scale_projected_embeddings: bool
    tie_word_embeddings: bool | None = None


class NarBlank(Section):
    """Fields that only the current release states."""

    blank_token_id: Token
    min_edit_sequence_length: Frames


def parse_granite_speech_nar(raw: Mapping[str, Any], source: str) -> GraniteSpeechNarConfig:
    """Read a parsed ``config.json``; ``source`` names it in messages.

    Returns:
        The dimensions of the whole model.

    Raises:
        ConfigError: another layout, a missing key, or values that do not fit together.
    """
    is_first = _is_first_release(raw, source)
    raw = _as_today(raw, source) if is_first else raw
    stated = LEFT_OUT["encoder"] | dict(schema.part_of(raw, "encoder_config", source))
    part = schema.validate(NarEncoder, stated, f"{source}: encoder", error=ConfigError)
    stated = dict(schema.part_of(raw, "projector_config", source))
    projector = schema.validate(NarProjector, stated, f"{source}: projector", error=ConfigError)
    model = schema.validate(NarModel, raw, f"{source}: model", error=ConfigError)
    text = read_section(DecoderRecord, raw, "decoder", source)
    decoder = decoder_config(text, model.tie_word_embeddings, source)
    blank = _blank(raw, decoder, source, is_first=is_first)
    config = GraniteSpeechNarConfig(
        encoder=_encoder(part, model, source),
        draft_head=DraftHeadConfig(
            num_labels=part.bpe_output_dim,
            pooling_window=part.bpe_pooling_window,
            blank_label=BLANK if is_first else blank.blank_token_id,
            token_offset=1 if is_first else 0,
        ),
        projector=_projector(projector),
        decoder=replace(decoder, logits_scaling=1.0) if is_first else decoder,
        blank_token_id=blank.blank_token_id,
        min_edit_length=blank.min_edit_sequence_length,
        scale_audio=model.scale_projected_embeddings,
        lower_case_draft=is_first,
        whole_steps=not is_first,
    )
    check_shared_parts(config.encoder, config.decoder, source)
    _check(config, source)
    return config


def _is_first_release(raw: Mapping[str, Any], source: str) -> bool:
    """Tell the layouts apart by their keys; model_type alone does not say which it is."""

    def has(part: str, key: str) -> bool:
        found = raw.get(part)
        return isinstance(found, Mapping) and key in found

    if has("encoder_config", "pooling_window"):
        raise ConfigError(
            f"{source}: encoder_config.pooling_window is the layout of a class proposed for "
            "transformers, which is not supported; expected that of the released repository, with "
            "projector_config.block_size"
        )
    if not has("projector_config", "block_size"):
        raise ConfigError(
            f"{source}: no projector_config.block_size; expected the layout of the released "
            f"repository for model_type {schema.shorten(raw.get('model_type'))}"
        )
    is_first = "llm_config" in raw
    expected = NAR_FIRST if is_first else NAR
    if raw.get("model_type") != expected:
        raise ConfigError(
            f"{source}: model_type is {schema.shorten(raw.get('model_type'))}; expected "
            f"{expected!r} for a file {'with' if is_first else 'without'} llm_config"
        )
    return is_first


def _as_today(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Give the parts of a first release the places that they have today."""
    projector = schema.part_of(raw, "projector_config", source)
    moved = {k: projector[k] for k in ("encoder_layer_indices",) if k in projector}
    return {**raw, **moved, "text_config": raw["llm_config"]}


def _blank(
    raw: Mapping[str, Any], decoder: DecoderConfig, source: str, *, is_first: bool
) -> NarBlank:
    stated: dict[str, Any] = dict(raw)
    if is_first:
        blank = dict(zip(("blank_token_id",), decoder.eos_token_ids, strict=False))
        stated = {"min_edit_sequence_length": FIRST_MIN_LENGTH, **blank, **stated}
    return schema.validate(NarBlank, stated, f"{source}: model", error=ConfigError)


def _encoder(part: NarEncoder, model: NarModel, source: str) -> EncoderConfig:
    last = part.num_layers
    layers = [last + 1 + n if n < 0 else n for n in model.encoder_layer_indices]
    schema.require(
        source,
        (
            layers == sorted(set(layers)) and layers[0] >= 0 and layers[-1] == last,
            f"encoder_layer_indices is {model.encoder_layer_indices}; expected rising numbers "
            f"from 0 to {last}, the last of them {last} or -1",
        ),
        (
            part.self_conditioning_layer <= last,
            f"self_conditioning_layer is {part.self_conditioning_layer}; expected at most {last}",
        ),
    )
    values = part.model_dump(exclude={"bpe_output_dim", "bpe_pooling_window"})
    values["dim_head"] = part.dim_head or part.hidden_dim // part.num_heads
    values["cat_hidden_layers"] = tuple(layers[:-1])
    return EncoderConfig(**values)


def _projector(part: NarProjector) -> WindowProjectorConfig:
    return WindowProjectorConfig(
        encoder_size=part.encoder_dim,
        num_states=part.num_encoder_layers,
        hidden_size=part.hidden_size,
        num_layers=part.num_layers,
        num_heads=part.num_heads,
        mlp_size=part.hidden_size * part.mlp_ratio,
        layer_norm_eps=part.layernorm_eps,
        attention_bias=part.attn_bias,
        mlp_bias=part.mlp_bias,
        window_size=part.block_size,
        downsample_rate=part.downsample_rate,
        output_size=part.llm_dim,
    )


def _check(config: GraniteSpeechNarConfig, source: str) -> None:
    enc, head, proj, dec = config.encoder, config.draft_head, config.projector, config.decoder
    labels = dec.vocab_size + head.token_offset
    schema.require(
        source,
        (
            head.num_labels == labels,
            f"bpe_output_dim is {head.num_labels}; expected {labels}, by the decoder's vocab_size",
        ),
        (
            config.blank_token_id < dec.vocab_size,
            f"blank_token_id {config.blank_token_id} is outside the vocabulary of {dec.vocab_size}",
        ),
        (
            (proj.num_states, proj.encoder_size)
            == (len(enc.cat_hidden_layers) + 1, enc.hidden_dim),
            f"the projector expects {proj.num_states} states of width {proj.encoder_size}, the "
            f"encoder keeps {len(enc.cat_hidden_layers) + 1} of {enc.hidden_dim}",
        ),
        (
            proj.hidden_size % proj.num_heads == 0,
            f"projector width {proj.hidden_size} does not divide into {proj.num_heads} heads",
        ),
        (
            proj.window_size % proj.downsample_rate == 0,
            f"block_size {proj.window_size} is not a multiple of downsample_rate "
            f"{proj.downsample_rate}",
        ),
        (
            proj.output_size == dec.hidden_size,
            f"llm_dim is {proj.output_size}; expected {dec.hidden_size}, the decoder's hidden_size",
        ),
        (
            dec.max_position_embeddings >= MIN_POSITIONS,
            f"max_position_embeddings is {dec.max_position_embeddings}; expected at least "
            f"{MIN_POSITIONS}",
        ),
    )
