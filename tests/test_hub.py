"""A name becomes a checkpoint's files; every way in which it cannot is one readable error.

No test reaches the Hub: its client is replaced. Run alone: ``python -m pytest tests/test_hub.py``.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

import core
import tiny_models
from core.checkpoint import hub
from core.checkpoint.catalog import CATALOG
from core.checkpoint.hub import resolve
from core.checkpoint.hub_errors import ClientError
from core.checkpoint.safetensors_io import CheckpointError
from core.errors import UserError

client = import_module(ClientError.__module__.partition(".")[0])  # httpx or httpx2
REPO = "someone/granite-speech-3.3-mini"
# What a repository may hold; a download takes what it needs of it.
REMOTE = {
    ".gitattributes",
    "README.md",
    "config.json",
    "generation_config.json",
    "lab.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "adapter_config.json",
    "adapter_model.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model-00001-of-00003.safetensors",
    "pytorch_model.bin",
    "training_args.bin",
    "10226_10111_000000.wav",
    "model.onnx",
}


def failure(name: object, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(str(name), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small checkpoint that a test may damage."""
    where = tmp_path / "checkpoint"
    tiny_models.write_checkpoint(where, tiny_models.raw_config(), tiny_models.random_model())
    return where


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A Hub that serves a sharded checkpoint and writes down what is asked of it."""
    remote, local = tmp_path / "remote", tmp_path / "snapshot"
    model = tiny_models.random_model()
    tiny_models.write_checkpoint(remote, tiny_models.raw_config(), model, num_shards=2)
    for name in REMOTE:
        if not (remote / name).exists():
            (remote / name).write_text("{}")
    seen: dict[str, Any] = {"files": [], "revisions": set(), "remote": remote, "online": 0}

    def take(name: str) -> Path:
        local.mkdir(exist_ok=True)
        (local / name).write_bytes((remote / name).read_bytes())
        seen["files"].append(name)
        return local / name

    def ask(revision: str | None, local_files_only: bool) -> None:
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not in the cache")
        seen["revisions"].add(revision)
        seen["online"] += 1

    def hf_hub_download(
        repo: str, name: str, *, revision: str | None, local_files_only: bool
    ) -> str:
        ask(revision, local_files_only)
        if not (remote / name).exists():
            raise errors.EntryNotFoundError(f"404: {name}")
        return str(take(name))

    def snapshot_download(
        repo: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool
    ) -> str:
        ask(revision, local_files_only)
        for file in sorted(remote.iterdir()):
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                take(file.name)
        return str(local)

    monkeypatch.setattr(hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    return seen


def test_a_download_asks_only_for_what_is_needed(asked: dict[str, Any]):
    files = resolve(REPO, revision="abc")
    taken = set(asked["files"])
    assert {"config.json", "tokenizer.json", "adapter_model.safetensors"} <= taken
    assert {name for name in taken if name.startswith("model-")} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    unwanted = {"README.md", "pytorch_model.bin", "training_args.bin", "model.onnx"}
    assert not taken & (unwanted | {"10226_10111_000000.wav", "model-00001-of-00003.safetensors"})
    assert asked["revisions"] == {"abc"}
    assert files.source == REPO
    assert files.find("nothing", "tokenizer.json") == files.folder / "tokenizer.json"


def test_a_repository_without_an_index_gives_its_single_file(asked: dict[str, Any]):
    remote = asked["remote"]
    (remote / hub.INDEX).unlink()
    (remote / hub.SINGLE).write_bytes((remote / "model-00001-of-00002.safetensors").read_bytes())
    resolve(REPO)
    weights = {name for name in asked["files"] if name.startswith("model")}
    assert weights == {hub.SINGLE}


def test_a_repository_of_pickles_is_refused_without_fetching_them(asked: dict[str, Any]):
    for file in asked["remote"].glob("*.safetensors*"):
        file.unlink()
    assert "has neither" in failure(REPO)
    assert not [name for name in asked["files"] if name.endswith((".bin", ".pt", ".pth"))]


@pytest.mark.parametrize("named", ["pytorch_model.bin", "*", "../config.json", "/etc/passwd"])
def test_an_index_cannot_make_the_download_fetch_anything_else(named: str, asked: dict[str, Any]):
    index = json.dumps({"weight_map": {"encoder.out.bias": named}})
    (asked["remote"] / hub.INDEX).write_text(index)
    assert named in failure(REPO)
    assert not {"pytorch_model.bin", "README.md", "training_args.bin"} & set(asked["files"])


def test_a_broken_index_on_the_hub_is_told_as_such(asked: dict[str, Any]):
    (asked["remote"] / hub.INDEX).write_text('{"weight')
    assert "model.safetensors.index.json: not valid JSON" in failure(REPO)


def test_what_is_in_the_cache_is_used_without_asking(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    def cached(repo: str, name: str = "", *, local_files_only: bool, **_: object) -> str:
        assert local_files_only
        return str(asked["remote"] / name)

    monkeypatch.setattr(hub, "hf_hub_download", cached)
    monkeypatch.setattr(hub, "snapshot_download", cached)
    assert resolve(REPO).folder == asked["remote"]
    assert hub.is_here(REPO)


def test_an_incomplete_cache_is_completed_but_never_when_only_looking(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    cache = asked["remote"].parent / "cache"
    cache.mkdir()
    for name in ("config.json", hub.INDEX):
        (cache / name).write_bytes((asked["remote"] / name).read_bytes())
    fetch, snapshot = hub.hf_hub_download, hub.snapshot_download

    def cached_file(repo: str, name: str, *, local_files_only: bool, **options: Any) -> str:
        if local_files_only:
            return str(cache / name)
        return fetch(repo, name, local_files_only=False, **options)

    def cached_folder(repo: str, *, local_files_only: bool, **options: Any) -> str:
        return str(cache) if local_files_only else snapshot(repo, local_files_only=False, **options)

    monkeypatch.setattr(hub, "hf_hub_download", cached_file)
    monkeypatch.setattr(hub, "snapshot_download", cached_folder)
    assert not hub.is_here(REPO)
    assert asked["online"] == 0
    assert resolve(REPO).shards
    assert asked["online"] > 0


RESPONSE = client.Response(403, request=client.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.OfflineModeIsEnabled("offline"), "not in the local cache and the Hub cannot be"),
        (
            errors.LocalEntryNotFoundError("no cache"),
            "not in the local cache and the Hub cannot be",
        ),
        (errors.RepositoryNotFoundError("404", response=RESPONSE), "no repository"),
        (errors.GatedRepoError("403", response=RESPONSE), "licence"),
        (errors.RevisionNotFoundError("404", response=RESPONSE), "no revision 'v9'"),
        (errors.RemoteEntryNotFoundError("404", response=RESPONSE), "no config.json"),
        (errors.HFValidationError("bad id"), "'owner/name'"),
        (errors.HfHubHTTPError("503 busy\nlong story", response=RESPONSE), "failed: 503 busy"),
        (OSError("No space left on device"), "failed: No space left on device"),
        (client.ConnectError("Name or service not known"), "Name or service not known"),
        (client.ReadTimeout("The read operation timed out"), "timed out"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_failure_of_the_hub_is_one_sentence(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args: object, **options: object) -> str:
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    message = failure(REPO, revision="v9")
    assert told in message
    assert REPO in message


def test_a_download_that_breaks_off_after_the_config(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    def break_off(*args: object, **options: object) -> str:
        raise client.ReadError("connection reset")

    monkeypatch.setattr(hub, "snapshot_download", break_off)
    assert "connection reset" in failure(REPO)


def test_offline_an_unknown_repository_says_what_to_do():
    # HF_HUB_OFFLINE is set for all tests: this is the client's own answer.
    message = failure("nobody-at-all/never-uploaded")
    assert "cannot be reached" in message
    assert "'tiny'" in message


@pytest.mark.parametrize("name", ["large", "./nowhere", "/no/such/folder", "a/b/c", "~/nowhere/x"])
def test_a_name_that_is_nothing_lists_what_there_is(name: str):
    message = failure(name)
    assert repr(name) in message
    assert "granite-speech-3.3-2b" in message


def test_a_bundled_model_that_was_not_made_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model_info = replace(CATALOG["tiny"], source=str(tmp_path / "tiny"))
    monkeypatch.setitem(CATALOG, "tiny", model_info)
    assert "make demo-model" in failure("tiny")


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


def test_an_unknown_model_type_is_refused_before_its_weights_are_fetched(asked: dict[str, Any]):
    (asked["remote"] / "config.json").write_text('{"model_type": "granite_speech_6"}')
    with pytest.raises(UserError, match="'granite_speech_6'; expected one of: granite_speech, "):
        core.load(REPO, device="cpu")
    assert asked["files"] == ["config.json"]


def test_a_licence_that_forbids_business_is_said_before_the_download(
    asked: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    (asked["remote"] / "config.json").write_text('{"model_type": "stops here"}')
    for name in ("granite-speech-5.0-470m-turboctc", "granite-speech-5.0-470m-turboctc-nc"):
        with pytest.raises(UserError, match="stops here"):
            core.load(name, device="cpu")
    assert [record.getMessage() for record in caplog.records] == [
        "ibm-granite/granite-speech-5.0-470m-turboctc-nc: its licence is CC-BY-NC-SA-4.0: not for "
        "commercial use"
    ]
    assert [info.name for info in CATALOG.values() if not info.commercial_use] == [name]
