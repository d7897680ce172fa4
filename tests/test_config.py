"""config.json becomes frozen dataclasses, or an error that names the key.

Run alone: ``python -m pytest tests/test_config.py``.
"""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from core.checkpoint.config_file import parse_config
from core.checkpoint.hf_defaults import LEFT_OUT
from core.errors import UserError
from core.families import family_of
from core.model.config import ConfigError, ModelConfig
from core.model.linear import ACTIVATIONS
from core.transcription.autoregressive import with_end_tokens
from oracle import transformers
from tiny_models import random_model, raw_config


def parse(raw: dict[str, Any]) -> ModelConfig:
    return parse_config(raw, source="here/config.json")


def failure(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    message = str(caught.value)
    assert message.startswith("here/config.json: ")
    assert "\n" not in message
    return message


def test_every_dimension_comes_from_the_file():
    config = parse(raw_config(encoder={"dim_head": 6}, window_size=12, downsample_rate=3))
    assert config.encoder.dim_head == 6
    assert config.projector.num_queries == 4
    assert config.projector.output_size == config.decoder.hidden_size == 32
    assert config.decoder.eos_token_ids == (300,)


def test_configs_are_frozen():
    with pytest.raises(FrozenInstanceError):
        parse(raw_config()).encoder.num_layers = 3


@pytest.mark.parametrize("part", ["encoder", "projector", "text"])
def test_a_missing_dimension_is_named(part: str):
    known = {"encoder": "encoder", "projector": "projector", "text": "decoder"}[part]
    # Their absence means something: one key head per head, the width over the heads, no end token.
    derived = {"dim_head", "num_key_value_heads", "eos_token_id", "bos_token_id", "pad_token_id"}
    derived |= {"model_type", "rope_theta", "dropout"} | set(LEFT_OUT[known])
    for key in set(raw_config()[f"{part}_config"]) - derived:
        raw = raw_config()
        del raw[f"{part}_config"][key]
        assert f"{known} has no {key!r}" in failure(raw)


@pytest.mark.parametrize("key", ["encoder_config", "projector_config", "text_config"])
def test_a_missing_part_is_named(key: str):
    raw = raw_config()
    del raw[key]
    assert repr(key) in failure(raw)


def test_no_audio_token_and_no_rope_are_errors():
    raw = raw_config()
    del raw["audio_token_index"]
    assert "audio_token_index" in failure(raw)
    raw = raw_config()
    del raw["text_config"]["rope_theta"]
    assert "rope_theta" in failure(raw)


def test_both_spellings_of_the_audio_token_and_of_rope():
    raw = raw_config(decoder={"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}})
    raw["audio_token_id"] = raw.pop("audio_token_index")
    del raw["text_config"]["rope_theta"]
    assert parse(raw).decoder.rope_theta == 5e5
    assert parse(raw).audio_token_id == 303
    assert parse(raw_config(decoder={"rope_scaling": None})).decoder.rope_theta == 1e4


def test_scaled_rope_is_refused():
    raw = raw_config(decoder={"rope_scaling": {"type": "yarn", "factor": 4.0}})
    assert "'yarn' is not supported" in failure(raw)


@pytest.mark.parametrize("kind", ["whisper", "granite", None, 5, ["granite_speech"]])
def test_another_model_type_is_named_with_those_that_are_known(kind: object):
    with pytest.raises(UserError) as raised:
        family_of(kind, "here/config.json")
    assert f"model_type is {kind!r}; expected one of: granite_speech" in str(raised.value)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("encoder", {"cat_hidden_layers": [3]}),
        ("encoder", {"self_conditioning_layer": 8}),
        ("decoder", {"num_local_experts": 8}),
        ("decoder", {"layer_types": ["mamba"]}),
        ("projector", {"model_type": "linear"}),
        ("projector", {"use_qformer_text_input": True}),
    ],
)
def test_architectures_this_code_does_not_build_are_refused(part: str, change: dict[str, Any]):
    assert "support" in (message := failure(raw_config(**{part: change}))) or "expected" in message


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"encoder": {"context_size": 33}}, "33.*32"),
        ({"encoder": {"context_size": 0}}, "context_size is 0; expected"),
        ({"projector": {"num_attention_heads": 5}}, "32.*5"),
        ({"projector": {"encoder_hidden_size": 48}}, "48.*32"),
        ({"downsample_rate": 4}, "15.*4"),
        ({"decoder": {"num_key_value_heads": 3}}, "4.*3"),
    ],
)
def test_dimensions_that_do_not_fit_together_are_named(changes: dict[str, Any], numbers: str):
    with pytest.raises(ConfigError, match=numbers):
        parse(raw_config(**changes))


