"""The files of a ``granite_speech5_ctc`` checkpoint -> its dimensions and its front end.

In: the parsed ``config.json``, or a resolved checkpoint. Out: :class:`GraniteSpeech5Config` and
:class:`DeltaFeatureConfig`, checked to fit together. transformers writes every key of this family,
so a missing one is an error; keys that inference does not read are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from core.checkpoint import schema
from core.checkpoint.hub import CheckpointFiles
from core.checkpoint.records import Activation, Bins, Frames, Layers, Token, Width
from core.checkpoint.schema import Section
from core.model.config import ConfigError
from core.model.ctc import BLANK
from core.model.delta_features import VALUES_PER_BIN, DeltaFeatureConfig
from core.model.features import DYNAMIC_RANGE
from core.model.granite_speech5_ctc import GraniteSpeech5Config

MODEL_TYPE = "granite_speech5_ctc"
EXTRACTOR = "GraniteSpeech5FeatureExtractor"

# The published front end, for folders that do not state theirs.
STANDARD_FRONT_END = DeltaFeatureConfig(16_000, 512, 400, 160, 80, 3)


class CTCEncoder(Section):
    """``encoder_config`` of the family ``granite_speech5_ctc``."""

    num_mel_bins: Bins
    num_hidden_layers: Layers
    hidden_size: Width
    num_attention_heads: Width
    num_key_value_heads: Width | None = None
    head_dim: Width | None = None
    intermediate_size: Width
    attention_bias: bool
    hidden_act: Activation
    vocab_size: Width
    context_size: Frames
    max_position_embeddings: Width
    conv_kernel_size: Frames
    conv_expansion_factor: Width
    subsample_layers: Annotated[list[Token], Field(max_length=8)]


class CTCModel(Section):
    """The ``config.json`` of that family beside its encoder."""

    vocab_size: Width
    pad_token_id: Token = 0
    tie_word_embeddings: bool = True


def parse_granite_speech5_ctc(raw: Mapping[str, Any], source: str) -> GraniteSpeech5Config:
    """Read a parsed ``config.json``; ``source`` names it in messages.

    Returns:
        The encoder's dimensions.

    Raises:
        ConfigError: another model type, a missing key, or values that do not fit together.
    """
    if raw.get("model_type") != MODEL_TYPE:
        raise ConfigError(
            f"{source}: model_type is {schema.shorten(raw.get('model_type'))}; expected "
            f"{MODEL_TYPE!r}"
        )
    stated = schema.part_of(raw, "encoder_config", source)
    model = schema.validate(CTCModel, raw, f"{source}: model", error=ConfigError)
    part = schema.validate(CTCEncoder, stated, f"{source}: encoder", error=ConfigError)
    heads = part.num_attention_heads
    config = GraniteSpeech5Config(
        input_dim=VALUES_PER_BIN * part.num_mel_bins,
        num_layers=part.num_hidden_layers,
        hidden_dim=part.hidden_size,
        num_heads=heads,
        dim_head=part.head_dim or part.hidden_size // heads,
        feedforward_dim=part.intermediate_size,
        feedforward_bias=part.attention_bias,  # its name notwithstanding
        hidden_act=part.hidden_act,
        vocab_size=part.vocab_size,
        context_size=part.context_size,
        max_pos_emb=part.max_position_embeddings,
        conv_kernel_size=part.conv_kernel_size,
        conv_expansion_factor=part.conv_expansion_factor,
        subsample_layers=tuple(sorted(part.subsample_layers)),
    )
    _check_head(model, config, source)
    _check_encoder(config, part.num_key_value_heads or heads, source)
    return config


def read_delta_features(files: CheckpointFiles, config: GraniteSpeech5Config) -> DeltaFeatureConfig:
    """Read the front end of ``processor_config.json``, or take the published one.

    ``preprocessor_config.json`` counts only if it is this family's: the published repository keeps
    one of an older program.

    Returns:
        The front end's settings.

    Raises:
        ConfigError: a front end that this code does not compute or that does not fit the encoder.
    """
    raw = files.json("processor_config.json").get("feature_extractor")
    older = files.json("preprocessor_config.json")
    if raw is None and older.get("feature_extractor_type") == EXTRACTOR:
        raw = older
    raw, standard = raw or {}, STANDARD_FRONT_END
    found = DeltaFeatureConfig(
        sampling_rate=raw.get("sampling_rate", standard.sampling_rate),
        n_fft=raw.get("n_fft", standard.n_fft),
        win_length=raw.get("win_length", standard.win_length),
        hop_length=raw.get("hop_length", standard.hop_length),
        n_mels=raw.get("num_mel_bins", standard.n_mels),
        delta_win_length=raw.get("delta_win_length", standard.delta_win_length),
    )
    depth = raw.get("logmel_floor_db", DYNAMIC_RANGE)
    schema.require(
        files.source,
        (
            found.sampling_rate == standard.sampling_rate,
            f"the front end wants {found.sampling_rate} Hz; expected {standard.sampling_rate}",
        ),
        (
            found.delta_win_length % 2 == 1,
            f"delta_win_length is {found.delta_win_length}; expected an odd number",
        ),
        (depth == DYNAMIC_RANGE, f"logmel_floor_db is {depth}; expected {DYNAMIC_RANGE}"),
        (
            found.row_width == config.input_dim,
            f"the front end makes rows of {found.row_width} values; the encoder expects "
            f"{config.input_dim}",
        ),
    )
    return found


def _check_head(model: CTCModel, config: GraniteSpeech5Config, source: str) -> None:
    schema.require(
        source,
        (
            model.vocab_size == config.vocab_size,
            f"vocab_size is {model.vocab_size} but the encoder's is {config.vocab_size}; expected "
            "the same number",
        ),
        (
            model.pad_token_id == BLANK,
            f"pad_token_id, the blank label, is {model.pad_token_id}; expected {BLANK}",
        ),
        (
            model.tie_word_embeddings,
            "tie_word_embeddings is false; expected one CTC head for the middle and the end",
        ),
    )


def _check_encoder(config: GraniteSpeech5Config, key_heads: int, source: str) -> None:
    halved = config.subsample_layers
    schema.require(
        source,
        (
            config.context_size <= config.max_pos_emb,
            f"context_size {config.context_size} exceeds max_position_embeddings "
            f"{config.max_pos_emb}",
        ),
        (
            config.dim_head > 0,
            f"hidden_size {config.hidden_dim} is too small for {config.num_heads} heads",
        ),
        (
            key_heads == config.num_heads,
            f"num_key_value_heads is {key_heads}; expected {config.num_heads}, one a head",
        ),
        (
            config.conv_kernel_size % 2 == 1,
            f"conv_kernel_size is {config.conv_kernel_size}; expected an odd number",
        ),
        (
            len(set(halved)) == len(halved) and set(halved) <= set(range(config.num_layers)),
            f"subsample_layers is {list(halved)}; expected different layers from 0 to "
            f"{config.num_layers - 1}",
        ),
    )
