"""Stored tensors become the model, strictly: names, shapes, dtypes, and all that can be wrong.

Run alone: ``python -m pytest tests/test_checkpoint.py``.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import core
import tiny_models
from core.checkpoint.config_file import parse_config
from core.checkpoint.hub import resolve
from core.checkpoint.key_map import to_stored
from core.checkpoint.safetensors_io import CheckpointError
from core.checkpoint.weights import load_model
from core.model.granite_speech import GraniteSpeech

DATA = Path(__file__).parent / "data"
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    raw = tiny_models.raw_config()
    tiny_models.write_checkpoint(tmp_path, raw, tiny_models.random_model(raw, seed=3))
    return tmp_path


def load(folder: Path, dtype: torch.dtype = torch.float32) -> GraniteSpeech:
    files = resolve(str(folder))
    config = parse_config(files.json("config.json"), source="test")
    return load_model(config, files.shards, dtype=dtype, device=torch.device("cpu"))[0]


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / "changed.safetensors")
    (folder / "changed.safetensors").replace(folder / WEIGHTS)


def rename(folder: Path, *changes: tuple[str, str]) -> None:
    def renamed(key: str) -> str:
        for old, new in changes:
            key = key.replace(old, new)
        return key

    rewrite(folder, lambda stored: {renamed(key): tensor for key, tensor in stored.items()})


def same(a: GraniteSpeech, b: GraniteSpeech) -> bool:
    state, other = a.state_dict(), b.state_dict()
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


def test_a_saved_model_comes_back_bit_for_bit(folder: Path):
    assert same(load(folder), tiny_models.random_model(seed=3))


def test_shards_with_an_index_are_the_same_as_one_file(folder: Path, tmp_path: Path):
    sharded = tmp_path / "sharded"
    tiny_models.write_checkpoint(
        sharded, tiny_models.raw_config(), tiny_models.random_model(seed=3), num_shards=3
    )
    assert same(load(sharded), load(folder))


def test_shards_the_index_does_not_name_are_ignored(tmp_path: Path):
    model = tiny_models.random_model(seed=3)
    tiny_models.write_checkpoint(tmp_path, tiny_models.raw_config(), model, num_shards=2)
    wrong = {"encoder.out.weight": torch.zeros(7, 7), "leftover": torch.zeros(1)}
    save_file(wrong, tmp_path / "model-00001-of-00003.safetensors")
    save_file(wrong, tmp_path / WEIGHTS)
    assert same(load(tmp_path), model)


def test_names_of_transformers_five_load(folder: Path):
    expected = load(folder)
    rename(
        folder,
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head", "lm_head"),
        ("encoder.layers", "model.encoder.layers"),
        ("projector.", "model.projector."),
    )
    assert same(load(folder), expected)


def test_base_layer_names_load_and_their_adapter_tensors_are_reported(folder: Path):
    expected = load(folder)
    rename(folder, ("q_proj.weight", "q_proj.base_layer.weight"))
    extra = "language_model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    rewrite(folder, lambda stored: stored | {extra: torch.zeros(2, 32)})
    files = resolve(str(folder))
    config = parse_config(files.json("config.json"), source="test")
    model, report = load_model(
        config, files.shards, dtype=torch.float32, device=torch.device("cpu")
    )
    assert same(model, expected)
    assert report.unused == (extra,)


def test_bfloat16_files_load_as_the_cast_of_what_they_hold(folder: Path):
    exact = load(folder)
    rewrite(
        folder, lambda s: {k: t.bfloat16() if t.is_floating_point() else t for k, t in s.items()}
    )
    found = load(folder)
    for name, tensor in exact.state_dict().items():
        expected = tensor.bfloat16().float() if tensor.is_floating_point() else tensor
        assert found.state_dict()[name].dtype == expected.dtype
        assert torch.equal(found.state_dict()[name], expected)


def test_the_dtype_asked_for_is_the_dtype_given(folder: Path):
    model = load(folder, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def test_batch_counters_may_be_left_out(folder: Path):
    rewrite(folder, lambda s: {k: t for k, t in s.items() if not k.endswith("tracked")})
    model, expected = load(folder), tiny_models.random_model(seed=3)
    assert torch.equal(model.encoder.out.weight, expected.encoder.out.weight)


def test_a_stored_head_is_used_even_where_the_config_says_tied(folder: Path):
    head = torch.randn(tiny_models.VOCABULARY, 32)
    rewrite(folder, lambda stored: stored | {"language_model.lm_head.weight": head})
    assert torch.equal(load(folder).decoder.lm_head.weight, head)


def test_a_head_no_flag_speaks_of_is_tied_if_it_is_not_stored(folder: Path):
    # As in the reference, whose own default is tied.
    raw = json.loads((folder / "config.json").read_text())
    del raw["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(raw))
    assert load(folder).decoder.lm_head is None


def test_an_untied_head_must_be_stored(folder: Path):
    raw = tiny_models.raw_config(tie_word_embeddings=False)
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="1 tensors are missing.*language_model.lm_head"):
        load(folder)


def test_missing_and_surplus_tensors_are_counted_and_named_as_stored(folder: Path):
    rename(folder, ("encoder.out_mid.bias", "encoder.mystery"))
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    message = str(caught.value)
    assert "1 tensors are missing (first: 'encoder.out_mid.bias')" in message
    assert "1 tensors fit no part of the model (first: 'encoder.mystery')" in message
    assert WEIGHTS in message


def test_a_wrong_shape_names_the_tensor_and_both_shapes(folder: Path):
    name = "projector.linear.weight"
    rewrite(folder, lambda stored: stored | {name: torch.zeros(32, 31)})
    with pytest.raises(CheckpointError, match=r"projector.linear.weight.*\(32, 31\).*\(32, 32\)"):
        load(folder)


def test_one_tensor_under_two_names_is_refused(folder: Path):
    twin = {"model.encoder.out.bias": torch.zeros(42)}
    rewrite(folder, lambda stored: stored | twin)
    with pytest.raises(CheckpointError, match="same tensor twice"):
        load(folder)


def test_a_shard_without_the_tensor_its_index_promises(tmp_path: Path):
    tiny_models.write_checkpoint(
        tmp_path, tiny_models.raw_config(), tiny_models.random_model(), num_shards=2
    )
    file = tmp_path / "model-00001-of-00002.safetensors"
    stored = load_file(file)
    stored.pop(sorted(stored)[0])
    save_file(stored, file)
    with pytest.raises(CheckpointError, match="though the index says so"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_damaged_shard_is_told_from_a_damaged_model(damage: str, tmp_path: Path):
    tiny_models.write_checkpoint(
        tmp_path, tiny_models.raw_config(), tiny_models.random_model(), num_shards=2
    )
    file = tmp_path / "model-00002-of-00002.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-500] if damage == "cut" else b"\xff" * 1000)
    with pytest.raises(CheckpointError, match="00002-of-00002.*cannot be read as safetensors"):
        load(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, folder: Path):
    def spoil(stored: dict[str, Tensor]) -> dict[str, Tensor]:
        stored["encoder.out.bias"][3] = value
        return stored

    rewrite(folder, spoil)
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: tensor 'encoder.out.bias' holds NaN"):
        load(folder)


def test_weights_that_a_precision_cannot_hold_are_refused(folder: Path):
    rewrite(folder, lambda stored: stored | {"encoder.out.bias": torch.full((42,), 1e6)})
    assert load(folder).encoder.out.bias[0] == 1e6
    with pytest.raises(CheckpointError, match="'encoder.out.bias' holds NaN or infinity"):
        load(folder, torch.float16)


def test_integers_in_place_of_weights_are_refused(folder: Path):
    rewrite(folder, lambda s: s | {"encoder.out.bias": torch.ones(42, dtype=torch.int16)})
    with pytest.raises(CheckpointError, match="'encoder.out.bias'.*torch.int16; expected"):
        load(folder)


# Today's names -> those of the first release of 3.2, behind a block's number.
FIRST_RELEASE = (
    ("attn.pre_norm", "attn.norm"),
    *((f"attn.{part}", f"attn.fn.{part}") for part in ("to_q", "to_kv", "to_out", "rel_pos_emb")),
    *((f"ff{i}.pre_norm", f"ff{i}.fn.norm") for i in (1, 2)),
    *((f"ff{i}.up_proj", f"ff{i}.fn.fn.net.0") for i in (1, 2)),
    *((f"ff{i}.down_proj", f"ff{i}.fn.fn.net.3") for i in (1, 2)),
    ("conv.norm", "conv.net.0"),
    ("conv.up_conv", "conv.net.2"),
    ("conv.depth_conv.conv", "conv.net.4.conv"),
    ("conv.batch_norm", "conv.net.5"),
    ("conv.down_conv", "conv.net.7"),
)


def test_names_of_the_first_release_are_read(folder: Path):
    expected = load(folder)
    # From the last block on, so that no number is taken twice.
    blocks = [(f"encoder.layers.{n}.", f"encoder.rnn_tr.{n + 1}.") for n in (1, 0)]
    rename(folder, *blocks, ("encoder.input_linear", "encoder.rnn_tr.0"), *FIRST_RELEASE)
    stored = load_file(folder / WEIGHTS)
    assert not [key for key in stored if key.startswith("encoder.layers.")]
    assert "encoder.rnn_tr.2.conv.net.4.conv.weight" in stored
    assert same(load(folder), expected)


def test_names_of_two_releases_in_one_checkpoint_are_refused(folder: Path):
    rename(folder, ("encoder.layers.1.", "encoder.rnn_tr.2."))
    with pytest.raises(CheckpointError, match=r"'encoder\.rnn_tr\.2\..*first 3\.2 .*'encoder\."):
        load(folder)


def test_what_is_saved_from_a_loaded_model_is_what_was_loaded(folder: Path, speech_folder: Path):
    for source in (folder, speech_folder):  # without and with an adapter
        lab = core.load(source, device="cpu", dtype="float32")
        stored, saved = load_file(source / WEIGHTS), to_stored(lab.model.state_dict())
        assert stored.keys() == saved.keys()
        assert all(torch.equal(stored[key], saved[key]) for key in stored)


def test_loading_touches_no_random_numbers_and_no_default_dtype(folder: Path):
    state = torch.get_rng_state()
    load(folder, torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32


def test_loading_does_not_wake_the_compiler(folder: Path):
    code = "import sys, core; core.load(sys.argv[1], device='cpu')\n"
    code += "print('torch._inductor' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False"]


def test_a_folder_may_move_after_loading(
    folder: Path, tmp_path: Path, noise: Callable[..., Tensor]
):
    lab = core.load(folder, device="cpu", dtype="float32")
    ids = [[1, *[tiny_models.AUDIO_ID] * 12, 2]]
    before = lab.generate_ids(ids, [noise(1.0)], lora=False)
    shutil.rmtree(folder)
    assert lab.generate_ids(ids, [noise(1.0)], lora=False) == before
