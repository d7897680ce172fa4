"""TurboCTC by itself: lengths, padding, tensors, dtypes, graphs, and what config.json may say.

Run alone: ``python -m pytest tests/test_granite_speech5_ctc.py``.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounter

from core.checkpoint.config_granite_speech5_ctc import parse_granite_speech5_ctc
from core.checkpoint.weights import CheckpointError
from core.generation.ctc_greedy import best_labels, emitted_tokens
from core.model.config import ConfigError
from core.model.features import pad_features
from core.model.granite_speech5_ctc import GraniteSpeech5CTC, mean_of_pairs
from granite_speech5 import (
    ONE_HALVING,
    PUBLISHED_CONFIG,
    TWO_HALVINGS,
    clip_features,
    ctc_config,
    load_ctc,
    random_ctc_model,
    raw_ctc_config,
    run_ctc,
)


@pytest.mark.parametrize("halvings", [ONE_HALVING, TWO_HALVINGS])
def test_a_clip_is_the_same_alone_and_in_a_batch(halvings: dict[str, Any]):
    model = random_ctc_model(**halvings)
    clips = [clip_features(rows) for rows in (1, 4, 20, 26, 27, 53, 104)]
    together = run_ctc(model, *clips)
    tokens = emitted_tokens(best_labels(together.logits), together.lengths.tolist())
    assert any(tokens)
    for row, features in enumerate(clips):
        alone = run_ctc(model, features)
        count = int(alone.lengths)
        assert together.lengths[row] == count == len(features) // model.config.rows_per_label
        assert torch.allclose(
            together.logits[row, :count], alone.logits[0, :count], rtol=0, atol=5e-5
        )
        mine = emitted_tokens(best_labels(alone.logits), [count])[0]
        assert [token[:3] for token in tokens[row]] == [token[:3] for token in mine]


@pytest.mark.parametrize(("rows", "halved"), [(550, 137), (1767, 441), (3, 0), (1, 0)])
def test_lengths_are_halved_twice_and_odd_rows_dropped(rows: int, halved: int):
    assert run_ctc(random_ctc_model(), clip_features(rows)).lengths.tolist() == [halved]


def test_what_lies_in_the_padding_is_never_read():
    model, values = random_ctc_model(), pad_features([clip_features(33)], 60).values
    with torch.inference_mode():
        clean = model(values, torch.tensor([33]))
        values[:, 33:] = 1e4 * torch.randn(1, 27, 24)
        dirty = model(values, torch.tensor([33]))
    assert torch.equal(clean.logits[:, :8], dirty.logits[:, :8])


def test_the_middle_posteriors_feed_the_later_layers():
    model = random_ctc_model()
    before = run_ctc(model, clip_features(40)).logits
    model.encoder.out_mid.bias += 3 * torch.randn(32)
    assert not torch.allclose(before, run_ctc(model, clip_features(40)).logits, atol=0.1)


def test_pairs_of_rows_become_their_mean():
    rows = torch.tensor([[[1.0], [3.0], [10.0], [20.0], [7.0]]])
    assert mean_of_pairs(rows).tolist() == [[[2.0], [15.0]]]
    assert mean_of_pairs(rows[:, :4]).tolist() == [[[2.0], [15.0]]]


# The published checkpoint, as far as its config.json says.


def test_the_published_checkpoint_has_550_tensors_of_473_million_numbers():
    with torch.device("meta"):
        model = GraniteSpeech5CTC(parse_granite_speech5_ctc(PUBLISHED_CONFIG, "published"))
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    counted = [t.numel() for t in model.state_dict().values() if t.is_floating_point()]
    assert (len(state), len(state) - len(counted)) == (550, 16)  # 16 int64 counters
    assert sum(counted) == 472_993_792  # with 65 536 running statistics
    assert not [name for name in state if not name.startswith("encoder.")]
    for name, shape in PUBLISHED_SHAPES.items():
        assert state[f"encoder.{name}"] == shape, name


AT = "layers.15"
PUBLISHED_SHAPES: dict[str, tuple[int, ...]] = {
    "input_linear.weight": (1024, 320),
    **{f"{AT}.norm_{part}.bias": (1024,) for part in ("feed_forward1", "self_att", "conv", "out")},
    f"{AT}.norm_feed_forward2.weight": (1024,),
    f"{AT}.feed_forward1.linear1.weight": (4096, 1024),
    f"{AT}.feed_forward2.linear2.weight": (1024, 4096),
    f"{AT}.feed_forward2.linear2.bias": (1024,),
    **{f"{AT}.self_attn.{part}_proj.weight": (1024, 1024) for part in "qkvo"},
    f"{AT}.self_attn.o_proj.bias": (1024,),
    f"{AT}.self_attn.rel_pos_emb.weight": (1025, 128),
    f"{AT}.conv.pointwise_lin1.weight": (4096, 1024),
    f"{AT}.conv.pointwise_lin2.weight": (1024, 2048),
    f"{AT}.conv.depthwise_conv.weight": (2048, 1, 7),
    f"{AT}.conv.norm.running_var": (2048,),
    "out.weight": (16384, 1024),
    "out.bias": (16384,),
    "out_mid.weight": (1024, 16384),
}


# Loading.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16, but for batch norm, as the published one."""
    folder = tmp_path_factory.mktemp("turbo")
    (folder / "config.json").write_text(json.dumps(raw_ctc_config()))
    save_file(random_ctc_model().to(torch.bfloat16).state_dict(), folder / "model.safetensors")
    return folder