def test_end_tokens_may_be_one_several_or_none():
    def ends(value: object) -> tuple[int, ...]:
        return parse(raw_config(decoder={"eos_token_id": value})).decoder.eos_token_ids

    assert ends(7) == (7,)
    assert ends(0) == (0,)
    assert ends([7, 0]) == (7, 0)
    assert ends(None) == ()


def test_the_outer_tying_flag_wins():
    def tied(outer: bool | None, inner: bool | None) -> bool:
        raw = raw_config(tie_word_embeddings=outer)
        if inner is not None:
            raw["text_config"]["tie_word_embeddings"] = inner
        return parse(raw).decoder.tie_word_embeddings

    assert tied(False, True) is False
    assert tied(True, False) is True
    assert tied(None, False) is False
    assert tied(None, None) is True


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoder": {"num_layers": 1_000_000}}, "encoder: num_layers is 1000000; expected less"),
        ({"encoder": {"num_layers": "2"}}, "encoder: num_layers is '2'; expected a valid integer"),
        ({"encoder": {"num_layers": True}}, "num_layers is True; expected a valid integer"),
        ({"encoder": {"num_heads": 64, "dim_head": None}}, "32 is too small for 64 heads"),
        ({"decoder": {"rms_norm_eps": float("nan")}}, "rms_norm_eps is nan; expected a finite"),
        ({"decoder": {"head_dim": 7}}, "head_dim 7 is not an even number"),
        ({"decoder": {"pad_token_id": 9_999}}, "pad_token_id 9999 is outside the vocabulary"),
        ({"decoder": {"eos_token_id": ["x"]}}, "eos_token_id.0 is 'x'; expected a valid integer"),
        ({"decoder": {"rope_scaling": "none"}}, "rope_scaling is 'none'; expected an object"),
        ({"window_size": 15 * 10**8, "downsample_rate": 5 * 10**8}, "window_size is 1500000000"),
        ({"encoder_config": [1, 2]}, "encoder_config is [1, 2]; expected an object"),
    ],
)
def test_values_of_another_type_or_size_are_named(changes: dict[str, Any], told: str):
    raw = raw_config(**{k: v for k, v in changes.items() if k in ("encoder", "decoder")})
    raw |= {k: v for k, v in changes.items() if k not in ("encoder", "decoder")}
    assert told in failure(raw)


def test_unknown_keys_do_no_harm():
    raw = raw_config(encoder={"initializer_range": 0.02}, transformers_version="9")
    assert parse(raw) == parse(raw_config())


def test_an_unknown_activation_lists_the_known_ones():
    with pytest.raises(ValueError, match="'mish'.*gelu.*silu"):
        random_model(raw_config(projector={"hidden_act": "mish"}))
    for name in ACTIVATIONS:
        assert parse(raw_config(projector={"hidden_act": name})).projector.hidden_act == name


@pytest.mark.oracle
@pytest.mark.parametrize("part", ["encoder_config", "projector_config", "text_config"])
def test_a_key_transformers_left_out_means_its_default(part: str) -> None:
    """transformers 4.x writes only what differs from its classes' defaults."""
    fits = {"model_type": "blip_2_qformer", "encoder_hidden_size": 1024}
    raw = transformers.GraniteSpeechConfig(projector_config=fits).to_dict()
    whole = parse_config(raw, source="config.json")
    # Without its class's defaults each part is left with its type alone.
    left = {"model_type": raw[part]["model_type"]}
    bare = {**raw, part: fits if part == "projector_config" else left}
    assert parse_config(bare, source="config.json") == whole
    unsigned = {key: value for key, value in bare.items() if key != "transformers_version"}
    with pytest.raises(ConfigError, match="has no"):
        parse_config(unsigned, source="config.json")


def test_end_tokens_of_the_generation_settings_outrank_the_config() -> None:
    config = parse_config(raw_config(), source="config.json")
    assert with_end_tokens(config, None) is config
    assert with_end_tokens(config, 7).decoder.eos_token_ids == (7,)
    assert with_end_tokens(config, [7, 9]).decoder.eos_token_ids == (7, 9)
