"""Names, shapes and sizes of the published checkpoints, as their config.json gives them.

Run alone: ``python -m pytest tests/test_checkpoint_names.py``.
"""

import json
from pathlib import Path

import pytest
import torch

from core.checkpoint.config_file import parse_config
from core.checkpoint.key_map import native_name, stored_name, to_stored
from core.model.granite_speech import GraniteSpeech

DATA = Path(__file__).parent / "data"
# Millions of parameters: encoder, projector, decoder, adapter (rank 64 on q and v), all together.
# Tensors: floating-point ones as stored, a tied head left out. The BatchNorm counters come on top.
PUBLISHED = {
    "granite-speech-3.2-8b": (274.8, 37.8, 8170.9, 34.1, 8517.6, 745),
    "granite-speech-3.3-2b": (440.0, 35.7, 2533.5, 17.0, 3026.3, 937),
    "granite-speech-3.3-8b": (440.0, 37.8, 8170.9, 34.1, 8682.8, 937),
    "granite-4.0-1b-speech": (440.2, 35.7, 1837.3, 0.0, 2313.2, 938),
    "granite-speech-4.1-2b": (440.2, 35.7, 1837.3, 0.0, 2313.2, 938),
}


def published(name: str) -> tuple[dict, GraniteSpeech]:
    raw = json.loads((DATA / f"{name}.json").read_text())
    with torch.device("meta"):
        return raw, GraniteSpeech(parse_config(raw, source=name))


def linear(name: str, out_size: int, in_size: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    weight = {f"{name}.weight": (out_size, in_size)}
    return weight | ({f"{name}.bias": (out_size,)} if bias else {})


def norm(name: str, width: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,)} | ({f"{name}.bias": (width,)} if bias else {})


def expected_encoder(raw: dict) -> dict[str, tuple[int, ...]]:
    width, inner = raw["hidden_dim"], raw["num_heads"] * raw["dim_head"]
    wide, channels = raw["feedforward_mult"] * width, raw["conv_expansion_factor"] * width
    keys = linear("encoder.input_linear", width, raw["input_dim"])
    keys |= linear("encoder.out", raw["output_dim"], width)
    keys |= linear("encoder.out_mid", width, raw["output_dim"])
    for number in range(raw["num_layers"]):
        at = f"encoder.layers.{number}"
        for part in ("ff1", "ff2"):
            keys |= norm(f"{at}.{part}.pre_norm", width)
            keys |= linear(f"{at}.{part}.up_proj", wide, width)
            keys |= linear(f"{at}.{part}.down_proj", width, wide)
        keys |= norm(f"{at}.attn.pre_norm", width) | norm(f"{at}.post_norm", width)
        keys |= linear(f"{at}.attn.to_q", inner, width, bias=False)
        keys |= linear(f"{at}.attn.to_kv", 2 * inner, width, bias=False)
        keys |= linear(f"{at}.attn.to_out", width, inner)
        keys[f"{at}.attn.rel_pos_emb.weight"] = (2 * raw["max_pos_emb"] + 1, raw["dim_head"])
        keys |= norm(f"{at}.conv.norm", width) | norm(f"{at}.conv.batch_norm", channels)
        keys[f"{at}.conv.up_conv.weight"] = (2 * channels, width, 1)
        keys[f"{at}.conv.up_conv.bias"] = (2 * channels,)
        keys[f"{at}.conv.depth_conv.conv.weight"] = (channels, 1, raw["conv_kernel_size"])
        keys[f"{at}.conv.down_conv.weight"] = (width, channels, 1)
        keys[f"{at}.conv.down_conv.bias"] = (width,)
        keys |= {f"{at}.conv.batch_norm.running_{kind}": (channels,) for kind in ("mean", "var")}
        keys[f"{at}.conv.batch_norm.num_batches_tracked"] = ()
    return keys


def expected_projector(raw: dict, num_queries: int, decoder: int) -> dict[str, tuple[int, ...]]:
    width, wide = raw["hidden_size"], raw["intermediate_size"]
    keys = {"projector.query": (1, num_queries, width)}
    keys |= norm("projector.qformer.layernorm", width)
    keys |= linear("projector.linear", decoder, width)
    for number in range(raw["num_hidden_layers"]):
        at = f"projector.qformer.encoder.layer.{number}"
        for part, source in (("attention", width), ("crossattention", raw["encoder_hidden_size"])):
            keys |= linear(f"{at}.{part}.attention.query", width, width)
            keys |= linear(f"{at}.{part}.attention.key", width, source)
            keys |= linear(f"{at}.{part}.attention.value", width, source)
            keys |= linear(f"{at}.{part}.output.dense", width, width)
            keys |= norm(f"{at}.{part}.output.LayerNorm", width)
        keys |= linear(f"{at}.intermediate_query.dense", wide, width)
        keys |= linear(f"{at}.output_query.dense", width, wide)
        keys |= norm(f"{at}.output_query.LayerNorm", width)
    return keys