def test_a_checkpoint_is_read_strictly_by_its_stored_names(folder: Path, tmp_path: Path):
    stored = load_file(folder / "model.safetensors")
    found = load_ctc(folder, torch.bfloat16).state_dict()
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    del stored["encoder.out.bias"]
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="1 tensors are missing .first: 'encoder.out.bias'"):
        load_ctc(tmp_path, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_batch_norm_stays_in_float32_whatever_the_model_is(dtype: torch.dtype, folder: Path):
    for model in (load_ctc(folder, dtype), random_ctc_model().to(dtype)):
        kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
        for name, kind in kinds.items():
            counter = name.endswith("num_batches_tracked")
            norm = torch.int64 if counter else torch.float32
            assert kind == (norm if ".conv.norm." in name else dtype), name
        batch = pad_features([clip_features(5), clip_features(90)])
        with torch.inference_mode():
            out = model(batch.values.to(dtype), torch.tensor(batch.lengths))
        assert out.logits.dtype == dtype
        assert torch.isfinite(out.logits).all()


def test_casting_to_half_and_back_does_not_round_batch_norm():
    model = random_ctc_model()
    before = model.encoder.layers[0].conv.norm.running_var.clone()
    model.to(torch.bfloat16).float()
    assert torch.equal(model.encoder.layers[0].conv.norm.running_var, before)


# Compiling.


def test_thirty_lengths_and_several_batches_are_one_graph():
    # Around whole blocks at each rate (13, 26, 52 rows and their multiples), odd and even.
    lengths = [33, 8, 9, 10, 11, 12, 13, 14, 15, 25, 26, 27, 32, 39, 51, 52, 53, 54, 65, 78]
    lengths += [100, 101, 103, 104, 105, 130, 156, 208, 257, 312, 333]
    assert len(lengths) > 30
    model = random_ctc_model(num_hidden_layers=2)
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend=counter)
    for batch, rows in zip([2, 3, 4] * 11, lengths, strict=False):
        features, real = torch.randn(batch, rows, 24), torch.full((batch,), rows - 3)
        for tensor, sizes in ((features, [0, 1]), (real, [0])):
            torch._dynamo.mark_dynamic(tensor, sizes)
        with torch.inference_mode():
            found, expected = compiled(features, real), model(features, real)
        torch.testing.assert_close(found.logits, expected.logits)
        assert counter.frame_count == 1, f"{batch} x {rows} rows made another graph"
    torch.compiler.reset()


# config.json.


def failure(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_granite_speech5_ctc(raw, "here/config.json")
    message = str(caught.value)
    assert message.startswith("here/config.json: ")
    assert "\n" not in message
    return message


def test_every_dimension_comes_from_the_file():
    config = ctc_config(head_dim=10, attention_bias=False, subsample_layers=[1, 0])
    assert (config.input_dim, config.dim_head, config.vocab_size) == (24, 10, 30)
    assert config.feedforward_bias is False
    assert config.subsample_layers == (0, 1)
    assert (config.rows_per_label, config.min_rows) == (4, 8)
    model = GraniteSpeech5CTC(config)
    assert model.encoder.layers[0].feed_forward1.linear1.bias is None
    assert model.encoder.layers[0].self_attn.o_proj.bias is not None


def test_a_missing_dimension_is_named():
    # Their absence means something, or nothing here reads them.
    ignored = {"model_type", "head_dim", "num_key_value_heads", "initializer_range"}
    ignored |= {"attention_dropout", "activation_dropout"}
    for key in set(raw_ctc_config()["encoder_config"]) - ignored:
        raw = raw_ctc_config()
        del raw["encoder_config"][key]
        assert f"encoder has no {key!r}" in failure(raw)
    for key in ("encoder_config", "vocab_size"):
        raw = raw_ctc_config()
        del raw[key]
        assert f"model has no {key!r}" in failure(raw)


def test_keys_that_inference_does_not_read_do_no_harm():
    raw = raw_ctc_config()
    for key in ("head_dim", "num_key_value_heads", "initializer_range"):
        del raw["encoder_config"][key]
    raw["encoder_config"]["something_new"] = raw["of_later"] = 1
    assert parse_granite_speech5_ctc(raw, "test") == ctc_config()


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("encoder", {"context_size": 65}, "context_size 65.*64"),
        ("encoder", {"context_size": 0}, "context_size is 0; expected"),
        ("encoder", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000; expected less"),
        ("encoder", {"num_hidden_layers": "4"}, "num_hidden_layers is '4'; expected a valid"),
        ("encoder", {"head_dim": None, "num_attention_heads": 64}, "32 is too small for 64"),
        ("model", {"encoder_config": [3]}, r"encoder_config is \[3\]; expected an object"),
        ("encoder", {"vocab_size": 31}, "vocab_size is 30.*31"),
        ("encoder", {"num_key_value_heads": 1}, "num_key_value_heads is 1; expected 2"),
        ("encoder", {"conv_kernel_size": 8}, "8; expected an odd"),
        ("encoder", {"subsample_layers": [0, 4]}, r"\[0, 4\]; expected .* 0 to 3"),
        ("encoder", {"subsample_layers": [1, 1]}, r"\[1, 1\]; expected different"),
        ("model", {"pad_token_id": 1}, "pad_token_id.* is 1; expected 0"),
        ("model", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("model", {"model_type": "granite_speech"}, "model_type is 'granite_speech'; expected"),
    ],
)
def test_values_that_do_not_fit_together_are_named(part: str, change: dict[str, Any], said: str):
    raw = raw_ctc_config()
    (raw["encoder_config"] if part == "encoder" else raw).update(change)
    assert re.search(said, failure(raw))
