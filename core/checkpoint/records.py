"""Records of a checkpoint's settings files: the keys that are read, their types and their ranges.

In: nothing. Out: pydantic models for ``core.checkpoint.schema.validate``. Ranges end far beyond
every published checkpoint and before the point where a small file asks for much memory or time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from core.checkpoint.schema import Section
from core.model.linear import ACTIVATIONS


def _known_activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f"expected one of {', '.join(sorted(ACTIVATIONS))}")
    return name


def _as_list(value: Any) -> Any:
    return [value] if type(value) is int else value


Layers = Annotated[int, Field(ge=1, le=256)]
Width = Annotated[int, Field(ge=1, le=2**20)]
Frames = Annotated[int, Field(ge=1, le=2_000)]  # 40 s at 50 Hz
Window = Annotated[int, Field(ge=16, le=512)]  # half of it pads the shortest clip, 257 samples
Bins = Annotated[int, Field(ge=1, le=512)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Rank = Annotated[int, Field(ge=1, le=2**16)]
Alpha = Annotated[float, Field(gt=0, le=1e6)]
Tokens = Annotated[list[Token], BeforeValidator(_as_list), Field(max_length=1_000)]
Factor = Annotated[float, Field(gt=0, le=1e9)]
Epsilon = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Activation = Annotated[str, AfterValidator(_known_activation)]


class EncoderRecord(Section):
    """``encoder_config``."""

    input_dim: Width
    num_layers: Layers
    hidden_dim: Width
    num_heads: Width
    dim_head: Width | None = None
    feedforward_mult: Width
    output_dim: Width
    context_size: Frames
    max_pos_emb: Width
    conv_kernel_size: Frames
    conv_expansion_factor: Width
    dropout: Share
    cat_hidden_layers: Annotated[list[int], Field(max_length=256)] | None = None


class ProjectorRecord(Section):
    """``projector_config``."""

    model_type: Literal["blip_2_qformer"] = "blip_2_qformer"
    use_qformer_text_input: Literal[False]
    hidden_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Width
    intermediate_size: Width
    encoder_hidden_size: Width
    cross_attention_frequency: Width
    layer_norm_eps: Epsilon
    hidden_act: Activation
    hidden_dropout_prob: Share


class Rope(Section):
    """``rope_parameters`` (transformers 5) or ``rope_scaling``."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Factor | None = None


class DecoderRecord(Section):
    """``text_config``."""

    vocab_size: Width
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Width
    num_key_value_heads: Width | None = None
    head_dim: Width | None = None
    max_position_embeddings: Annotated[int, Field(ge=1, le=2**24)]
    rope_theta: Factor | None = None
    rope_parameters: Rope = Rope()
    rope_scaling: Rope = Rope()
    rms_norm_eps: Epsilon
    hidden_act: Activation
    attention_bias: bool
    mlp_bias: bool
    embedding_multiplier: Factor
    attention_multiplier: Factor
    residual_multiplier: Factor
    logits_scaling: Factor
    tie_word_embeddings: bool = True
    eos_token_id: Tokens = []
    pad_token_id: Token | None = None


class ModelRecord(Section):
    """``config.json`` beside its three parts."""

    window_size: Frames
    downsample_rate: Frames
    has_lora_adapter: bool
    tie_word_embeddings: bool | None = None
    audio_token_index: Token | None = None
    audio_token_id: Token | None = None


class Spectrogram(Section):
    """A mel spectrogram's settings; those of other front ends stay beside them."""

    model_config = ConfigDict(extra="allow")

    sample_rate: Width | None = None
    sampling_rate: Width | None = None
    n_fft: Window | None = None
    win_length: Window | None = None
    hop_length: Annotated[int, Field(ge=40, le=512)] | None = None
    n_mels: Bins | None = None
    num_mel_bins: Bins | None = None
    delta_win_length: Annotated[int, Field(ge=3, le=99)] | None = None
    logmel_floor_db: float | None = None
    feature_size: Width | None = None


class FrontEnd(Spectrogram):
    """``preprocessor_config.json``, or an extractor's part of ``processor_config.json``."""

    melspec_kwargs: Spectrogram = Spectrogram()

    @model_validator(mode="after")
    def _window_fits(self) -> FrontEnd:
        inner = self.melspec_kwargs
        n_fft = inner.n_fft or self.n_fft or 512
        window = inner.win_length or self.win_length or 400
        if window > n_fft:
            raise ValueError(f"win_length {window} exceeds n_fft {n_fft}")
        return self


class AddedToken(Section):
    """A special token that is described by an object."""

    content: str


class NamedTemplate(Section):
    """One of several chat templates."""

    name: str
    template: str


class Templates(Section):
    """``chat_template.json``."""

    chat_template: str | list[NamedTemplate] | None = None


class TextSettings(Templates):
    """``tokenizer_config.json``."""

    bos_token: str | AddedToken | None = None
    eos_token: str | AddedToken | None = None
    pad_token: str | AddedToken | None = None
    unk_token: str | AddedToken | None = None


class Processor(Templates):
    """``processor_config.json``."""

    audio_processor: FrontEnd = FrontEnd()
    feature_extractor: FrontEnd = FrontEnd()


class Generation(Section):
    """``generation_config.json``."""

    eos_token_id: Tokens = []


class Description(Section):
    """``lab.json``: what of a catalog entry a checkpoint states itself."""

    family: str
    title: str = ""
    licence: str = ""
    size_bytes: Annotated[int, Field(ge=0)] = 0
    parameters: Annotated[int, Field(ge=0)] = 0
    tasks: list[Literal["transcribe", "translate", "instruct", "speakers", "timestamps"]] = []
    languages: list[str] = []
    target_languages: list[str] = []
    keywords: bool = False
    punctuation: bool = False
    text_mode: bool = False
    num_beams: Annotated[int, Field(ge=1, le=64)] = 1
    reliable_s: Annotated[float, Field(ge=1, le=3_600)] = 30.0
    notes: str = ""
    commercial_use: bool = True
    prefix_text: bool = False


class WeightIndex(Section):
    """``model.safetensors.index.json``."""

    weight_map: dict[str, str]


class Adapter(Section):
    """``adapter_config.json``, as far as it decides what an adapter computes."""

    peft_type: str = "LORA"
    r: Rank = 8
    lora_alpha: Alpha = 8
    rank_pattern: Annotated[dict[str, Rank], Field(max_length=2_000)] = {}
    alpha_pattern: Annotated[dict[str, Alpha], Field(max_length=2_000)] = {}
    use_rslora: bool = False
    bias: str = "none"
    init_lora_weights: bool | str = True
    modules_to_save: Annotated[
        list[Annotated[str, Field(max_length=500)]], Field(max_length=10_000)
    ] = []