def expected_decoder(raw: dict, tied: bool) -> dict[str, tuple[int, ...]]:
    width, wide = raw["hidden_size"], raw["intermediate_size"]
    shared = width // raw["num_attention_heads"] * raw["num_key_value_heads"]
    keys = {"language_model.model.embed_tokens.weight": (raw["vocab_size"], width)}
    keys |= norm("language_model.model.norm", width, bias=False)
    if not tied:
        keys |= linear("language_model.lm_head", raw["vocab_size"], width, bias=False)
    for number in range(raw["num_hidden_layers"]):
        at = f"language_model.model.layers.{number}"
        sizes = {"q": (width, width), "k": (shared, width), "v": (shared, width)}
        for letter, (out_size, in_size) in {**sizes, "o": (width, width)}.items():
            keys |= linear(f"{at}.self_attn.{letter}_proj", out_size, in_size, bias=False)
        keys |= linear(f"{at}.mlp.gate_proj", wide, width, bias=False)
        keys |= linear(f"{at}.mlp.up_proj", wide, width, bias=False)
        keys |= linear(f"{at}.mlp.down_proj", width, wide, bias=False)
        keys |= norm(f"{at}.input_layernorm", width, bias=False)
        keys |= norm(f"{at}.post_attention_layernorm", width, bias=False)
    return keys


@pytest.mark.parametrize("name", PUBLISHED)
def test_expected_keys_of_published_checkpoints(name: str):
    raw, model = published(name)
    queries = raw["window_size"] // raw["downsample_rate"]
    expected = expected_encoder(raw["encoder_config"])
    expected |= expected_projector(
        raw["projector_config"], queries, raw["text_config"]["hidden_size"]
    )
    expected |= expected_decoder(raw["text_config"], raw["tie_word_embeddings"])
    stored = {key: tuple(tensor.shape) for key, tensor in to_stored(model.state_dict()).items()}
    assert stored == expected
    counters = [key for key in stored if key.endswith("num_batches_tracked")]
    assert len(counters) == raw["encoder_config"]["num_layers"]
    assert len(stored) - len(counters) == PUBLISHED[name][-1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_totals_of_published_checkpoints(name: str):
    raw, model = published(name)
    text = raw["text_config"]
    shared = text["hidden_size"] // text["num_attention_heads"] * text["num_key_value_heads"]
    outputs = text["hidden_size"] + shared  # of q and v
    adapter = 64 * (2 * text["hidden_size"] + outputs) * text["num_hidden_layers"]
    totals = [
        sum(t.numel() for t in part.state_dict().values() if t.is_floating_point()) / 1e6
        for part in (model.encoder, model.projector, model.decoder)
    ]
    totals.append(adapter / 1e6 if raw["has_lora_adapter"] else 0.0)
    assert [round(total, 1) for total in totals] == list(PUBLISHED[name][:4])
    assert round(sum(totals), 1) == PUBLISHED[name][4]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_name_survives_the_way_to_the_file_and_back(name: str):
    _, model = published(name)
    names = list(model.state_dict())
    assert [native_name(stored_name(key)) for key in names] == names
    assert len({stored_name(key) for key in names}) == len(names)


@pytest.mark.parametrize(
    ("stored", "native"),
    [
        ("encoder.layers.3.conv.depth_conv.conv.weight",) * 2,
        ("model.encoder.out_mid.bias", "encoder.out_mid.bias"),
        ("model.projector.qformer.layernorm.weight", "projector.norm.weight"),
        (
            "projector.qformer.encoder.layer.1.crossattention.attention.key.weight",
            "projector.layers.1.crossattention.key.weight",
        ),
        (
            "projector.qformer.encoder.layer.0.output_query.LayerNorm.bias",
            "projector.layers.0.norm.bias",
        ),
        (
            "language_model.model.layers.9.mlp.up_proj.weight",
            "decoder.layers.9.mlp.up_proj.weight",
        ),
        (
            "model.language_model.layers.9.self_attn.q_proj.base_layer.weight",
            "decoder.layers.9.self_attn.q_proj.weight",
        ),
        ("language_model.lm_head.weight", "decoder.lm_head.weight"),
        ("lm_head.weight", "decoder.lm_head.weight"),
    ],
)
def test_names_that_other_files_rely_on(stored: str, native: str):
    assert native_name(stored) == native
