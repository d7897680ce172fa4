"""A folder becomes a checkpoint's files; every way in which it cannot is one readable error.

Run alone: ``python -m pytest tests/test_checkpoint_folder.py``.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import core
import tiny_models
from broken_checkpoints import failure
from core.checkpoint import hub
from core.checkpoint.hub import resolve
from core.checkpoint.safetensors_io import CheckpointError
from core.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small checkpoint that a test may damage."""
    where = tmp_path / "checkpoint"
    tiny_models.write_checkpoint(where, tiny_models.raw_config(), tiny_models.random_model())
    return where


def test_a_file_is_no_checkpoint(folder: Path):
    assert "is a file" in failure(folder / "config.json")


def test_an_empty_folder_says_what_is_missing(tmp_path: Path):
    assert "has no config.json" in failure(tmp_path)


def test_a_folder_without_weights_says_what_it_looked_for(folder: Path):
    (folder / hub.SINGLE).unlink()
    message = failure(folder)
    assert hub.INDEX in message
    assert hub.SINGLE in message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "a.pt"])
def test_pickles_are_refused_unopened(name: str, folder: Path):
    (folder / hub.SINGLE).rename(folder / name)
    assert "pickle" in failure(folder)


def test_a_missing_shard_is_named(tmp_path: Path):
    model = tiny_models.random_model()
    tiny_models.write_checkpoint(tmp_path, tiny_models.raw_config(), model, num_shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    message = failure(tmp_path)
    assert "'model-00002-of-00003.safetensors' is missing (1 in all)" in message


@pytest.mark.parametrize("outside", ["../model.safetensors", "/etc/passwd", "sub/a.safetensors"])
def test_an_index_that_points_outside_the_folder_is_refused(outside: str, folder: Path):
    (folder / hub.INDEX).write_text(json.dumps({"weight_map": {"encoder.out.bias": outside}}))
    assert f"{outside!r} points outside" in failure(folder)


@pytest.mark.parametrize(
    "index",
    ["{", "[]", '{"metadata": {}}', '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "\xff"],
)
def test_a_broken_index_is_told_as_such(index: str, folder: Path):
    (folder / hub.INDEX).write_bytes(index.encode("latin-1"))
    assert re.search("index.json(: not| has no 'weight_map'|: weight_map)", failure(folder))


def test_a_damaged_single_file_is_told_as_such(folder: Path):
    data = (folder / hub.SINGLE).read_bytes()
    (folder / hub.SINGLE).write_bytes(data[: len(data) // 2])
    assert "cannot be read as safetensors" in failure(folder)


@pytest.mark.parametrize("text", ["{", "", "[1]", '"granite"', "\xff\xfe"])
def test_a_config_that_is_no_json_object_is_told_as_such(text: str, folder: Path):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="config.json: not"):
        core.load(folder, device="cpu")


@pytest.mark.parametrize(
    "name", [hub.SINGLE, "config.json", "tokenizer.json", "adapter_model.safetensors"]
)
def test_a_pointer_of_git_lfs_is_told_as_such(name: str, folder: Path):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match=f"{name} is a Git LFS pointer.*'git lfs pull'"):
        core.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "raw", "told"),
    [
        ("preprocessor_config.json", {"n_fft": 10**9}, "n_fft is 1000000000; expected less than"),
        ("preprocessor_config.json", {"hop_length": 1}, "hop_length is 1; expected greater than"),
        ("preprocessor_config.json", {"melspec_kwargs": {"n_fft": 256}}, "400 exceeds n_fft 256"),
        ("preprocessor_config.json", {"n_mels": 64}, "64 mel bins make frames of 128"),
        ("preprocessor_config.json", {"sampling_rate": 8_000}, "wants 8000 Hz; expected 16000"),
        ("processor_config.json", {"audio_processor": {"n_fft": "x"}}, "n_fft is 'x'; expected a"),
        ("processor_config.json", {"audio_processor": []}, "audio_processor is []; expected an"),
        ("generation_config.json", {"eos_token_id": [[1]]}, "eos_token_id.0 is [1]; expected a"),
        ("lab.json", {"family": ["3.3"]}, "family ['3.3'] is unknown; expected one of"),
        ("lab.json", {"family": "3.3", "reliable_s": "8"}, "reliable_s is '8'; expected a valid"),
        ("lab.json", {"family": "3.3", "languages": "en"}, "languages is 'en'; expected a valid"),
    ],
)
def test_settings_beside_the_weights_are_checked(
    name: str, raw: dict[str, Any], told: str, folder: Path
):
    (folder / name).write_text(json.dumps(raw))
    with pytest.raises(UserError, match=re.escape(told)):
        core.load(folder, device="cpu")


def test_a_settings_file_of_megabytes_is_not_parsed(folder: Path):
    (folder / "config.json").write_text("{" + " " * 5_000_000 + "}")
    with pytest.raises(CheckpointError, match="has 5000002 bytes; expected at most"):
        core.load(folder, device="cpu")


def test_a_null_is_as_good_as_nothing(folder: Path):
    raw = {"n_fft": None, "melspec_kwargs": {"n_mels": None}, "eos_token_id": None}
    for name in ("preprocessor_config.json", "processor_config.json", "generation_config.json"):
        (folder / name).write_text(json.dumps(raw))
    assert core.load(folder, device="cpu").feature_extractor.config.n_fft == 512


def test_relative_folders_and_the_home_folder_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder.parent)
    assert resolve("checkpoint").folder.samefile(folder)
    assert resolve("./checkpoint").folder.samefile(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve("~/checkpoint").folder.samefile(folder)


def test_the_size_counts_every_weight_file_once(tmp_path: Path):
    model = tiny_models.random_model()
    tiny_models.write_checkpoint(tmp_path, tiny_models.raw_config(), model, num_shards=2)
    expected = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert resolve(str(tmp_path)).num_bytes == expected


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"device": "quantum"}, "device 'quantum'"),
        ({"device": "cuda:77"}, "device 'cuda:77'"),
        ({"dtype": "int8"}, "float32, bfloat16, float16"),
        ({"dtype": "float64"}, "float32, bfloat16, float16"),
    ],
)
def test_devices_and_dtypes_that_are_not_there(
    options: dict[str, str], told: str, folder: Path, noise: Callable
):
    with pytest.raises(ValueError, match=told):
        core.load(folder, **options)
